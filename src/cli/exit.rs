//! The exit codes, the same for all three programs.
//!
//! A command that fails returns an ordinary [`anyhow::Error`]; where the exit
//! code should say more than 1, a [`Failure`] stands somewhere in its chain.

use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;

use crate::print;

/// Why a program ends with something else than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub enum Failure {
    /// Something was tried and did not work.
    #[error("failed")]
    Failed = 1,
    /// The command line or the settings are wrong.
    #[error("wrong usage or settings")]
    Usage = 2,
    /// A check failed.
    #[error("a check failed")]
    CheckFailed = 3,
    /// No check failed, some warned.
    #[error("there are warnings")]
    Warnings = 4,
    /// This operating system or processor is not supported.
    #[error("platform not supported")]
    Unsupported = 5,
    /// Something that is needed could not be installed.
    #[error("something needed could not be installed")]
    NotInstalled = 6,
    /// Not permitted: not root, or a token that the server refuses.
    #[error("not permitted")]
    NotPermitted = 7,
    /// Something could not be fetched from the network.
    #[error("a download failed")]
    DownloadFailed = 8,
    /// A key or checksum is not the expected one.
    #[error("not trusted")]
    NotTrusted = 9,
    /// Another program held a lock for too long.
    #[error("another program holds a lock")]
    Locked = 10,
}

impl Failure {
    /// An error whose text is `message` and whose exit code is this one's.
    pub fn because(self, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Because { failure: self, message: message.into() })
    }

    /// The code that `error` asks for: that of the first [`Failure`] in its
    /// chain, else 1.
    pub fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(|cause| {
                cause
                    .downcast_ref::<Because>()
                    .map(|because| because.failure)
                    .or_else(|| cause.downcast_ref::<Failure>().copied())
            })
            .unwrap_or(Failure::Failed)
    }

    /// Whether nothing more is known than that something failed.
    pub fn is_ordinary(self) -> bool {
        self == Self::Failed
    }

    /// The number that the shell and systemd see.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        ExitCode::from(failure.code())
    }
}

/// Ends a program: prints `error: …` with its causes on standard error, in one
/// line, and gives the exit code that the error asks for. An answer that could not be written is
/// an error, too.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    let unwritten = print::unwritten()
        .map(|error| anyhow::Error::from(error).context("cannot write to standard output"));
    let mut ended = ExitCode::SUCCESS;
    for error in unwritten.into_iter().chain(result.err()) {
        // A bare `Failure` means that everything has been said already.
        if error.downcast_ref::<Failure>().is_none() {
            // An error's priority, as sd-daemon(3) has it.
            let priority = if in_journal() { "<3>" } else { "" };
            crate::eprintln!("{priority}error: {error:#}");
        }
        ended = Failure::of(&error).into();
    }
    ended
}

/// Whether our standard error goes to the journal: systemd says which file that
/// is, since a child's may be another (`systemd.exec(5)`).
pub fn in_journal() -> bool {
    let Some(stream) = std::env::var_os("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| *stream == *format!("{}:{}", stderr.dev(), stderr.ino()))
}

#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Because {
    failure: Failure,
    message: String,
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_code_survives_context() {
        let error = Err::<(), _>(Failure::NotPermitted.because("the token was revoked"))
            .context("cannot register")
            .unwrap_err();
        assert_eq!(Failure::of(&error), Failure::NotPermitted);
        assert_eq!(format!("{error:#}"), "cannot register: the token was revoked");
    }

    #[test]
    fn an_ordinary_error_is_1() {
        assert_eq!(Failure::of(&anyhow::anyhow!("x")).code(), 1);
    }
}
