//! What goes back and forth while an agent is registered.

use serde::{Deserialize, Serialize};

use super::{Intervals, Kind};
use crate::Secret;

/// An agent asks what there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// How many more tasks it can take now; no more are offered.
    pub free_slots: u32,
    /// The tasks it has.
    pub tasks: Vec<TaskStatus>,
}

/// The answer to [`Poll`]; empty when nothing came up in time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// In the order in which they are to be acted on.
    pub events: Vec<Event>,
}

/// Something that an agent has to act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A task is there to be claimed.
    Offer {
        /// The task's id.
        task_id: String,
        /// Which attempt at it this is, from 1.
        attempt: u32,
        /// Plan or apply.
        kind: Kind,
    },
    /// A task of this agent is to be interrupted.
    Cancel {
        /// The task's id.
        task_id: String,
        /// The attempt meant.
        attempt: u32,
    },
    /// The agent is to take no more tasks and to end after its last one.
    Drain,
    /// The session's token from now on.
    NewToken {
        /// It replaces the one in use.
        session_token: Secret,
    },
    /// The intervals from now on.
    NewIntervals(Intervals),
}

/// A heartbeat; renews the leases of the tasks named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// How the agent is.
    pub status: Status,
    /// What is wrong, when the status is [`Status::Errored`].
    pub error_message: Option<String>,
    /// The tasks it has.
    pub tasks: Vec<TaskStatus>,
}

/// How an agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has no task.
    Idle,
    /// It has at least one task.
    Busy,
    /// It takes no more tasks.
    Draining,
    /// It takes no tasks, its engine being away for example.
    Errored,
}

/// A task as its agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The task's id.
    pub task_id: String,
    /// The attempt that the agent works on.
    pub attempt: u32,
    /// How far it is.
    pub state: TaskState,
}

/// How far a task is on its agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Claimed; its container has not been started.
    Claimed,
    /// Its container runs, or may run.
    Running,
    /// Its container has ended; log, state or result are on their way.
    Uploading,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_tagged_by_name() {
        let offer = Event::Offer { task_id: "task-1".into(), attempt: 1, kind: Kind::Plan };
        assert_eq!(
            serde_json::to_string(&offer).unwrap(),
            r#"{"event":"offer","task_id":"task-1","attempt":1,"kind":"plan"}"#
        );
    }
}
