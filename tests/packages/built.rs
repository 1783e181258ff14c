//! What is in the built packages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};

/// What rpm 4.11 can do; a package that requires anything else of rpm can't be
/// opened by it.
const RPMLIB: [&str; 4] =
    ["CompressedFileNames", "FileDigests", "PayloadFilesHavePrefix", "PayloadIsXz"];

/// The agent's packages, as `scalr-agent-setup package --type` names them.
pub(crate) const KINDS: [&str; 3] = ["deb", "rpm", "rpm-el7"];

const RPMS: [&str; 2] = ["rpm", "rpm-el7"];

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn the_programs_run_with_glibc_2_17() {
    for package in KINDS.map(the) {
        let folder = unpacked(&package);
        for program in ["scalr-agent", "scalr-agent-setup"] {
            require_old_glibc(&folder.join("usr/bin").join(program));
        }
        let engine = folder.join("usr/lib/scalr-agent");
        // An engine that stands in for the pinned one is this distribution's own.
        let record = std::fs::read_to_string(engine.join("engine.toml")).unwrap();
        if record.lines().any(|line| line == "pinned = true") {
            for entry in std::fs::read_dir(engine.join("engine")).unwrap() {
                require_old_glibc(&entry.unwrap().path());
            }
        }
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn rpm_4_11_can_open_the_rpms() {
    for rpm in RPMS.map(the) {
        let requires = rpm_says(&rpm, "--requires");
        for line in requires.lines() {
            if let Some(feature) = line.strip_prefix("rpmlib(") {
                let feature = feature.split(')').next().unwrap();
                assert!(RPMLIB.contains(&feature), "it requires {line}");
            }
            // A condition in parentheses is a rich dependency.
            assert!(!line.starts_with('('), "it requires {line}");
        }
        let payload = rpm_says_format(&rpm, "%{PAYLOADCOMPRESSOR}");
        assert!(["gzip", "xz"].contains(&payload.as_str()), "its payload is {payload}");
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn rpm_4_11_and_yum_3_can_draw_the_progress_of_the_rpms() {
    let server = only("SCALR_TEST_SERVER_PACKAGES", "rpm");
    for rpm in RPMS.map(the).into_iter().chain([server]) {
        let unpacked =
            output(Command::new("sh").args(["-ec", "rpm2cpio \"$0\" | wc -c"]).arg(&rpm));
        assert_eq!(rpm_says_format(&rpm, "%{ARCHIVESIZE}"), unpacked.trim(), "{}", rpm.display());
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn the_rpms_require_what_they_need_and_nothing_of_the_builder() {
    // Enterprise Linux 7 has systemd 219.
    for (kind, systemd) in [("rpm", "systemd >= 230"), ("rpm-el7", "systemd")] {
        let requires = rpm_says(&the(kind), "--requires");
        let required: Vec<&str> = requires
            .lines()
            .filter(|line| !line.starts_with("rpmlib(") && *line != "/bin/sh")
            // It provides this itself: its files have a configuration among them.
            .filter(|line| !line.starts_with("config(scalr-agent) = "))
            .collect();
        assert_eq!(
            required,
            [
                "ca-certificates",
                "container-selinux",
                "curl",
                "glibc >= 2.17",
                "iproute",
                "iptables",
                "shadow-utils",
                systemd,
                "xz",
            ]
        );
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn the_rpm_for_enterprise_linux_7_is_of_the_same_version_and_files() {
    let format = "%{NAME} %{VERSION} %{RELEASE}";
    let rpm = rpm_says_format(&the("rpm"), format);
    assert_eq!(rpm_says_format(&the("rpm-el7"), format), format!("{rpm}.el7"));
    let files = |kind| rpm_says(&the(kind), "--list");
    assert_eq!(files("rpm-el7"), files("rpm"));
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn dpkg_1_19_can_open_the_debs() {
    let server = only("SCALR_TEST_SERVER_PACKAGES", "deb");
    let members = |deb: &Path| output(Command::new("ar").arg("t").arg(deb));
    for deb in [&the("deb"), &server] {
        let members = members(deb);
        for member in members.lines() {
            let old =
                member == "debian-binary" || member.ends_with(".gz") || member.ends_with(".xz");
            assert!(old, "{member} is packed in a way that dpkg 1.19 does not know");
        }
    }
    // The kit asks for nothing else than what a release has there.
    assert!(members(&server).contains("data.tar.xz"));
    let depends = output(Command::new("dpkg-deb").arg("--field").arg(the("deb")).arg("Depends"));
    let libc: Vec<&str> =
        depends.trim().split(", ").filter(|name| name.starts_with("libc6")).collect();
    assert_eq!(libc, ["libc6 (>= 2.17)"]);
}

const UNITS: [&str; 5] = [
    "scalr-agent.service",
    "scalr-agent-network.socket",
    "scalr-agent-network@.service",
    "scalr-docker.service",
    "scalr-containerd.service",
];

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn every_file_is_where_it_belongs() {
    // Ubuntu 18.04 enables no unit outside /lib/systemd/system.
    for kind in KINDS {
        let package = the(kind);
        let units = if kind == "deb" { "lib/systemd/system" } else { "usr/lib/systemd/system" };
        let folder = unpacked(&package);
        let mode = |path: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let file = folder.join(path);
            let metadata = std::fs::symlink_metadata(&file)
                .unwrap_or_else(|error| panic!("{}: /{path}: {error}", package.display()));
            metadata.permissions().mode() & 0o7777
        };
        for name in UNITS {
            assert_eq!(mode(&format!("{units}/{name}")), 0o644, "{name}");
        }
        for program in ["scalr-agent", "scalr-agent-setup"] {
            assert_eq!(mode(&format!("usr/bin/{program}")), 0o755, "{program}");
        }
        for program in ["containerd", "containerd-shim-runc-v2", "docker", "dockerd", "runc"] {
            let path = format!("usr/lib/scalr-agent/engine/{program}");
            assert_eq!(mode(&path), 0o755, "{program}");
        }
        assert_eq!(mode("usr/lib/scalr-agent/maintain"), 0o755);
        // The settings are the installer's; nothing of a host is in a package.
        let etc = output(Command::new("ls").arg(folder.join("etc")));
        assert_eq!(etc.trim(), "needrestart", "{}", package.display());
        assert!(!folder.join("var").exists(), "{} has /var", package.display());
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn what_an_administrator_wrote_for_needrestart_survives_an_upgrade() {
    let file = "/etc/needrestart/conf.d/scalr-agent.conf";
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("dpkg-deb").arg("--control").arg(the("deb")).arg(folder.path()));
    let conffiles = std::fs::read_to_string(folder.path().join("conffiles")).unwrap();
    assert_eq!(conffiles.trim(), file);
    for rpm in RPMS.map(the) {
        let flags = rpm_says_format(&rpm, "[%{FILENAMES} %{FILEFLAGS:fflags}\n]");
        assert!(flags.lines().any(|line| line == format!("{file} cn")), "{flags}");
    }
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn systemd_accepts_the_units_as_packaged() {
    let folder = copied(&the("deb"));
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify").arg("--root").arg(folder.path());
    // What the units call but the package does not bring.
    for program in ["bin/mkdir", "bin/kill", "sbin/modprobe"] {
        let file = folder.path().join(program);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::copy("/bin/true", file).unwrap();
    }
    verify.args(UNITS);
    let said = verify.output().expect("systemd-analyze starts");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    // A root of nothing else lacks the targets that systemd brings.
    let ours: Vec<&str> =
        said.lines().filter(|line| line.contains("/scalr-") || line.contains("Unknown")).collect();
    assert!(ours.is_empty(), "{said}");
}

#[test]
#[ignore = "needs built packages: run scripts/test"]
fn the_scripts_in_the_packages_are_the_sources() {
    for rpm in RPMS.map(the) {
        let rpm = rpm_says(&rpm, "--scripts");
        for name in ["post", "preun", "postun"] {
            let text = source(&format!("pkg/rpm/{name}"));
            assert!(rpm.contains(text.trim()), "%{name} is another: {rpm}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    output(Command::new("dpkg-deb").arg("--control").arg(the("deb")).arg(folder.path()));
    for name in ["postinst", "prerm", "postrm"] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(text.trim(), source(&format!("pkg/deb/{name}")).trim(), "{name}");
    }
}

/// The agent's one package of that kind.
pub(crate) fn the(kind: &str) -> PathBuf {
    only("SCALR_TEST_PACKAGES", kind)
}

/// The one package of that kind, or file with that extension, in the folder that
/// `variable` names.
pub(crate) fn only(variable: &str, kind: &str) -> PathBuf {
    let folder = std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} names the folder of the built packages"));
    let mut found = std::fs::read_dir(&folder)
        .expect("a readable folder")
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            match kind {
                "rpm-el7" => name.ends_with(".rpm") && name.contains(".el7."),
                "rpm" => name.ends_with(".rpm") && !name.contains(".el7."),
                _ => name.ends_with(&format!(".{kind}")),
            }
        });
    let path = found.next().unwrap_or_else(|| panic!("no {kind} in {}", folder.display()));
    assert!(found.next().is_none(), "more than one {kind} in {}", folder.display());
    path
}

/// A folder with the files of a package, which all tests share and only read. It is
/// unpacked once a run, and stays until the next one.
pub(crate) fn unpacked(package: &Path) -> PathBuf {
    static FOLDERS: Mutex<BTreeMap<PathBuf, Arc<OnceLock<PathBuf>>>> = Mutex::new(BTreeMap::new());
    let folder = Arc::clone(FOLDERS.lock().unwrap().entry(package.to_owned()).or_default());
    folder.get_or_init(|| unpack(package)).clone()
}

fn unpack(package: &Path) -> PathBuf {
    let name = package.file_name().unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unpacked").join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(&folder).unwrap();
    let line = if package.extension().is_some_and(|extension| extension == "deb") {
        r#"dpkg-deb --extract "$0" "$1""#
    } else {
        r#"cd "$1" && rpm2cpio "$0" | cpio --extract --quiet --make-directories"#
    };
    output(Command::new("sh").args(["-ec", line]).arg(package).arg(&folder));
    folder
}

/// The files of a package in a folder that others may be added to: links, not to be
/// written to.
pub(crate) fn copied(package: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = unpacked(package).join(".");
    output(Command::new("cp").args(["--archive", "--link"]).arg(files).arg(folder.path()));
    folder
}

fn require_old_glibc(program: &Path) {
    let symbols = output(Command::new("objdump").arg("-T").arg(program));
    let newest = symbols
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'))
        .filter_map(|word| word.strip_prefix("GLIBC_2."))
        .filter_map(|minor| minor.split('.').next()?.parse::<u32>().ok())
        .max();
    // None: it is linked statically.
    assert!(newest <= Some(17), "{} needs glibc 2.{}", program.display(), newest.unwrap_or(0));
}

fn rpm_says(rpm: &Path, what: &str) -> String {
    output(Command::new("rpm").args(["--query", "--package", what]).arg(rpm))
}

fn rpm_says_format(rpm: &Path, format: &str) -> String {
    output(Command::new("rpm").args(["--query", "--package", "--queryformat", format]).arg(rpm))
}

fn source(path: &str) -> String {
    std::fs::read_to_string(tests::checkout(path)).unwrap()
}

/// What a command that works says.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
