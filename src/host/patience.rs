//! Waiting for what another program holds.

use std::process::Command;
use std::time::Duration;

use backon::{BlockingRetryable as _, ConstantBuilder};

use super::command::{CommandError, CommandExt as _};

/// How long between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// Runs a command; as long as it fails because of a lock, tries again, for at
/// most `limit`, and says what is waited for.
///
/// # Errors
/// It fails, or fails because of a lock for all of `limit`.
pub fn run(
    command: &mut Command,
    limit: Duration,
    is_locked: impl Fn(&CommandError) -> bool,
) -> Result<(), CommandError> {
    let tries = usize::try_from(limit.as_secs() / PAUSE.as_secs()).unwrap_or(usize::MAX);
    let mut waited = 0;
    (|| command.run())
        .retry(ConstantBuilder::default().with_delay(PAUSE).with_max_times(tries))
        .when(is_locked)
        .notify(|error, _| {
            if waited % 10 == 0 {
                eprintln!(
                    "Waiting for another program, for at most {} s: {error}",
                    limit.as_secs()
                );
            }
            waited += 1;
        })
        .call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let script = "[ -e once ] && exit 0; : >once; echo locked >&2; exit 1";
        let run = |is_locked: fn(&CommandError) -> bool| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).current_dir(directory.path());
            super::run(&mut command, Duration::from_secs(10), is_locked)
        };
        assert!(run(|_| false).is_err());
        std::fs::remove_file(directory.path().join("once")).unwrap();
        run(|error| error.to_string().contains("locked")).unwrap();
    }

    #[test]
    fn patience_ends() {
        let mut command = Command::new("false");
        assert!(super::run(&mut command, Duration::ZERO, |_| true).is_err());
    }
}
