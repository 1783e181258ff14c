//! The signals that stop the agent.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::{SIGHUP, SigHandler};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks the agent to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM or SIGINT: `systemctl stop` or `restart`, Ctrl-C.
    Stop,
    /// SIGHUP, `systemctl reload`: go on as the new program with the new
    /// settings.
    Reload,
}

/// The signals that mean something.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            terminate: catch(SignalKind::terminate())?,
            interrupt: catch(SignalKind::interrupt())?,
            hangup: catch(SignalKind::hangup())?,
        })
    }

    /// Waits for the next.
    pub(crate) async fn next(&mut self) -> Order {
        tokio::select! {
            _ = self.terminate.recv() => Order::Stop,
            _ = self.interrupt.recv() => Order::Stop,
            _ = self.hangup.recv() => Order::Reload,
        }
    }
}

/// Becomes the program that is installed now, under the same process id, with
/// the same arguments. Comes back only if that fails.
pub(crate) fn become_the_new_program() -> anyhow::Error {
    // Else a second reload kills the new program before it catches signals. What is ignored
    // stays so, and the settings are read after that.
    // SAFETY: no handler is installed, so none can do anything unsafe.
    if let Err(error) = unsafe { nix::sys::signal::signal(SIGHUP, SigHandler::SigIgn) } {
        return anyhow::Error::new(error).context("cannot ignore a signal");
    }
    // Not /proc/self/exe: that is the old program, deleted by now.
    let arguments: Vec<_> = std::env::args_os().collect();
    let (program, rest) = arguments.split_first().expect("a program has a name");
    let error = Command::new(program).args(rest).exec();
    anyhow::Error::new(error).context(format!("cannot start {}", program.display()))
}
