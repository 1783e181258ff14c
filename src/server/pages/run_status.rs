//! How a run's status is shown.

use serde::Serialize;

use crate::store::run::Status;

/// A status for people.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Shown {
    /// As the API calls it.
    name: &'static str,
    pub label: &'static str,
    /// The colour: see the component `status`.
    kind: &'static str,
}

/// All of them, in the order of a run.
pub(super) const ALL: [Status; 14] = [
    Status::Pending,
    Status::PlanQueued,
    Status::Planning,
    Status::Planned,
    Status::PlannedAndSaved,
    Status::Confirmed,
    Status::ApplyQueued,
    Status::Applying,
    Status::Canceling,
    Status::Applied,
    Status::PlannedAndFinished,
    Status::Errored,
    Status::Discarded,
    Status::Canceled,
];

impl Shown {
    pub(super) fn of(status: Status) -> Self {
        let (label, kind) = match status {
            Status::Pending => ("Pending", "waiting"),
            Status::PlanQueued => ("Plan queued", "waiting"),
            Status::Planning => ("Planning", "busy"),
            Status::Planned => ("Needs approval", "waiting"),
            Status::PlannedAndSaved => ("Plan saved", "waiting"),
            Status::Confirmed => ("Approved", "busy"),
            Status::ApplyQueued => ("Apply queued", "waiting"),
            Status::Applying => ("Applying", "busy"),
            Status::Canceling => ("Canceling", "busy"),
            Status::Applied => ("Applied", "good"),
            Status::PlannedAndFinished => ("No changes", "good"),
            Status::Errored => ("Errored", "bad"),
            Status::Discarded => ("Discarded", "off"),
            Status::Canceled => ("Canceled", "off"),
        };
        Self { name: status.name(), label, kind }
    }
}

/// The label of a status by its name.
pub(super) fn label(name: &str) -> &str {
    let found = ALL.iter().find(|status| status.name() == name);
    found.map_or(name, |status| Shown::of(*status).label)
}
