//! The phases of a task, for all who tell of them: the log, `status` and telemetry.

use serde::{Deserialize, Serialize};

use protocol::Outcome;

/// What is done for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// It is this agent's, and nothing is done for it at the moment.
    Claimed,
    /// Its files are fetched and its container is made.
    Preparing,
    /// Its image is pulled, which is part of preparing.
    PullingImage,
    /// Its container runs.
    Running,
    /// What the container left goes to the server.
    Uploading,
    /// The rest of the log and the outcome go to the server.
    Finishing,
    /// Its container is removed.
    CleaningUp,
}

/// How a task ended for this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// As its outcome says, which the server has.
    With(Outcome),
    /// The server has given it to somebody else.
    Lost,
    /// It has not: another agent, or this one's next program, continues it.
    Unfinished,
}

impl Phase {
    /// For people: what the task does.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Preparing => "preparing",
            Self::PullingImage => "pulling its image",
            Self::Running => "running",
            Self::Uploading => "uploading what it made",
            Self::Finishing => "sending the rest of its log",
            Self::CleaningUp => "cleaning up",
        }
    }
}

impl Ended {
    /// What it is called in logs and telemetry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::With(Outcome::Finished) => "finished",
            Self::With(Outcome::Errored) => "errored",
            Self::With(Outcome::Canceled) => "canceled",
            Self::Lost => "lost",
            Self::Unfinished => "unfinished",
        }
    }
}
