//! Forms that were sent after their session had ended, for whoever signs in again in the same
//! browser as the same one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::page_session::PageSession;

/// For how long a form is kept, how many are, and how large one may be, in bytes.
const KEPT: Duration = Duration::from_secs(30 * 60);
const FORMS: usize = 100;
const MAX_FORM: usize = 64 * 1024;

/// The forms that are kept, by the ids of their sessions.
#[derive(Default)]
pub(crate) struct KeptForms(Mutex<HashMap<String, KeptForm>>);

#[derive(Clone)]
pub(crate) struct KeptForm {
    since: Instant,
    /// What it was sent to.
    pub path: String,
    /// Its fields, each a name and a value.
    pub fields: Vec<(String, String)>,
}

/// Forms hold secrets.
impl fmt::Debug for KeptForms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptForms").finish_non_exhaustive()
    }
}

impl KeptForms {
    /// Keeps the form that was sent to `path` for the session, which has ended; whether there is
    /// anything to keep.
    pub(crate) fn keep(
        &self,
        session: &PageSession,
        path: String,
        fields: Vec<(String, String)>,
    ) -> bool {
        let bytes: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut forms = self.forms();
        // One field is the form's token.
        if fields.len() < 2 || bytes > MAX_FORM || forms.len() >= FORMS {
            return false;
        }
        let form = KeptForm { since: Instant::now(), path, fields };
        forms.insert(session.id.clone(), form);
        true
    }

    /// Gives the form of a session that has ended to the one that follows it in its browser; lost
    /// if that is somebody else's.
    pub(crate) fn hand_on(&self, ended: &PageSession, next: &PageSession) {
        let mut forms = self.forms();
        let form = forms.remove(&ended.id);
        let who = |session: &PageSession| (session.access_token_id.clone(), session.name.clone());
        if let Some(form) = form.filter(|_| who(ended) == who(next)) {
            forms.insert(next.id.clone(), form);
        }
    }

    /// The form of a session.
    pub(crate) fn of(&self, session_id: &str) -> Option<KeptForm> {
        self.forms().get(session_id).cloned()
    }

    fn forms(&self) -> MutexGuard<'_, HashMap<String, KeptForm>> {
        let mut forms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forms.retain(|_, form| form.since.elapsed() < KEPT);
        forms
    }
}
