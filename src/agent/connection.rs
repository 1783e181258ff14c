//! How the agent stands with its server, for people who ask: nobody but the
//! agent itself can, since only it has a session.
//!
//! `DATA/connection.json` is a [`Connection`]; it is written whenever the server
//! has answered, or has not. It holds no secret.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::debug;

use crate::json_file;
use config::layout::data;
use protocol::{Registered, Status};

/// How an agent stands with its server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection {
    /// The result.
    pub state: State,
    /// The agent's id, once it has registered.
    pub agent_id: Option<String>,
    /// Its pool's id.
    pub pool_id: Option<String>,
    /// What is wrong, in a sentence.
    pub message: Option<String>,
    /// When the server last answered.
    pub answered_at: Option<Timestamp>,
}

/// The result: the first four are states that the server accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It waits for tasks.
    Idle,
    /// It has tasks.
    Busy,
    /// It accepts no new tasks.
    Draining,
    /// It can run nothing.
    Errored,
    /// The server does not answer.
    #[default]
    Away,
    /// The server refuses the agent.
    Refused,
    /// The agent has said goodbye.
    Deregistered,
}

impl From<Status> for State {
    fn from(status: Status) -> Self {
        match status {
            Status::Idle => Self::Idle,
            Status::Busy => Self::Busy,
            Status::Draining => Self::Draining,
            Status::Errored => Self::Errored,
        }
    }
}

/// Keeps [`Connection`] up to date on disk.
#[derive(Debug)]
pub(crate) struct Keeper {
    file: PathBuf,
    known: Mutex<Connection>,
}

impl Keeper {
    /// Begins with nothing known.
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self { file: file(data_dir), known: Mutex::default() }
    }

    /// The server took the agent's registration.
    pub(crate) fn registered(&self, registered: &Registered) {
        self.update(|known| {
            known.agent_id = Some(registered.agent_id.clone());
            known.pool_id = Some(registered.pool_id.clone());
        });
    }

    /// The server answered: this is how the agent stands with it.
    pub(crate) fn answered(&self, state: impl Into<State>, message: Option<String>) {
        self.update(|known| {
            known.state = state.into();
            known.message = message;
            known.answered_at = Some(Timestamp::now());
        });
    }

    /// The server answered what says nothing about how the agent stands with it.
    pub(crate) fn still_answers(&self) {
        self.update(|known| known.answered_at = Some(Timestamp::now()));
    }

    /// The server did not answer.
    pub(crate) fn away(&self, why: String) {
        self.update(|known| {
            known.state = State::Away;
            known.message = Some(why);
        });
    }

    /// What can't be written is no reason to do less: it is for people alone.
    fn update(&self, change: impl FnOnce(&mut Connection)) {
        let mut known = self.known.lock().expect("nothing panics while it holds the connection");
        change(&mut known);
        if let Err(error) = json_file::write(&self.file, &*known) {
            debug!("{error:#}");
        }
    }
}

/// How an agent stands with its server; `None` if it never tried to register.
///
/// # Errors
/// The file can't be read.
pub(crate) fn look(data_dir: &Path) -> Result<Option<Connection>> {
    json_file::read(&file(data_dir))
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join(data::CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_last_known_stays_when_the_server_is_away() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(look(data.path()).unwrap(), None);
        let keeper = Keeper::new(data.path());
        keeper.answered(Status::Idle, None);
        let idle = look(data.path()).unwrap().unwrap();
        assert!(idle.state == State::Idle && idle.answered_at.is_some(), "{idle:?}");
        keeper.away("no route".to_owned());
        let away = look(data.path()).unwrap().unwrap();
        assert_eq!((away.state, away.answered_at), (State::Away, idle.answered_at));
    }
}
