//! What agent and server say to each other: version 1, JSON over HTTPS under
//! [`BASE`], the agent always being the one that calls.
//!
//! | call | bearer | body | answer |
//! |---|---|---|---|
//! | POST `register` | pool token | [`Register`] | 201 [`Registered`]; 409 [`Code::NameTaken`] |
//! | POST `check-token` | – | [`CheckToken`] | 204; 401; 404 the server is older than this call |
//! | POST `poll` | session | [`Poll`] | 200 [`Events`], held up to [`Intervals::poll_seconds`] |
//! | POST `heartbeat` | session | [`Heartbeat`] | 204; 401 the token is revoked; 409 register again |
//! | POST `deregister` | session | – | 204 |
//! | POST `tasks/ID/claim` | session | [`Attempt`] | 200 [`Claimed`]; 409 somebody else has it |
//! | POST `tasks/ID/resume` | session | [`Resume`] | 200 [`Resumed`]; 404 the server is older than this call; 409 [`Code::AttemptOver`] |
//! | POST `tasks/ID/start` | task | [`Attempt`] | 204; 409 stale attempt |
//! | POST `tasks/ID/give-back` | task | [`Attempt`] | 204; 404 the server is older than this call; 409 it was started, or a stale attempt |
//! | GET `tasks/ID/configuration` | task | – | 200 tar.gz |
//! | GET, PUT `tasks/ID/plan?attempt=N` | task | the plan file | 200 · 204; 404 there is none; 413 |
//! | GET, PUT `tasks/ID/lock-file?attempt=N` | task | `.terraform.lock.hcl` | 200 · 204; 404 there is none; 413 |
//! | GET, PUT `tasks/ID/plan-files?attempt=N` | task | tar.gz of what the plan made in its working directory | 200, 204 there is none · 204; 404 the server is older than this call; 413 |
//! | GET, PUT `tasks/ID/plan-json?attempt=N` | task | the plan in JSON, without what is sensitive | 204 · 204; 404 the server is older than this call; 413 |
//! | GET, PUT `tasks/ID/state?attempt=N` | task | the state | 200 · 204; 404 there is none; 409, 413, 422 it is not taken |
//! | PUT `tasks/ID/log?attempt=N&offset=M` | task | raw bytes, also with `Content-Encoding: gzip` | 200 or 416, both with [`LogOffset`] |
//! | POST `tasks/ID/finish` | task | [`Finish`] | 200; 409 stale attempt; 412 with [`LogOffset`]: send the log again from there |
//!
//! Every write carries the attempt; one of an older attempt gets 409. Errors
//! other than those with a body named above carry a [`Problem`], whose [`Code`] says
//! what it means where the status does not: a 409 for a state is an attempt that is
//! over, or a state that does not follow the workspace's. Servers before the codes send
//! none: then only `claim`, `start`, `log` and `finish` say that an attempt is over.
//!
//! A claim's answer has a second token, which is no bearer here: the run itself
//! reads the pool API with it.
//!
//! Every field of every message has a bound ([`limits`]); a message beyond one gets 422,
//! and a longer body than that of any message 413.
//!
//! An agent says `start` and waits for the answer before it starts a
//! container: until then the server may offer the task to another agent; an
//! apply whose start was said is never run twice.
//!
//! An agent continues the tasks of its journal at once after a restart. After another boot,
//! or on another machine, it registers first and asks with `resume` whether each is still
//! its own: the journal may be a copy on a clone of the machine.

pub mod journal;
pub mod limits;
pub mod redact;

mod events;
mod registration;
mod run_options;
#[cfg(test)]
mod samples;
mod secret;
mod task;

pub use events::{Event, Events, Heartbeat, Poll, Status, TaskState, TaskStatus};
pub use registration::{AgentMemory, CheckToken, Identity, Intervals, Register, Registered};
pub use run_options::{BadOption, MAX_ADDRESS, MAX_ADDRESSES, Refresh, RunOption, RunOptions};
pub use secret::Secret;
pub use task::{
    Attempt, Category, Claimed, EnvironmentHook, Finish, Hook, Kind, LogOffset, Named, Operation,
    Outcome, PlanSummary, Platform, RanImage, Resume, Resumed, Task, Variable,
};

use serde::{Deserialize, Serialize};

/// Where the calls are on the server.
pub const BASE: &str = "/api/agent/v1";

/// What this version's agents can do, as a number that grows: 1 is what the first ones could;
/// 2 adds [`Task::options`] and [`Task::changes_nothing`]; 3 adds [`Task::environment_hooks`].
/// The server offers a task to no agent that would not do all of it.
pub const LEVEL: u32 = 3;

/// Why a call was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One sentence, for the agent's log.
    pub error: String,
    /// What the agent acts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The attempt has ended or does not count any more: the task is not the agent's.
    AttemptOver,
    /// The state can't be the workspace's next one. The task goes on.
    StateRefused,
    /// The file is larger than the server takes. The task goes on.
    TooLarge,
    /// Another agent has the name. Registering may be tried again later; a session is over.
    NameTaken,
    /// One that this version does not know.
    #[serde(other)]
    Other,
}
