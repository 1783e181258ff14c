//! Signals that ask us to end: a transaction ends at its next step then, and is
//! undone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on, such a signal no longer ends the process at once.
///
/// # Errors
/// The system refuses the handlers.
pub fn postpone() -> Result<()> {
    if ASKED.get().is_some() {
        return Ok(());
    }
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&asked))
            .context("cannot watch for signals")?;
    }
    ASKED.get_or_init(|| asked);
    Ok(())
}

/// Ends what is being done if a signal asked for it.
///
/// # Errors
/// It did.
pub fn check() -> Result<()> {
    if ASKED.get().is_some_and(|asked| asked.load(Ordering::Relaxed)) {
        bail!("interrupted");
    }
    Ok(())
}
