//! A directory tree that the program takes for a machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A tree; removed when dropped.
pub(crate) struct Tree {
    directory: tempfile::TempDir,
}

/// The output of a run of the program.
pub(crate) struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Tree {
    /// An installed CentOS 8 with systemd 239 and the package's program.
    pub(crate) fn new() -> Self {
        let tree = Self { directory: tempfile::tempdir().unwrap() };
        tree.put("/etc/os-release", "ID=centos\nVERSION_ID=8\nPRETTY_NAME=\"CentOS Linux 8\"\n");
        // A group that we may give files to, root or not.
        let gid = fs::metadata(tree.path("/etc")).unwrap().gid();
        tree.put("/etc/group", &format!("scalr-agent:x:{gid}:\n"));
        tree.put("/usr/bin/scalr-agent", "");
        tree.put("/usr/lib/systemd/systemd", "");
        tree.put("/usr/lib/systemd/libsystemd-shared-239.so", "");
        fs::create_dir_all(tree.path("/var/lib/scalr-agent")).unwrap();
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: &str) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        symlink(target, file).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    pub(crate) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).unwrap().permissions().mode() & 0o777
    }

    /// Runs the program on the tree.
    pub(crate) fn setup(&self, arguments: &[&str]) -> Said {
        self.setup_with(arguments, &[], "")
    }

    /// With variables and with a text on standard input.
    pub(crate) fn setup_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        input: &str,
    ) -> Said {
        let mut child = self
            .command(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Said::from(child.wait_with_output().unwrap())
    }

    /// The program with these arguments, to be run on the tree.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scalr-agent-setup"));
        command.arg("--root").arg(self.directory.path()).args(arguments);
        let inherited =
            ["SCALR_AGENT_TOKEN", "HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
        for variable in inherited {
            command.env_remove(variable);
        }
        command
    }

    /// Every path with its kind, mode, owner and content.
    pub(crate) fn snapshot(&self) -> Vec<String> {
        let mut all = Vec::new();
        let mut open = vec![self.directory.path().to_owned()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            let kind = metadata.file_type();
            let content = if kind.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                String::new()
            } else if kind.is_symlink() {
                fs::read_link(&path).unwrap().display().to_string()
            } else {
                fs::read_to_string(&path).unwrap()
            };
            all.push(format!(
                "{} {:o} {}:{} {content:?}",
                self.relative(&path).display(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid()
            ));
        }
        all.sort();
        all
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(self.directory.path()).unwrap()
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    /// Everything it said, for a message.
    pub(crate) fn all(&self) -> String {
        format!("exit code {}\n{}{}", self.code, self.stdout, self.stderr)
    }
}
