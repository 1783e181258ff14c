//! Running a program, with the end of what it said in the error.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use super::interrupt;
use cli::{eprint, eprintln};

/// Whether each command is named on standard error before it is run.
static NAMED: AtomicBool = AtomicBool::new(false);

/// From now on, names each command on standard error before it is run.
pub fn name_each() {
    NAMED.store(true, Ordering::Relaxed);
}

/// Where iptables, useradd and the like are, which `su` without `-` does not look for.
const SYSTEM_PROGRAMS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// From now on, system programs are found whatever PATH this process was given, and what says
/// LC_ALL=C speaks English: programs in Python, such as yum and dnf, take LANGUAGE before that.
/// To be called before there is a second thread.
pub fn prepare_environment() {
    let path = with_system_programs(&env::var_os("PATH").unwrap_or_default());
    // SAFETY: there is no other thread that could read the environment.
    unsafe {
        env::set_var("PATH", path);
        env::remove_var("LANGUAGE");
    }
}

/// A PATH with the folders of system programs at its end, unless it has them.
fn with_system_programs(path: &OsStr) -> OsString {
    // An empty folder in it would be the current directory.
    let mut path = if path.is_empty() { "/usr/bin:/bin".into() } else { path.to_owned() };
    for folder in SYSTEM_PROGRAMS {
        if !env::split_paths(&path).any(|known| known == Path::new(folder)) {
            path.push(":");
            path.push(folder);
        }
    }
    path
}

/// How many of the last lines of standard error an error carries.
const TAIL_LINES: usize = 12;

/// A program that could not be started or that ended badly.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot run `{command}`: {source}")]
    Start {
        /// The command line.
        command: String,
        /// The system's error.
        source: io::Error,
    },
    /// It ended with something else than 0.
    #[error("`{command}` failed ({status}){}", said(.stderr))]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard output, where that is not quoted as `stderr`.
        stdout: String,
        /// The last lines of its standard error, or of its standard output if it
        /// wrote nothing there.
        stderr: String,
    },
    /// It took longer than [`within`] allows.
    #[error("`{command}` was ended: it took longer than that")]
    Late {
        /// The command line, which names the time.
        command: String,
    },
}

impl CommandError {
    /// The same with the end of standard output in its text as well, where a package manager
    /// says why it fails.
    #[must_use]
    pub(crate) fn with_output(self) -> Self {
        match self {
            Self::Failed { command, status, stdout, stderr } if !stdout.trim().is_empty() => {
                let stderr = format!("{stderr}\n{}", tail(&stdout));
                Self::Failed { command, status, stdout, stderr }
            }
            error => error,
        }
    }
}

/// What coreutils' timeout exits with when the time is up.
const TIMEOUT_IS_UP: i32 = 124;

/// A call of `program` that is ended when it takes longer than `seconds`.
pub fn within(seconds: u32, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=2", &seconds.to_string()]).arg(program);
    command
}

/// What [`Command`] lacks: an error that names the command and quotes it.
///
/// No secret is ever an argument, so a command line may be shown.
pub trait CommandExt {
    /// Runs it, silently; an exit code other than 0 is an error.
    ///
    /// # Errors
    /// It can't be started, or fails.
    fn run(&mut self) -> Result<(), CommandError>;

    /// Runs it; shows its output as it comes after [`name_each`]. An exit code
    /// other than 0 is an error.
    ///
    /// # Errors
    /// It can't be started, or fails.
    fn run_shown(&mut self) -> Result<(), CommandError>;

    /// Runs it and gives its standard output; an exit code other than 0 is an
    /// error.
    ///
    /// # Errors
    /// It can't be started, or fails.
    fn read(&mut self) -> Result<String, CommandError>;

    /// Runs it where the exit code is the answer.
    ///
    /// # Errors
    /// It can't be started.
    fn probe(&mut self) -> Result<Output, CommandError>;

    /// The same with `input`, which may be a secret, as its standard input.
    ///
    /// # Errors
    /// It can't be started.
    fn probe_with(&mut self, input: &str) -> Result<Output, CommandError>;

    /// The command line as a person would type it.
    fn line(&self) -> String;
}

impl CommandExt for Command {
    fn run(&mut self) -> Result<(), CommandError> {
        self.read().map(drop)
    }

    fn run_shown(&mut self) -> Result<(), CommandError> {
        let verbose = NAMED.load(Ordering::Relaxed);
        // What undoes must not fail because nobody reads its output any more.
        if verbose && !interrupt::is_undoing() {
            self.stdout(Stdio::inherit());
        }
        let output = self.probe()?;
        // The error has the output of a failed one.
        if !output.status.success() {
            return Err(failed(self, &output));
        }
        if verbose {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn read(&mut self) -> Result<String, CommandError> {
        let output = self.probe()?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else if self.get_program() == "timeout" && output.status.code() == Some(TIMEOUT_IS_UP) {
            Err(CommandError::Late { command: self.line() })
        } else {
            Err(failed(self, &output))
        }
    }

    fn probe(&mut self) -> Result<Output, CommandError> {
        prepare(self);
        self.stdin(Stdio::null())
            .output()
            .map_err(|source| CommandError::Start { command: self.line(), source })
    }

    fn probe_with(&mut self, input: &str) -> Result<Output, CommandError> {
        prepare(self);
        let start = |source| CommandError::Start { command: self.line(), source };
        let (reader, mut writer) = io::pipe().map_err(start)?;
        // A pipe holds this much before anybody reads.
        debug_assert!(input.len() <= 4_096, "{} bytes", input.len());
        writer.write_all(input.as_bytes()).map_err(start)?;
        drop(writer);
        self.stdin(reader)
            .output()
            .map_err(|source| CommandError::Start { command: self.line(), source })
    }

    fn line(&self) -> String {
        std::iter::once(self.get_program())
            .chain(self.get_args())
            .map(|word| quoted(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

fn prepare(command: &mut Command) {
    if NAMED.load(Ordering::Relaxed) {
        eprintln!("+ {}", command.line());
    }
    if interrupt::is_undoing() {
        interrupt::shield(command);
    }
}

pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn failed(command: &Command, output: &Output) -> CommandError {
    let mut stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    if stderr.trim().is_empty() {
        stderr = std::mem::take(&mut stdout);
    }
    let (status, stderr) = (output.status, tail(&stderr));
    CommandError::Failed { command: command.line(), status, stdout, stderr }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_quotes_its_end() {
        let error = Command::new("sh").args(["-c", "echo it broke >&2; exit 3"]).run().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c 'echo it broke >&2; exit 3'` failed (exit status: 3): it broke"
        );
    }

    #[test]
    fn system_programs_are_found_last() {
        let path = with_system_programs(OsStr::new("/usr/sbin:/usr/bin"));
        assert_eq!(path, "/usr/sbin:/usr/bin:/usr/local/sbin:/sbin");
        assert_eq!(with_system_programs(&path), path);
        let of_nothing = with_system_programs(OsStr::new(""));
        assert_eq!(of_nothing, "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
    }

    #[test]
    fn an_input_is_read_and_is_no_argument() {
        let output = Command::new("cat").probe_with("hunter2").unwrap();
        assert_eq!(output.stdout, b"hunter2");
    }

    #[test]
    fn what_takes_too_long_is_ended() {
        let error = within(1, "sleep").arg("60").run().unwrap_err();
        assert!(matches!(error, CommandError::Late { .. }), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = Command::new("no-such-program-here").read().unwrap_err();
        assert!(error.to_string().starts_with("cannot run `no-such-program-here`"), "{error}");
    }
}
