//! The operating system: whether packages are made for it, and whether its maker
//! still fixes it.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::Offset;

use super::{Outcome, Subject};
use host::os::{Family, Os};

pub(super) fn os(subject: &Subject) -> Outcome {
    match subject.os() {
        Ok(os) => judge(&os, Offset::UTC.to_datetime(Timestamp::now()).date()),
        Err(error) => Outcome::problem(format!("{error:#}")),
    }
}

/// The oldest version that will do, by the os-release's `ID`.
fn oldest(id: &str) -> u32 {
    match id {
        "debian" => 10,
        "ubuntu" => 18,
        "amzn" => 2,
        "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "scientific" => 7,
        _ => 0,
    }
}

/// Until when everybody gets security fixes: the systems' `ID`, the beginning of
/// their version, and the last day as their makers announced it. Support that is
/// paid for may continue longer. A system that is not listed counts as supported.
const SUPPORTED_UNTIL: &[(&[&str], &str, Date)] = &[
    (&["rhel", "centos", "scientific"], "7", date(2024, 6, 30)),
    (&["ol"], "7", date(2024, 12, 31)),
    (&["centos"], "8", date(2021, 12, 31)),
    (&["almalinux"], "8", date(2029, 3, 1)),
    (&["rhel", "rocky"], "8", date(2029, 5, 31)),
    (&["ol"], "8", date(2029, 7, 31)),
    (&["centos"], "9", date(2027, 5, 31)),
    (&["rhel", "rocky", "almalinux"], "9", date(2032, 5, 31)),
    (&["ol"], "9", date(2032, 6, 30)),
    (&["amzn"], "2", date(2026, 6, 30)),
    (&["amzn"], "2023", date(2029, 6, 30)),
    (&["debian"], "10", date(2024, 6, 30)),
    (&["debian"], "11", date(2026, 8, 31)),
    (&["debian"], "12", date(2028, 6, 30)),
    (&["debian"], "13", date(2030, 6, 30)),
    (&["ubuntu"], "18.04", date(2023, 5, 31)),
    (&["ubuntu"], "20.04", date(2025, 5, 31)),
    (&["ubuntu"], "22.04", date(2027, 4, 30)),
    (&["ubuntu"], "24.04", date(2029, 5, 31)),
];

fn judge(os: &Os, today: Date) -> Outcome {
    let name = &os.name;
    if os.family == Family::Other {
        return Outcome::problem(format!(
            "{name} has neither apt nor yum or dnf; run the agent's container image instead"
        ));
    }
    let oldest = oldest(&os.id);
    if !os.version.is_empty() && os.major() < oldest {
        return Outcome::problem(format!("{name} is too old; {} {oldest} is the oldest", os.id));
    }
    if os.guessed {
        return Outcome::warning(format!(
            "{name} is not tested; it says that it is like a system that is"
        ));
    }
    match supported_until(os) {
        Some(last) if last < today => Outcome::warning(format!(
            "{name} is past its end of life ({last}): it gets security fixes only where longer \
             support is paid for; the agent runs on it all the same"
        )),
        _ => Outcome::Passed(name.clone()),
    }
}

fn supported_until(os: &Os) -> Option<Date> {
    // It has CentOS Linux's `ID` and version, and outlived it.
    if os.name.starts_with("CentOS Stream 8") {
        return Some(date(2024, 5, 31));
    }
    let is_it = |version: &str| os.version == version || os.major().to_string() == version;
    SUPPORTED_UNTIL
        .iter()
        .find(|(ids, version, _)| ids.contains(&os.id.as_str()) && is_it(version))
        .map(|(.., last)| *last)
}

#[cfg(test)]
mod tests {
    use os_release::OsRelease;

    use super::*;

    fn judged(text: &str) -> Outcome {
        let os = Os::from(text.split(' ').map(str::to_owned).collect::<OsRelease>());
        judge(&os, date(2026, 2, 1))
    }

    #[test]
    fn which_systems_will_do() {
        for known in [
            "ID=rhel VERSION_ID=8.10",
            "ID=ol VERSION_ID=8.10",
            "ID=centos VERSION_ID=9",
            "ID=almalinux VERSION_ID=10.1",
            "ID=ubuntu VERSION_ID=24.04",
            "ID=debian VERSION_ID=13",
            "ID=debian",
            "ID=amzn VERSION_ID=2",
            "ID=amzn VERSION_ID=2023",
            "ID=fedora VERSION_ID=43",
        ] {
            assert!(matches!(judged(known), Outcome::Passed(_)), "{known}");
        }
        for bad in [
            "ID=centos VERSION_ID=6.10",
            "ID=ubuntu VERSION_ID=16.04",
            "ID=alpine",
            "ID=amzn VERSION_ID=2018.03",
        ] {
            assert!(matches!(judged(bad), Outcome::Problem(..)), "{bad}");
        }
    }

    #[test]
    fn past_its_end_of_life_is_a_warning() {
        for old in [
            "ID=centos VERSION_ID=7",
            "ID=rhel VERSION_ID=7.9",
            "ID=centos VERSION_ID=8",
            "ID=ubuntu VERSION_ID=18.04",
            "ID=debian VERSION_ID=10",
        ] {
            let Outcome::Warning(text, _) = judged(old) else { panic!("{old}") };
            assert!(text.contains("past its end of life (20"), "{text}");
        }
    }

    #[test]
    fn an_unknown_relative_is_a_warning() {
        let Outcome::Warning(text, _) = judged("ID=linuxmint ID_LIKE=ubuntu VERSION_ID=21") else {
            panic!()
        };
        assert!(text.contains("is not tested"), "{text}");
    }
}
