//! Keys, small packages, and the repositories made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use tempfile::TempDir;

use crate::programs;

/// What a deb and an rpm call the two architectures.
pub const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

/// A folder with a GnuPG keyring, packages and repositories.
pub struct Workshop {
    program: PathBuf,
    folder: TempDir,
}

impl Workshop {
    /// An empty one, whose repositories `program` makes.
    pub fn new(program: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["gnupg", "packages"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(folder.path().join("gnupg"), fs::Permissions::from_mode(0o700))
            .unwrap();
        Self { program: program.to_owned(), folder }
    }

    /// Adds the key of this name to the keyring; its fingerprint. The same name is the same key in
    /// every workshop of a process: making one takes a processor for a second.
    pub fn key(&self, name: &str) -> String {
        static MADE: Mutex<BTreeMap<String, String>> = Mutex::new(BTreeMap::new());
        let user = format!("{name} <{name}@pools.test>");
        let gpg = |arguments: &[&str]| {
            let quiet = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""];
            run(self.gpg().args(quiet).args(arguments))
        };
        let mut made = MADE.lock().unwrap();
        if let Some(secret) = made.get(name) {
            let file = self.path("secret.asc");
            fs::write(&file, secret).unwrap();
            gpg(&["--import", file.to_str().unwrap()]);
        } else {
            gpg(&["--quick-generate-key", &user, "rsa3072", "sign", "2d"]);
            let secret = gpg(&["--armor", "--export-secret-keys", &user]);
            made.insert(name.to_owned(), secret);
        }
        drop(made);
        let list = run(self.gpg().args(["--with-colons", "--list-keys"]).arg(&user));
        let line = list.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// gpg with this keyring.
    pub fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.path("gnupg"));
        command
    }

    /// Makes a deb and an rpm of each architecture.
    pub fn packages(&self, version: &str) {
        for (deb, rpm) in ARCHITECTURES {
            self.deb(version, deb, version);
            self.rpm(version, rpm, version);
        }
    }

    /// Makes a deb that holds a file with `content`.
    pub fn deb(&self, version: &str, architecture: &str, content: &str) -> PathBuf {
        let root = tempfile::tempdir().unwrap();
        let control = format!(
            "Package: scalr-agent\nVersion: {version}-1\nArchitecture: {architecture}\n\
             Maintainer: Test <test@pools.test>\nDescription: test\n"
        );
        fs::create_dir(root.path().join("DEBIAN")).unwrap();
        fs::write(root.path().join("DEBIAN/control"), control).unwrap();
        write(&root.path().join("usr/share/scalr-agent-test/content"), content);
        let file = self.path(&format!("packages/scalr-agent_{version}-1_{architecture}.deb"));
        run(Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zgzip", "--build"])
            .arg(root.path())
            .arg(&file));
        file
    }

    /// Makes an rpm that holds a file with `content` and is for every host.
    pub fn rpm(&self, version: &str, architecture: &str, content: &str) -> PathBuf {
        self.rpm_for("1", "", version, architecture, content)
    }

    /// The same for the hosts of a family: by its release, and what it requires of
    /// systemd, if it does.
    pub fn rpm_for(
        &self,
        release: &str,
        systemd: &str,
        version: &str,
        architecture: &str,
        content: &str,
    ) -> PathBuf {
        let requires = if systemd.is_empty() { "" } else { "Requires: systemd" };
        let top = tempfile::tempdir().unwrap();
        let spec = top.path().join("test.spec");
        let text = format!(
            "Name: scalr-agent\nVersion: {version}\nRelease: {release}\n{requires} {systemd}\nSummary: test\nLicense: test\n\
             %description\ntest\n%install\nmkdir -p %{{buildroot}}/usr/share/scalr-agent-test\n\
             printf %s '{content}' >%{{buildroot}}/usr/share/scalr-agent-test/content\n\
             %files\n/usr/share/scalr-agent-test/content\n"
        );
        fs::write(&spec, text).unwrap();
        run(Command::new("rpmbuild")
            .args(["-bb", "--quiet", "--target", architecture])
            .args(["--define", &format!("_topdir {}", top.path().display())])
            .args(["--define", "_binary_payload w6.gzdio"])
            .arg(&spec));
        let name = format!("scalr-agent-{version}-{release}.{architecture}.rpm");
        let file = self.path(&format!("packages/{name}"));
        fs::copy(top.path().join("RPMS").join(architecture).join(name), &file).unwrap();
        file
    }

    /// Puts the setup program among the packages.
    pub fn setup_program(&self, machine: &str) {
        let file = self.path(&format!("packages/scalr-agent-setup-{machine}"));
        programs::copy(&self.program, &file);
    }

    /// Forgets the packages that were made.
    pub fn clear(&self) {
        fs::remove_dir_all(self.path("packages")).unwrap();
        fs::create_dir(self.path("packages")).unwrap();
    }

    /// `repository` with these options, of the packages, into the output.
    pub fn try_publish(&self, output: &Path, options: &[&str]) -> Output {
        self.setup()
            .args(["repository", "--packages"])
            .arg(self.path("packages"))
            .arg("--output")
            .arg(output)
            .args(options)
            .output()
            .unwrap()
    }

    /// The same, which has to succeed; what it said.
    pub fn publish(&self, output: &Path, options: &[&str]) -> String {
        let done = self.try_publish(output, options);
        assert!(done.status.success(), "{}", text(&done));
        text(&done)
    }

    /// The setup program, with this keyring and without a proxy.
    pub fn setup(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("GNUPGHOME", self.path("gnupg"));
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let home = self.path("gnupg");
        drop(Command::new("gpgconf").args(["--kill", "all"]).env("GNUPGHOME", home).status());
    }
}

/// Standard output and error, for a person.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The standard output of a command, which has to succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn write(file: &Path, content: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}
