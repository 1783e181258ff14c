//! Which repository's package yum and dnf take: that of the lowest priority number, and
//! among those the newest.

use super::Yum;
use super::config::Setting;
use crate::hold::{Hold, edit, place};

/// The number of a repository without one.
const DEFAULT: i32 = 99;

pub(super) fn is_priority(setting: &Setting) -> bool {
    setting.section != "main" && setting.name == "priority"
}

/// Whether the repository `id` takes precedence over another one.
pub(super) fn is_behind(settings: &[Setting], other: &str, id: &str) -> bool {
    let number_of = |id| priority(settings, id).map_or(DEFAULT, number);
    number_of(other) > number_of(id)
}

/// The priority of another repository that takes precedence over the repository `id`.
pub(super) fn over(settings: &[Setting], id: &str) -> Option<Hold> {
    let own = priority(settings, id);
    let number = own.map_or(DEFAULT, number);
    let first = settings
        .iter()
        .filter(|setting| is_priority(setting) && self::number(setting) < number)
        .min_by_key(|setting| self::number(setting))?;
    let line = format!("priority={}", self::number(first));
    Some(Hold {
        by: format!("{}, and {id}, which has it, only {number}", said(first)),
        release: match own {
            Some(own) => edit(&own.file, &format!("{}s/.*/{line}/", own.line)),
            None => add(settings, id, &line)?,
        },
    })
}

/// What to do about a package that another repository has in another version than the
/// repository `id`, and that is taken.
pub(super) fn of_rival(
    settings: &[Setting],
    yum: Yum,
    package: &str,
    id: &str,
    (version, rival): (&str, &str),
) -> Hold {
    let number_of = |id| priority(settings, id).map_or(DEFAULT, number);
    let by = match priority(settings, rival) {
        Some(setting) if number(setting) < number_of(id) => format!(
            "{}, and {id} only {}, so the package would be {rival}'s {package} {version}",
            said(setting),
            number_of(id)
        ),
        _ => format!("the repository {rival} has another package of that name, {version}"),
    };
    let excluded = settings
        .iter()
        .rfind(|setting| setting.section == rival && setting.name.starts_with("exclude"))
        .map(|last| edit(&last.file, &format!("{}s/$/ {package}/", last.line)));
    let release = excluded
        .or_else(|| add(settings, rival, &format!("exclude={package}")))
        .unwrap_or_else(|| format!("{} config-manager --set-disabled {rival}", yum.program()));
    Hold { by, release }
}

fn priority<'a>(settings: &'a [Setting], id: &str) -> Option<&'a Setting> {
    settings.iter().rfind(|setting| setting.section == id && is_priority(setting))
}

fn number(setting: &Setting) -> i32 {
    setting.value.parse().unwrap_or(DEFAULT)
}

fn said(setting: &Setting) -> String {
    let place = place(&setting.file, setting.line);
    format!("{place} gives the repository {} the priority {}", setting.section, number(setting))
}

/// The command that adds a line to a repository's definition.
fn add(settings: &[Setting], id: &str, line: &str) -> Option<String> {
    let first = settings.iter().find(|setting| setting.section == id)?;
    Some(edit(&first.file, &format!("{}i {line}", first.line)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use super::super::config::settings_of;
    use super::*;
    use crate::machine::Machine;

    /// What a file says, and what a command makes of it.
    fn tried(text: &str, judge: impl Fn(&[Setting]) -> Option<Hold>) -> (Option<Hold>, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.repo");
        fs::write(&file, text).unwrap();
        let settings = || settings_of(&Machine::at("/"), Path::new(&file));
        let found = judge(&settings());
        if let Some(hold) = &found {
            assert!(hold.by.contains("x.repo:") || hold.by.starts_with("the rep"), "{}", hold.by);
            let released = Command::new("sh").args(["-c", &hold.release]).status().unwrap();
            assert!(released.success(), "{}", hold.release);
            if hold.by.contains("priority") && !hold.release.contains("exclude") {
                assert_eq!(judge(&settings()), None, "{}", hold.release);
            }
        }
        (found, fs::read_to_string(&file).unwrap())
    }

    #[test]
    fn a_repository_with_a_lower_number_takes_precedence() {
        let other = "[vendor]\nname=V\npriority = 10\nbaseurl=https://v.example.com\n\n";
        for own in ["", "priority=50\n"] {
            let text = format!("{other}[extras]\nname=E\n{own}gpgcheck=1\n");
            let (found, released) = tried(&text, |settings| over(settings, "extras"));
            let by = found.unwrap().by;
            let number = if own.is_empty() { "99" } else { "50" };
            assert!(by.contains(":3 gives the repository vendor the priority 10"), "{by}");
            assert!(by.ends_with(&format!("only {number}")), "{by}");
            assert!(released.starts_with(other) && released.contains("[extras]\n"), "{released}");
        }
        let text = format!("{other}[extras]\nname=E\n");
        tried(&text, |settings| {
            assert!(is_behind(settings, "extras", "vendor"));
            assert!(!is_behind(settings, "vendor", "extras"));
            assert!(!is_behind(settings, "extras", "another"));
            None
        });
        for text in [
            "[extras]\npriority=10\n\n[vendor]\npriority=10\n",
            "[extras]\nname=E\n[vendor]\nx=1\n",
        ] {
            assert_eq!(tried(text, |settings| over(settings, "extras")).0, None, "{text}");
        }
    }

    #[test]
    fn a_rival_is_excluded_in_its_own_definition() {
        let rival = ("0.40.0-1", "vendor");
        let judge = |settings: &[Setting]| {
            Some(of_rival(settings, Yum::Dnf, "scalr-agent", "scalr-agent", rival))
        };
        for (text, by, expected) in [
            (
                "[vendor]\nname=V\npriority=10\n",
                "so the package would be vendor's scalr-agent 0.40.0-1",
                "[vendor]\nexclude=scalr-agent\nname=V\npriority=10\n",
            ),
            (
                "[vendor]\nname=V\nexcludepkgs=a, b\n[x]\nexclude=c\n",
                "the repository vendor has another package of that name, 0.40.0-1",
                "[vendor]\nname=V\nexcludepkgs=a, b scalr-agent\n[x]\nexclude=c\n",
            ),
        ] {
            let (found, released) = tried(text, judge);
            assert!(found.unwrap().by.ends_with(by));
            assert_eq!(released, expected);
        }
        let unknown = judge(&[]).unwrap();
        assert_eq!(unknown.release, "dnf config-manager --set-disabled vendor");
    }
}
