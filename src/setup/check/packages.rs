//! The package tool: whether it is free, whole, and has where to fetch from.

use std::fs;

use config::layout;

use super::vault::{self, Dead};
use super::{Outcome, Subject};
use host::dpkg::{self, Finish, Unfinished};
use host::locks::{self, Holder};
use host::machine::Machine;
use host::os::{Family, Os};

/// Where yum 3 notes a transaction that it has begun.
const TRANSACTIONS: &str = "/var/lib/yum";

/// Where the vendor's older agent was installed to.
const VENDORS_AGENT: &str = "/opt/scalr-agent";

pub(super) fn package_lock(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match locks::of_package_tools(&subject.machine) {
        Ok(None) => Outcome::Passed("no other package manager is running".to_owned()),
        Ok(Some((file, holder))) => judge_holder(file, &holder),
        Err(error) => Outcome::Skipped(format!("only root can see that ({error:#})")),
    }
}

pub(super) fn half_configured(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let at_work = locks::of_package_tools(&subject.machine);
    if let Ok(Some((_, holder))) = &at_work {
        return Outcome::Skipped(format!("{holder} is installing packages at this moment"));
    }
    let found = judge_installed(subject);
    match (found, at_work) {
        // What is at work looks like something that was left unfinished.
        (Outcome::Problem(text, _), Err(_)) => Outcome::Unknown(format!(
            "{text}, unless it is being installed at this moment; only root can see that"
        )),
        (found, _) => found,
    }
}

fn judge_installed(subject: &Subject) -> Outcome {
    match subject.os().map(|os| os.family) {
        Ok(Family::Debian) => match dpkg::unfinished() {
            Ok(packages) => judge_dpkg(&packages, dpkg::was_interrupted(&subject.machine)),
            Err(error) => Outcome::unknown(error),
        },
        Ok(Family::RedHat) => {
            let has_tool = which::which("yum-complete-transaction").is_ok();
            let database = subject.rpm("container-selinux").map(drop).map_err(str::to_owned);
            judge_rpm(database, unfinished_transactions(&subject.machine), has_tool)
        }
        Ok(Family::Other) => Outcome::Skipped("there is neither dpkg nor rpm".to_owned()),
        Err(error) => Outcome::unknown(error),
    }
}

pub(super) fn mirror_lists(subject: &Subject) -> Outcome {
    let os = match subject.os() {
        Ok(os) if os.id == "centos" && os.major() <= 8 => os,
        Ok(os) => return Outcome::Skipped(format!("{} does not use them", os.name)),
        Err(error) => return Outcome::unknown(error),
    };
    match vault::dead_repositories(&subject.machine) {
        Ok(dead) => judge_mirrors(&os, &dead),
        Err(error) => Outcome::unknown(format!("{error:#}")),
    }
}

pub(super) fn vendor_agent(subject: &Subject) -> Outcome {
    if !subject.machine.path(VENDORS_AGENT).exists() {
        return Outcome::Passed("the vendor's older agent is not installed".to_owned());
    }
    if subject.before_install || !subject.machine.path(layout::LIBRARY_DIR).exists() {
        return Outcome::problem(format!(
            "the vendor's older agent is in {VENDORS_AGENT}, under the same names of package and \
             service; let it end its runs and stop it with `systemctl stop scalr-agent` before \
             this one is installed; docs/migrating.md describes how to move its settings"
        ));
    }
    Outcome::problem(format!(
        "the vendor's older agent is still in {VENDORS_AGENT}; docs/migrating.md describes how to \
         move what it has of yours, then remove it with `rm -r {VENDORS_AGENT}`"
    ))
}

fn judge_holder(file: &str, holder: &Holder) -> Outcome {
    let unattended = ["unattended-upgr", "apt.systemd.dai", "packagekitd", "yum-cron"];
    let hint = if unattended.iter().any(|name| holder.name.starts_with(name)) {
        "; it installs updates by itself and ends in a few minutes"
    } else {
        ""
    };
    Outcome::problem(format!(
        "{holder} holds {file}{hint}; an installation has to wait until it has ended"
    ))
}

fn judge_dpkg(packages: &[Unfinished], was_interrupted: bool) -> Outcome {
    let names = |by| {
        let those = packages.iter().filter(|unfinished| unfinished.by == by);
        those.map(|unfinished| unfinished.package.as_str()).collect::<Vec<_>>().join(" ")
    };
    let command = |command: &str, by| {
        Some(names(by)).filter(|names| !names.is_empty()).map(|names| format!("{command} {names}"))
    };
    let configure = || "dpkg --configure -a".to_owned();
    // apt does nothing before dpkg has written down what it did.
    let mut fix: Vec<String> = was_interrupted.then(configure).into_iter().collect();
    fix.extend(command("dpkg --force-remove-reinstreq --remove", Finish::Removal));
    fix.extend(command("apt-get -y install --reinstall", Finish::Reinstallation));
    if !was_interrupted && !names(Finish::Configuration).is_empty() {
        fix.push(configure());
    }
    if fix.is_empty() {
        return Outcome::Passed("no earlier installation was left unfinished".to_owned());
    }
    let mut what = Vec::new();
    if was_interrupted {
        what.push("dpkg was interrupted".to_owned());
    }
    if !packages.is_empty() {
        let names: Vec<_> = packages.iter().map(|unfinished| unfinished.package.as_str()).collect();
        what.push(format!("dpkg has left unfinished: {}", names.join(", ")));
    }
    Outcome::Problem(
        format!("{}; apt installs nothing until that is finished", what.join("; ")),
        fix,
    )
}

fn judge_rpm(database: Result<(), String>, unfinished: Vec<String>, has_tool: bool) -> Outcome {
    if let Err(error) = database {
        return Outcome::Problem(
            format!("rpm can't read its database: {error}"),
            vec!["rpm --rebuilddb".to_owned()],
        );
    }
    if unfinished.is_empty() {
        return Outcome::Passed("no earlier installation was left unfinished".to_owned());
    }
    let tool = if has_tool { "" } else { "yum -y install yum-utils && " };
    Outcome::Problem(
        format!("yum was interrupted ({}), and complains each time", unfinished.join(", ")),
        vec![format!("{tool}yum-complete-transaction --cleanup-only")],
    )
}

/// What yum has begun and not ended; it removes the notes of what it has ended.
fn unfinished_transactions(machine: &Machine) -> Vec<String> {
    let Ok(entries) = fs::read_dir(machine.path(TRANSACTIONS)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("transaction-all.")).collect()
}

fn judge_mirrors(os: &Os, dead: &[Dead]) -> Outcome {
    let enabled: Vec<&str> =
        dead.iter().filter(|repository| repository.enabled).map(|dead| dead.id.as_str()).collect();
    if enabled.is_empty() {
        return Outcome::Passed("none does".to_owned());
    }
    Outcome::Problem(
        format!(
            "{} is past its end of life, and mirrorlist.centos.org and mirror.centos.org, which \
             {} ask for packages, are gone; {} keeps the last ones",
            os.name,
            enabled.join(", "),
            vault::VAULT
        ),
        vault::move_to_the_vault(os, dead),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn machine() -> (tempfile::TempDir, Machine) {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        (tree, machine)
    }

    fn put(machine: &Machine, path: &str, text: &str) -> PathBuf {
        let file = machine.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn who_holds_it_is_named() {
        let holder = Holder { pid: 612, name: "unattended-upgr".to_owned() };
        let Outcome::Problem(text, _) = judge_holder("/var/lib/dpkg/lock-frontend", &holder) else {
            panic!()
        };
        assert!(
            text.starts_with("unattended-upgr (process 612) holds /var/lib/dpkg/lock-frontend")
        );
        assert!(text.contains("by itself"), "{text}");
    }

    #[test]
    fn what_was_left_unfinished() {
        let unfinished = |package: &str, by| Unfinished { package: package.to_owned(), by };
        let unpacked = unfinished("postfix", Finish::Configuration);
        let torn = ["mutt", "procmail"].map(|package| unfinished(package, Finish::Reinstallation));
        let removed = unfinished("exim4", Finish::Removal);
        let configure = "dpkg --configure -a";
        let reinstall = "apt-get -y install --reinstall mutt procmail";
        let remove = "dpkg --force-remove-reinstreq --remove exim4";
        let all = [&torn[..], &[unpacked.clone(), removed]].concat();
        for (packages, was_interrupted, expected) in [
            (&[][..], true, &[configure][..]),
            (&[unpacked], false, &[configure]),
            (&torn, false, &[reinstall]),
            (&torn, true, &[configure, reinstall]),
            (&all, false, &[remove, reinstall, configure]),
            (&all, true, &[configure, remove, reinstall]),
        ] {
            let found = judge_dpkg(packages, was_interrupted);
            let Outcome::Problem(text, fix) = found else { panic!("{found:?}") };
            assert_eq!(fix, expected, "{text}");
            for unfinished in packages {
                assert!(text.contains(&unfinished.package), "{text}");
            }
        }
        assert!(matches!(judge_dpkg(&[], false), Outcome::Passed(_)));

        let (_tree, machine) = machine();
        assert!(matches!(
            judge_rpm(Ok(()), unfinished_transactions(&machine), true),
            Outcome::Passed(_)
        ));
        put(&machine, "/var/lib/yum/transaction-all.2024-06-01.10:00.00", "");
        put(&machine, "/var/lib/yum/transaction-done.2024-06-01.10:00.00", "");
        let found = judge_rpm(Ok(()), unfinished_transactions(&machine), false);
        let Outcome::Problem(_, fix) = found else { panic!("{found:?}") };
        assert_eq!(fix, ["yum -y install yum-utils && yum-complete-transaction --cleanup-only"]);

        let broken = judge_rpm(Err("error: cannot open Packages".to_owned()), Vec::new(), true);
        assert!(matches!(broken, Outcome::Problem(_, fix) if fix == ["rpm --rebuilddb"]));
    }

    const CENTOS_7: &str = "ID=centos\nVERSION_ID=7\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n";

    #[test]
    fn repositories_whose_mirrors_are_gone() {
        let (_tree, machine) = machine();
        put(&machine, "/etc/os-release", CENTOS_7);
        put(
            &machine,
            "/etc/yum.repos.d/CentOS-Base.repo",
            "# CentOS-Base.repo\n\n[base]\nname=CentOS-$releasever - Base\n\
             mirrorlist=http://mirrorlist.centos.org/?release=$releasever&arch=$basearch&repo=os\n\
             #baseurl=http://mirror.centos.org/centos/$releasever/os/$basearch/\n\n\
             [centosplus]\nenabled=0\nmirrorlist=http://mirrorlist.centos.org/?repo=centosplus\n",
        );
        put(&machine, "/etc/yum.repos.d/ours.repo", "[ours]\nbaseurl=https://ours.example.com/\n");
        let found = mirror_lists(&Subject::of(&machine).unwrap());
        let Outcome::Problem(text, fix) = found else { panic!("{found:?}") };
        assert!(text.contains("which base ask"), "{text}");

        // What the command makes of the file is found to be well.
        let run = std::process::Command::new("sh").args(["-c", &fix[0]]).status();
        assert!(run.unwrap().success());
        let fixed = mirror_lists(&Subject::of(&machine).unwrap());
        assert!(matches!(fixed, Outcome::Passed(_)), "{fixed:?}");
    }

    #[test]
    fn other_systems_have_other_mirrors() {
        let (_tree, machine) = machine();
        put(&machine, "/etc/os-release", "ID=rocky\nVERSION_ID=8.10\nPRETTY_NAME=Rocky\n");
        let found = mirror_lists(&Subject::of(&machine).unwrap());
        assert!(matches!(found, Outcome::Skipped(_)));
    }

    #[test]
    fn the_vendors_agent_is_a_warning() {
        let (_tree, machine) = machine();
        let looked = || vendor_agent(&Subject::of(&machine).unwrap());
        assert!(matches!(looked(), Outcome::Passed(_)));
        fs::create_dir_all(machine.path(VENDORS_AGENT)).unwrap();
        let before = looked();
        assert!(matches!(&before, Outcome::Problem(text, _)
            if text.contains("systemctl stop scalr-agent") && text.contains("docs/migrating.md")));
        fs::create_dir_all(machine.path(layout::LIBRARY_DIR)).unwrap();
        assert!(matches!(&looked(), Outcome::Problem(text, _) if text.contains("rm -r")));
    }
}
