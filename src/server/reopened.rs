//! Whether a form is being opened again that was not sent: its handler gets as far as a refusal,
//! which is how the page is made, and nothing is written.

/// What the refusal says.
pub(crate) const WHY: &str = "You were signed out before this was sent, so nothing was changed. \
                              Check it, and send it again.";

tokio::task_local! {
    static REOPENED: ();
}

/// Runs a handler that is to write nothing.
pub(crate) fn scope<F: Future>(handler: F) -> impl Future<Output = F::Output> {
    REOPENED.scope((), handler)
}

/// Whether this is such a handler.
pub(crate) fn is_reopened() -> bool {
    REOPENED.try_with(|()| ()).is_ok()
}
