//! SELinux and fapolicyd.

use super::{Outcome, Subject};
use cli::untrusted_file;
use config::layout;
use host::os::Family;
use host::selinux as labels_of;

/// Where the package, the settings, the units and the data are.
const OURS: [&str; 12] = [
    "/usr/bin/scalr-agent",
    "/usr/bin/scalr-agent-setup",
    layout::ENGINE_PROGRAMS,
    "/usr/lib/scalr-agent/engine/dockerd",
    layout::SETTINGS_DIR,
    config::FILE,
    "/usr/lib/systemd/system/scalr-agent.service",
    "/usr/lib/systemd/system/scalr-docker.service",
    layout::AGENT_DROP_INS,
    layout::PROXY_DROP_IN,
    layout::DATA_DIR,
    "/etc/yum.repos.d/scalr-agent.repo",
];

pub(super) fn selinux(subject: &Subject) -> Outcome {
    match labels_of::is_enforcing(&subject.machine) {
        None if !subject.machine.is_this_one() => Outcome::tree(),
        None => Outcome::Skipped("SELinux is off here".to_owned()),
        Some(true) => Outcome::Passed(
            "SELinux is enforcing; the policy of container-selinux lets the engine work".to_owned(),
        ),
        Some(false) => {
            Outcome::Passed("SELinux is permissive: it only logs what it would forbid".to_owned())
        }
    }
}

pub(super) fn labels(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    if !labels_of::is_on(&subject.machine) {
        return Outcome::Skipped("SELinux is off here, so labels do not count".to_owned());
    }
    let ours: Vec<&str> =
        OURS.into_iter().filter(|path| subject.machine.path(path).exists()).collect();
    if ours.is_empty() {
        return Outcome::Skipped("scalr-agent is not installed yet".to_owned());
    }
    match labels_of::wrong_labels(&ours) {
        Ok(wrong) => judge_labels(&wrong),
        Err(error) => Outcome::unknown(error),
    }
}

pub(super) fn fapolicyd(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    if !subject.is_active("fapolicyd.service") {
        return Outcome::Skipped("fapolicyd does not run".to_owned());
    }
    let settings = subject.machine.path("/etc/fapolicyd/fapolicyd.conf");
    if is_permissive(&untrusted_file::read_text(settings).unwrap_or_default()) {
        return Outcome::Passed(
            "fapolicyd is permissive: it only logs what it would forbid".to_owned(),
        );
    }
    if subject.os().is_ok_and(|os| os.family != Family::RedHat) {
        return Outcome::warning(
            "it runs, and allows only programs that are registered with it; after the installation: \
             `fapolicyd-cli --file add /usr/lib/scalr-agent/ && fapolicyd-cli --update`",
        );
    }
    match subject.rpm("rpm-plugin-fapolicyd") {
        Ok(plugin) => judge_fapolicyd(plugin.is_some(), subject.before_install),
        Err(error) => Outcome::unknown(error),
    }
}

fn judge_labels(wrong: &[(String, String)]) -> Outcome {
    let paths: Vec<&str> = wrong.iter().map(|(path, _)| path.as_str()).collect();
    if paths.is_empty() {
        return Outcome::Passed("the labels of our files match the policy".to_owned());
    }
    let lines: Vec<String> =
        wrong.iter().map(|(path, why)| format!("\n{path} has {why}")).collect();
    Outcome::Problem(
        format!("the labels of these files do not match the policy:{}", lines.concat()),
        vec![format!("restorecon -Rv {}", paths.join(" "))],
    )
}

/// It trusts what the rpm database has, once it is notified that this has
/// changed: rpm itself, by its plugin, or a person.
fn judge_fapolicyd(has_plugin: bool, before_install: bool) -> Outcome {
    if has_plugin {
        return Outcome::Passed("fapolicyd trusts what rpm installs".to_owned());
    }
    if before_install {
        return Outcome::Problem(
            "it runs, and rpm does not register installed programs, so the agent and its engine \
             could not be started"
                .to_owned(),
            vec!["dnf -y install rpm-plugin-fapolicyd".to_owned()],
        );
    }
    Outcome::Problem(
        "fapolicyd allows only programs that it trusts, and rpm does not register them there"
            .to_owned(),
        vec!["dnf -y install rpm-plugin-fapolicyd".to_owned(), "fapolicyd-cli --update".to_owned()],
    )
}

fn is_permissive(settings: &str) -> bool {
    settings
        .lines()
        .filter_map(|line| line.split_once('='))
        .any(|(name, value)| name.trim() == "permissive" && value.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::machine::Machine;
    use std::fs;

    #[test]
    fn the_message_names_the_mode() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let mode = || selinux(&Subject::of(&machine).unwrap());
        assert_eq!(mode(), Outcome::tree());
        let enforce = machine.path("/sys/fs/selinux/enforce");
        fs::create_dir_all(enforce.parent().unwrap()).unwrap();
        for (text, message) in [("1", "SELinux is enforcing"), ("0", "SELinux is permissive")] {
            fs::write(&enforce, text).unwrap();
            assert!(matches!(mode(), Outcome::Passed(text) if text.starts_with(message)));
        }
    }

    #[test]
    fn wrong_labels_are_restored() {
        assert!(matches!(judge_labels(&[]), Outcome::Passed(_)));
        let wrong = [("/etc/scalr-agent".to_owned(), "a:b:c:s0, should be d:e:f:s0".to_owned())];
        let Outcome::Problem(text, fix) = judge_labels(&wrong) else { panic!() };
        assert!(text.contains("/etc/scalr-agent has a:b:c:s0, should be d:e:f:s0"), "{text}");
        assert_eq!(fix, ["restorecon -Rv /etc/scalr-agent"]);
    }

    #[test]
    fn fapolicyd_must_trust_installed_programs() {
        assert!(matches!(judge_fapolicyd(true, false), Outcome::Passed(_)));
        let Outcome::Problem(_, fix) = judge_fapolicyd(false, false) else { panic!() };
        assert_eq!(fix, ["dnf -y install rpm-plugin-fapolicyd", "fapolicyd-cli --update"]);
        assert!(is_permissive("# x\npermissive = 1\n") && !is_permissive("permissive = 0\n"));
    }
}
