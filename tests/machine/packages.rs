//! What old hosts ask of the packages, read from the packages themselves.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fleet::kit;
use crate::machine::text;

#[test]
#[ignore = "needs a kit: run scripts/test"]
fn the_programs_run_with_glibc_2_17() {
    for package in ["deb", "rpm"] {
        let folder = tempfile::tempdir().expect("a work folder");
        unpack(&the(package), folder.path());
        // The engine beside them is whatever distribution the kit was made on.
        for program in ["scalr-agent", "scalr-agent-setup"] {
            let symbols = output(
                Command::new("objdump").arg("-T").arg(folder.path().join("usr/bin").join(program)),
            );
            let newest = symbols
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
                .filter_map(|word| word.strip_prefix("GLIBC_2."))
                .filter_map(|minor| minor.split('.').next()?.parse::<u32>().ok())
                .max()
                .expect("it uses glibc");
            assert!(newest <= 17, "{program} of the {package} needs glibc 2.{newest}");
        }
    }
}

#[test]
#[ignore = "needs a kit: run scripts/test"]
fn rpm_4_11_can_read_the_rpm() {
    let requires = output(Command::new("rpm").args(["-qp", "--requires"]).arg(the("rpm")));
    assert!(requires.lines().any(|line| line.starts_with("container-selinux")), "{requires}");
    assert!(!requires.contains("PayloadIsZstd"), "{requires}");
    assert!(!requires.contains("RichDependencies"), "{requires}");
}

/// The kit's one package of that kind.
fn the(extension: &str) -> PathBuf {
    let mut found = std::fs::read_dir(kit().join("packages"))
        .expect("the kit has packages")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension));
    let path = found.next().unwrap_or_else(|| panic!("no {extension} in the kit"));
    assert!(found.next().is_none(), "more than one {extension} in the kit");
    path
}

fn unpack(package: &Path, folder: &Path) {
    let line = if package.extension().is_some_and(|extension| extension == "deb") {
        r#"dpkg-deb --extract "$0" "$1""#
    } else {
        r#"cd "$1" && rpm2cpio "$0" | cpio --extract --quiet --make-directories"#
    };
    output(Command::new("sh").args(["-ec", line]).arg(package).arg(folder));
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}
