//! Signals that ask us to end: a transaction ends at its next step then, and is
//! undone.

use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Whether changes are being undone.
static UNDOING: AtomicBool = AtomicBool::new(false);

/// Ends the process silently when nobody reads its output any more (`… | head`),
/// as the other tools of a shell do.
pub fn end_with_the_reader() {
    // SAFETY: no handler is installed, so none can do anything unsafe.
    let set = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    set.expect("SIGPIPE is a signal");
}

/// From now on, such a signal no longer ends the process at once, nor does output
/// that nobody reads. One that is ignored stays ignored.
///
/// # Errors
/// The system refuses the handlers.
pub(crate) fn postpone() -> Result<()> {
    if ASKED.get().is_some() {
        return Ok(());
    }
    // SAFETY: as above.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.context("cannot ignore a signal")?;
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        // By nohup, or by a shell that started us in the background.
        if is_ignored(signal) {
            continue;
        }
        signal_hook::flag::register(signal, Arc::clone(&asked))
            .context("cannot watch for signals")?;
    }
    ASKED.get_or_init(|| asked);
    Ok(())
}

/// Whether this process ignores a signal.
fn is_ignored(signal: libc::c_int) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action it only writes the present one.
    let asked = unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeros are an action, too.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Does `undo` to its end: no such signal ends it, whether it came before or comes
/// meanwhile, nor do the programs it runs get those of the terminal.
pub(crate) fn while_undoing<T>(undo: impl FnOnce() -> T) -> T {
    UNDOING.store(true, Ordering::Relaxed);
    let undone = undo();
    UNDOING.store(false, Ordering::Relaxed);
    undone
}

/// Keeps the signals of a terminal from a program that helps to undo.
pub(crate) fn shield(command: &mut Command) {
    // They go to the terminal's foreground group, which it leaves; one that comes before
    // that is ignored.
    command.process_group(0);
    let ignore = || {
        for terminal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
            // SAFETY: no handler is installed, so none can do anything unsafe.
            unsafe { signal(terminal, SigHandler::SigIgn) }?;
        }
        Ok(())
    };
    // SAFETY: sigaction(2) is all that it calls, which is safe between fork and exec.
    unsafe { command.pre_exec(ignore) };
}

/// Whether changes are being undone.
pub(crate) fn is_undoing() -> bool {
    UNDOING.load(Ordering::Relaxed)
}

/// Ends what is being done if a signal asked for it, but for what is being undone.
///
/// # Errors
/// It did.
pub fn check() -> Result<()> {
    if !is_undoing() && ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
