//! A host that is a folder: the script's own paths lead into it, and its PATH
//! has the tools that the script says it needs, and those that a test plays.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tests::programs;

/// What `sh` is on the hosts that agents are installed on.
pub(crate) const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// POSIX and coreutils: nothing else may be needed.
const TOOLS: [&str; 15] = [
    "base64",
    "cat",
    "chmod",
    "cp",
    "cut",
    "mktemp",
    "rm",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "tail",
    "touch",
    "tr",
];

/// Where a host's package manager is; the rest of its name is the fakes' file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packages {
    Apt,
    Dnf,
}

/// Debian's busybox takes its own applet of a name before what is on PATH.
const PREFER_PATH: &str = "\
have() { [ -e \"$PATH/$1\" ]; }
for tool in curl dpkg id rpm uname; do
    [ ! -e \"$PATH/$tool\" ] || eval \"$tool() { \\\"$PATH/$tool\\\" \\\"\\$@\\\"; }\"
done
";

pub(crate) struct Host {
    folder: TempDir,
    shell: &'static [&'static str],
}

/// How a run of the script ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    /// Runs a test in each shell, on a host of its own.
    pub(crate) fn each(packages: Packages, test: impl Fn(&Host)) {
        for shell in SHELLS {
            let host = Host { folder: tempfile::tempdir().unwrap(), shell };
            for folder in ["bin", "tmp", "server/packages"] {
                fs::create_dir_all(host.path(folder)).unwrap();
            }
            for tool in TOOLS {
                symlink(which::which(tool).unwrap(), host.path("bin").join(tool)).unwrap();
            }
            let script = fs::read_to_string(script_file()).unwrap();
            let functions = script.strip_suffix("main \"$@\"; }\n").expect("its last line");
            fs::write(host.path("install.sh"), format!("{functions}}}\n")).unwrap();
            for (name, body) in fakes(packages) {
                host.tool(&name, &body);
            }
            host.serve("scalr-agent.asc", "a key\n");
            host.serve_setup();
            eprintln!("in {}", shell.join(" "));
            test(&host);
        }
    }

    /// A path below the host's folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Puts a tool of the test's own on PATH; it may use what the `host` shell
    /// variable names.
    pub(crate) fn tool(&self, name: &str, body: &str) {
        let file = self.path("bin").join(name);
        drop(fs::remove_file(&file));
        write_program(&file, body);
    }

    pub(crate) fn without_tool(&self, name: &str) {
        fs::remove_file(self.path("bin").join(name)).unwrap();
    }

    /// What the server has at `/packages/NAME`.
    pub(crate) fn serve(&self, name: &str, content: &str) {
        fs::write(self.path("server/packages").join(name), content).unwrap();
    }

    fn serve_setup(&self) {
        let program = fake("scalr-agent-setup");
        let name = "scalr-agent-setup-x86_64";
        self.serve(name, &format!("#!/bin/sh\n{program}"));
        self.serve(&format!("{name}.sha256"), &format!("{}  {name}\n", sha256(self, name)));
    }

    /// Runs `snippet` behind the script's functions.
    pub(crate) fn run(&self, snippet: &str) -> Said {
        self.run_with(snippet, &[], "")
    }

    /// Runs the script with these options, those of `main`.
    pub(crate) fn install(&self, options: &str) -> Said {
        self.install_with(options, &[])
    }

    /// As `install`, with these variables in the environment.
    pub(crate) fn install_with(&self, options: &str, environment: &[(&str, &str)]) -> Said {
        self.run_with(&format!("main --url https://pools.test {options}"), environment, "")
    }

    /// Runs `snippet` with an environment and standard input.
    pub(crate) fn run_with(
        &self,
        snippet: &str,
        environment: &[(&str, &str)],
        input: &str,
    ) -> Said {
        let stdin = self.path("stdin");
        fs::write(&stdin, input).unwrap();
        let child = self
            .command(snippet)
            .envs(environment.iter().copied())
            .stdin(fs::File::open(stdin).unwrap())
            .output();
        Said::of(&child.unwrap())
    }

    /// The command that runs `snippet` behind the script's functions.
    pub(crate) fn command(&self, snippet: &str) -> Command {
        let prelude = format!(
            ". '{script}'\npause() {{ :; }}\n{busybox}",
            script = self.path("install.sh").display(),
            busybox = if self.shell[0] == "busybox" { PREFER_PATH } else { "" },
        );
        // As at a terminal: a shell can't trap what it was started to ignore, as
        // everything in the background is.
        let mut command = Command::new(which::which("env").unwrap());
        command.arg("--default-signal").arg(which::which(self.shell[0]).unwrap());
        command.args(&self.shell[1..]).args(["-c", &format!("{prelude}{snippet}"), "install.sh"]);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("TMPDIR", self.path("tmp"))
            .env("host", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Each call of a tool that a test plays, with its arguments.
    pub(crate) fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }

    /// All temporary files, with their text.
    pub(crate) fn files(&self) -> BTreeMap<PathBuf, String> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.path("tmp")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    files.insert(path, text);
                }
            }
        }
        files
    }
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless it ended like this and said that on standard error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, why: &str) {
        assert!(self.code == code && self.stderr.contains(why), "{code} {why}: {self:#?}");
    }

    #[track_caller]
    pub(crate) fn went_well(&self) {
        assert_eq!(self.code, 0, "{self:#?}");
    }
}

pub(crate) fn script_file() -> PathBuf {
    tests::checkout("scripts/install.sh")
}

/// Of a file that the server has.
pub(crate) fn sha256(host: &Host, name: &str) -> String {
    use sha2::Digest as _;
    let content = fs::read(host.path("server/packages").join(name)).unwrap();
    hex::encode(sha2::Sha256::digest(content))
}

/// The tools of a host: each file of `fakes/` of that package manager, and those
/// that every host has.
fn fakes(packages: Packages) -> Vec<(String, String)> {
    let names: &[&str] = match packages {
        Packages::Apt => &["dpkg"],
        Packages::Dnf => &["rpm"],
    };
    names.iter().chain(&["curl", "id", "uname"]).map(|name| ((*name).into(), fake(name))).collect()
}

/// The body of a tool in `fakes/`.
pub(crate) fn fake(name: &str) -> String {
    let folder = tests::checkout("tests/install_script/fakes");
    fs::read_to_string(folder.join(name)).unwrap()
}

fn write_program(file: &Path, body: &str) {
    // A new file that is renamed: the one before may be executed now.
    let new = file.with_extension("new");
    programs::write(&new, &format!("#!/bin/sh\n{body}"));
    fs::rename(new, file).unwrap();
}
