//! What the agent keeps on disk of a running task, and the setup program reads: a
//! file that is only appended to, one [`Line`] in JSON after the other.

use serde::{Deserialize, Serialize};

use crate::{Claimed, Finish, Identity, Secret};

/// The file's name in a task's folder.
pub const FILE: &str = "journal";

/// The largest that is read, in bytes: a claim is the longest line by far, and has bounds
/// ([`crate::limits`]).
pub const LARGEST: u64 = 64 * 1024 * 1024;

/// A line, in the order in which a task gets them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// The agent claimed the task.
    Claimed {
        /// The server's answer.
        claim: Box<Claimed>,
        /// The number of the slot, from 0.
        slot: usize,
        /// The machine and the boot. None: the agent was too old to note it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        identity: Option<Identity>,
    },
    /// The server confirmed that the task is still this agent's, after a boot or on another
    /// machine.
    Resumed {
        /// The machine and the boot from here on.
        identity: Identity,
        /// The bearer from here on.
        task_token: Secret,
    },
    /// A container may have been started.
    Container(Container),
    /// The run never began in that container: it needs another one.
    NeverBegun,
    /// The task ended, and the server has everything but the outcome.
    Finished(Finish),
}

/// A container that may have been started.
#[derive(Clone, Debug, Serialize, Deserialize, Default)]
pub struct Container {
    /// The engine's id of it.
    pub id: String,
    /// How long the log was before the container wrote to it, in bytes.
    pub log_start: u64,
    /// The SHA-256 of the state that it was given, in lower-case hex. None: the
    /// workspace has none, or the agent that made the container was too old to say.
    #[serde(default)]
    pub state_sha256: Option<String>,
    /// When it was about to be started, in seconds since 1970. None: the agent that made
    /// the container was too old to say.
    #[serde(default)]
    pub started_at: Option<u64>,
    /// Whether it was started ahead of its task, and waits until the run is to begin.
    #[serde(default)]
    pub is_ahead: bool,
}
