//! What agent and server say to each other: version 1, JSON over HTTPS under
//! [`BASE`], the agent always being the one that calls.
//!
//! | call | bearer | body | answer |
//! |---|---|---|---|
//! | POST `register` | pool token | [`Register`] | 201 [`Registered`] |
//! | POST `poll` | session | [`Poll`] | 200 [`Events`], held up to [`Intervals::poll_seconds`] |
//! | POST `heartbeat` | session | [`Heartbeat`] | 204; 401 the token is revoked; 409 register again |
//! | POST `deregister` | session | – | 204 |
//! | POST `tasks/ID/claim` | session | [`Attempt`] | 200 [`Claimed`]; 409 somebody else has it |
//! | POST `tasks/ID/start` | task | [`Attempt`] | 204; 409 stale attempt |
//! | GET `tasks/ID/configuration` | task | – | 200 tar.gz |
//! | GET, PUT `tasks/ID/plan?attempt=N` | task | the plan file | 200 · 204; 404 there is none |
//! | GET, PUT `tasks/ID/lock-file?attempt=N` | task | `.terraform.lock.hcl` | 200 · 204; 404 there is none |
//! | GET, PUT `tasks/ID/plan-files?attempt=N` | task | tar.gz of what the plan made in its working directory | 200, 204 there is none · 204; 404 the server is older than this call |
//! | GET, PUT `tasks/ID/state?attempt=N` | task | the state | 200 · 204; 404 there is none |
//! | PUT `tasks/ID/log?attempt=N&offset=M` | task | raw bytes, also with `Content-Encoding: gzip` | 200 or 416, both with [`LogOffset`] |
//! | POST `tasks/ID/finish` | task | [`Finish`] | 200; 409 stale attempt; 412 with [`LogOffset`]: send the log again from there |
//!
//! Every write carries the attempt; one of an older attempt gets 409. Errors
//! other than those with a body named above carry a [`Problem`].
//!
//! A claim's answer has a second token, which is no bearer here: the run itself
//! reads the pool API with it.
//!
//! An agent says `start` and waits for the answer before it starts a
//! container: until then the server may offer the task to another agent; an
//! apply whose start was said is never run twice.

pub mod redact;

mod events;
mod registration;
mod secret;
mod task;

pub use events::{Event, Events, Heartbeat, Poll, Status, TaskState, TaskStatus};
pub use registration::{Intervals, Register, Registered};
pub use secret::Secret;
pub use task::{
    Attempt, Category, Claimed, Finish, Hook, Kind, LogOffset, Named, Operation, Outcome, Task,
    Variable,
};

use serde::{Deserialize, Serialize};

/// Where the calls are on the server.
pub const BASE: &str = "/api/agent/v1";

/// Why a call was refused, for the agent's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence.
    pub error: String,
}
