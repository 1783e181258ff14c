//! What keeps yum and dnf from changing a package: exclusions, version locks and
//! protection.

use std::env::consts::ARCH;
use std::path::Path;

use super::Yum;
use super::config::{self, Setting};
use super::version_lock::{self, Lock};
use crate::command::quoted;
use crate::hold::{Hold, Operation, edit, matches, place, take_word_out};
use crate::machine::Machine;
use cli::untrusted_file;

/// `installed` is the version that is.
pub(crate) fn against(
    machine: &Machine,
    yum: Yum,
    package: &str,
    installed: Option<&str>,
    operation: Operation<'_>,
) -> Option<Hold> {
    let versions = match (operation, installed) {
        (Operation::Remove, Some(version)) => vec![version],
        // Samples of all that there can be.
        _ => vec!["0.1-1", "1.0-1", "9.9-1"],
    };
    let subject = Subject { machine, yum, package, versions };
    match operation {
        Operation::Install(repository) => {
            subject.exclusion(repository).or_else(|| subject.lock(installed?))
        }
        // yum 3 excludes packages of repositories alone, never an installed one.
        Operation::Remove if subject.is_yum_3() => subject.protection(),
        Operation::Remove => subject.exclusion(None).or_else(|| subject.protection()),
    }
}

/// The version lock that refuses all versions that a repository offers.
pub(crate) fn against_offered(
    machine: &Machine,
    yum: Yum,
    package: &str,
    offered: &[&str],
) -> Option<Hold> {
    let is_yum_3 = config::is_yum_3(machine, yum);
    let lock = |version| version_lock::refusing(machine, is_yum_3, package, version);
    let locks: Option<Vec<_>> = offered.iter().map(|version| lock(version)).collect();
    let first = locks?.into_iter().next()?;
    Some(Hold {
        by: format!(
            "{} refuses its version {}",
            place(&first.file, first.line),
            offered.join(" and ")
        ),
        release: release(yum, &first),
    })
}

/// The command that deletes a version lock.
fn release(yum: Yum, lock: &Lock) -> String {
    match &lock.entry {
        Some(entry) => format!("{} versionlock delete {}", yum.program(), quoted(entry)),
        None => edit(&lock.file, &format!("{}d", lock.line)),
    }
}

/// A module whose packages dnf hides: somebody has disabled it.
pub(crate) fn disabled_module(machine: &Machine, module: &str) -> Option<Hold> {
    let file = Path::new("/etc/dnf/modules.d").join(format!("{module}.module"));
    let settings = config::settings_of(machine, &file);
    let state = settings.iter().find(|setting| setting.name == "state")?;
    (state.value == "disabled").then(|| Hold {
        by: format!("{} disables the module {module}", at(state)),
        release: format!("dnf -y module reset {module}"),
    })
}

struct Subject<'a> {
    machine: &'a Machine,
    yum: Yum,
    package: &'a str,
    versions: Vec<&'a str>,
}

impl Subject<'_> {
    fn is_yum_3(&self) -> bool {
        config::is_yum_3(self.machine, self.yum)
    }

    /// `exclude`, `excludepkgs` (dnf calls both the same) or `includepkgs`.
    fn exclusion(&self, repository: Option<&str>) -> Option<Hold> {
        let settings = config::settings(self.machine, self.yum);
        for section in ["main"].into_iter().chain(repository) {
            let named = |names: &'static [&str]| {
                settings.iter().filter(move |setting| {
                    setting.section == section && names.contains(&setting.name.as_str())
                })
            };
            for setting in named(&["exclude", "excludepkgs"]) {
                if let Some(word) = setting.words().find(|word| self.is_named_by(word)) {
                    return Some(Hold {
                        by: format!("{} excludes it with `{word}`", at(setting)),
                        release: take_word_out(&setting.file, setting.line, word),
                    });
                }
            }
            let mut words = named(&["includepkgs"]).flat_map(Setting::words).peekable();
            if words.peek().is_some() && !words.any(|word| self.is_named_by(word)) {
                let last = named(&["includepkgs"]).next_back()?;
                return Some(Hold {
                    by: format!("{} lists the only packages to use, without it", at(last)),
                    release: edit(&last.file, &format!("{}s/$/ {}/", last.line, self.package)),
                });
            }
        }
        None
    }

    /// The version lock that lets no other version than the installed one be installed.
    fn lock(&self, installed: &str) -> Option<Hold> {
        let lock = match self.yum {
            Yum::Dnf5 => version_lock::of_dnf5(self.machine, self.package, installed),
            _ => version_lock::of_plugin(self.machine, self.is_yum_3(), self.package, installed),
        }?;
        Some(Hold {
            by: format!("{} locks its version {installed}", place(&lock.file, lock.line)),
            release: release(self.yum, &lock),
        })
    }

    /// What may never be removed.
    fn protection(&self) -> Option<Hold> {
        let settings = config::settings(self.machine, self.yum);
        for setting in settings
            .iter()
            .filter(|setting| setting.section == "main" && setting.name == "protected_packages")
        {
            if let Some(word) = setting.words().find(|word| matches(word, self.package)) {
                return Some(Hold {
                    by: format!("{} protects it with `{word}`", at(setting)),
                    release: take_word_out(&setting.file, setting.line, word),
                });
            }
        }
        let folder = if self.is_yum_3() { "/etc/yum/protected.d" } else { "/etc/dnf/protected.d" };
        config::files_in(self.machine, folder, "conf").into_iter().find_map(|file| {
            let text = untrusted_file::read_text(self.machine.path(&file)).ok()?;
            let number = 1 + text.lines().position(|line| matches(line.trim(), self.package))?;
            Some(Hold {
                by: format!("{} protects it", place(&file, number)),
                release: edit(&file, &format!("{number}d")),
            })
        })
    }

    /// Whether a word of a list names all versions in question, as yum and dnf
    /// understand it: by name, or with architecture or version.
    fn is_named_by(&self, word: &str) -> bool {
        let package = self.package;
        let with_version = |version: &&str| {
            matches(word, &format!("{package}-{version}"))
                || matches(word, &format!("{package}-{version}.{ARCH}"))
        };
        matches(word, package)
            || matches(word, &format!("{package}.{ARCH}"))
            || self.versions.iter().all(with_version)
    }
}

fn at(setting: &Setting) -> String {
    place(&setting.file, setting.line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const YUM_CONF: &str = "/etc/yum.conf";
    const DNF_CONF: &str = "/etc/dnf/dnf.conf";
    const REPO: &str = "/etc/yum.repos.d/scalr-agent.repo";
    const INSTALL: Operation<'_> = Operation::Install(Some("scalr-agent"));

    /// The hold that a file on an otherwise empty host is, if it is one.
    fn hold(yum: Yum, files: &[(&str, &str)], operation: Operation<'_>) -> Option<Hold> {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (path, text) in files {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        against(&machine, yum, "scalr-agent", Some("1.0.0-1"), operation)
    }

    #[test]
    fn an_exclusion_is_found_with_its_file_and_line() {
        for (path, text, line) in [
            (DNF_CONF, "[main]\nexclude=scalr-agent\n", 2),
            (DNF_CONF, "[main]\nbest=True\nexcludepkgs = kernel*, scalr-*\n", 3),
            (DNF_CONF, "[main]\nexclude=kernel\n  scalr-agent-*\n", 3),
            (DNF_CONF, "[main]\nincludepkgs=kernel,bash\n", 2),
            (
                REPO,
                "[scalr-agent]\nbaseurl=https://x.example.com\nexclude=*.x86_64 scalr-agent\n",
                3,
            ),
            (REPO, "[scalr-agent]\nincludepkgs=scalr-tools\n", 2),
        ] {
            let found = hold(Yum::Dnf, &[(path, text)], INSTALL).expect(text);
            assert!(found.by.starts_with(&format!("{path}:{line} ")), "{found}");
            assert!(found.release.starts_with("sed -E -i ") && found.release.ends_with(path));
        }
        for (path, text) in [
            (DNF_CONF, "[main]\nexclude=scalr-agent-1.0*, scalr-agent-tools kernel\n"),
            (DNF_CONF, "[main]\n#exclude=scalr-agent\nincludepkgs=scalr-*\n"),
            (DNF_CONF, "[main]\nexclude=\nincludepkgs=\n"),
            (REPO, "[other]\nexclude=scalr-agent\n"),
        ] {
            assert_eq!(hold(Yum::Dnf, &[(path, text)], INSTALL), None, "{text}");
        }
    }

    #[test]
    fn what_is_excluded_cannot_be_removed_by_dnf_and_can_by_yum_3() {
        let excluded = "[main]\nexclude=scalr-agent\n";
        let of_version = "[main]\nexclude=scalr-agent-1.0*\n";
        assert!(hold(Yum::Dnf, &[(DNF_CONF, excluded)], Operation::Remove).is_some());
        assert!(hold(Yum::Dnf, &[(DNF_CONF, of_version)], Operation::Remove).is_some());
        let of_repository = "[scalr-agent]\nexclude=scalr-agent\n";
        assert_eq!(hold(Yum::Dnf, &[(REPO, of_repository)], Operation::Remove), None);
        assert_eq!(hold(Yum::Yum, &[(YUM_CONF, excluded)], Operation::Remove), None);
        assert!(hold(Yum::Yum, &[(YUM_CONF, excluded)], INSTALL).is_some());
    }

    #[test]
    fn a_lock_of_the_installed_version_keeps_newer_ones_away() {
        let on = "[main]\nenabled = 1\n";
        let of_dnf = |list, operation| {
            let conf = ("/etc/dnf/plugins/versionlock.conf", on);
            hold(Yum::Dnf, &[conf, ("/etc/dnf/plugins/versionlock.list", list)], operation)
        };
        let locked = "# Added\nscalr-agent-0:1.0.0-1.*\n";
        let found = of_dnf(locked, INSTALL).unwrap();
        assert!(found.by.starts_with("/etc/dnf/plugins/versionlock.list:2 "), "{found}");
        assert_eq!(found.release, "dnf versionlock delete scalr-agent");
        assert_eq!(of_dnf(locked, Operation::Remove), None);
        assert_eq!(of_dnf("scalr-agent-0:1.1.0-1.*\nscalr-agent-1.*\n", INSTALL), None);
        let excluded = "!scalr-agent-0:1.0.0-1.*\n";
        assert_eq!(of_dnf(excluded, INSTALL).or_else(|| of_dnf(excluded, Operation::Remove)), None);

        let of_yum = |conf| {
            let list = ("/etc/yum/pluginconf.d/versionlock.list", "0:scalr-agent-1.0.0-1.*\n");
            let conf = ("/etc/yum/pluginconf.d/versionlock.conf", conf);
            hold(Yum::Yum, &[(YUM_CONF, "[main]\n"), conf, list], INSTALL)
        };
        assert_eq!(of_yum(on).unwrap().release, "yum versionlock delete scalr-agent");
        assert_eq!(of_yum("[main]\nenabled = 0\n"), None);
    }

    #[test]
    fn a_disabled_module_is_a_filter() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let file = machine.path("/etc/dnf/modules.d/container-tools.module");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let found = || Yum::Dnf.filter(&machine, "container-selinux", "container-tools", |_| false);
        fs::write(&file, "[container-tools]\nname=container-tools\nstate=enabled\n").unwrap();
        assert_eq!(found(), None);
        fs::write(&file, "[container-tools]\nname=container-tools\nstate=disabled\n").unwrap();
        assert_eq!(found().unwrap().release, "dnf -y module reset container-tools");
    }

    #[test]
    fn what_is_protected_is_not_removed() {
        for (yum, files) in [
            (Yum::Dnf, vec![("/etc/dnf/protected.d/ours.conf", "systemd\nscalr-agent\n")]),
            (
                Yum::Yum,
                vec![(YUM_CONF, "[main]\n"), ("/etc/yum/protected.d/x.conf", "\nscalr-agent\n")],
            ),
            (Yum::Dnf, vec![(DNF_CONF, "[main]\nprotected_packages = dnf scalr-agent\n")]),
        ] {
            let found = hold(yum, &files, Operation::Remove).unwrap();
            assert!(found.by.contains(":2 protects it"), "{found}");
            assert_eq!(hold(yum, &files, INSTALL), None);
        }
    }
}
