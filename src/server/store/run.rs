//! Runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::run_schedule::{RunSchedule, ScheduleMode};
use super::status_sets::statement;
use super::task::Phase;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;
use protocol::RunOptions;

/// A run.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Run {
    /// `run-…`.
    pub id: String,
    /// Its workspace.
    pub workspace_id: String,
    /// What it runs.
    pub configuration_version_id: String,
    /// How far it is.
    pub status: Status,
    /// Where it came from.
    pub source: Source,
    /// Why it was made, for people.
    pub message: Option<String>,
    /// Whether it destroys.
    pub is_destroy: bool,
    /// Whether its plan is applied without asking.
    pub auto_apply: bool,
    /// Whether it is never applied.
    pub is_plan_only: bool,
    /// Whether its plan is kept for later.
    pub save_plan: bool,
    /// Whether a plan without changes is applied, too.
    pub allow_empty_apply: bool,
    /// What it asks of Terraform beside its operation.
    #[sqlx(try_from = "String")]
    pub inputs: Inputs,
    /// The Terraform version that it asks for instead of its workspace's.
    pub terraform_version: Option<String>,
    /// Whether its workspace's other runs wait for it, and it for them.
    pub is_exclusive: bool,
    /// The number of the state version that its plan began with, 0 if there was none; none
    /// before the plan.
    pub planned_state: Option<i64>,
    /// Whether its plan changes anything: known from its end on.
    pub has_changes: Option<bool>,
    /// What went wrong.
    pub error_message: Option<String>,
    /// When it was made.
    pub created_at: Millis,
    /// When it got its status.
    pub updated_at: Millis,
    /// When retention removed its logs and what its plan left.
    pub files_removed_at: Option<Millis>,
}

/// What a run asks of Terraform beside its operation; kept as a JSON object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Inputs {
    /// The options of its plan.
    pub options: RunOptions,
    /// Its own variables: expressions by name.
    pub variables: BTreeMap<String, String>,
}

impl Inputs {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names and texts have a form in JSON")
    }
}

impl TryFrom<String> for Inputs {
    type Error = serde_json::Error;

    fn try_from(json: String) -> Result<Self, Self::Error> {
        serde_json::from_str(&json)
    }
}

/// Where a run came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "kebab-case")]
#[sqlx(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// The pool API.
    #[default]
    Api,
    /// Terraform's own command line.
    Cli,
    /// The server's pages.
    Ui,
    /// A schedule of its workspace.
    Schedule,
    /// A run of another workspace that was applied.
    RunTrigger,
}

impl Source {
    /// As clients and runs know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Source::Api => "api",
            Source::Cli => "cli",
            Source::Ui => "ui",
            Source::Schedule => "schedule",
            Source::RunTrigger => "run-trigger",
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Another run of its workspace goes first.
    Pending,
    /// Its plan waits for an agent.
    PlanQueued,
    /// Its plan runs.
    Planning,
    /// Its plan waits for a yes.
    Planned,
    /// The same, and other runs don't wait for it.
    PlannedAndSaved,
    /// Its plan got a yes.
    Confirmed,
    /// Its apply waits for an agent.
    ApplyQueued,
    /// Its apply runs, or may run.
    Applying,
    /// Its plan or its apply is being interrupted.
    Canceling,
    /// Its apply is done.
    Applied,
    /// Its plan changes nothing.
    PlannedAndFinished,
    /// Its plan or apply failed.
    Errored,
    /// Its plan got a no.
    Discarded,
    /// It was canceled.
    Canceled,
}

impl Status {
    /// Begun and not through: an agent works on these runs, or they wait for one or for a yes,
    /// and their workspace's other runs wait for them.
    pub(super) const UNDER_WAY: &[Self] = &[
        Status::PlanQueued,
        Status::Planning,
        Status::Planned,
        Status::Confirmed,
        Status::ApplyQueued,
        Status::Applying,
        Status::Canceling,
    ];

    /// Nothing more happens to these runs.
    pub(super) const ENDED: &[Self] = &[
        Status::Applied,
        Status::PlannedAndFinished,
        Status::Errored,
        Status::Discarded,
        Status::Canceled,
    ];

    /// What clients know them all by.
    pub(crate) fn names() -> Vec<&'static str> {
        let waiting = [Self::Pending, Self::PlannedAndSaved];
        let all = waiting.iter().chain(Self::UNDER_WAY).chain(Self::ENDED);
        all.map(|status| status.name()).collect()
    }

    /// As clients know it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::PlanQueued => "plan_queued",
            Status::Planning => "planning",
            Status::Planned => "planned",
            Status::PlannedAndSaved => "planned_and_saved",
            Status::Confirmed => "confirmed",
            Status::ApplyQueued => "apply_queued",
            Status::Applying => "applying",
            Status::Canceling => "canceling",
            Status::Applied => "applied",
            Status::PlannedAndFinished => "planned_and_finished",
            Status::Errored => "errored",
            Status::Discarded => "discarded",
            Status::Canceled => "canceled",
        }
    }
}

impl Run {
    /// What the run does or waits to do; none while it waits for a yes, and at
    /// its end.
    pub(crate) fn phase(&self) -> Option<Phase> {
        match self.status {
            Status::Pending | Status::PlanQueued | Status::Planning => Some(Phase::Plan),
            Status::Confirmed | Status::ApplyQueued | Status::Applying => Some(Phase::Apply),
            // Only what was planned is applied.
            Status::Canceling => match self.has_changes {
                None => Some(Phase::Plan),
                Some(_) => Some(Phase::Apply),
            },
            Status::Planned
            | Status::PlannedAndSaved
            | Status::Applied
            | Status::PlannedAndFinished
            | Status::Errored
            | Status::Discarded
            | Status::Canceled => None,
        }
    }

    /// Whether nothing more happens to it.
    pub(crate) fn has_ended(&self) -> bool {
        Status::ENDED.contains(&self.status)
    }

    /// Whether there is nothing to apply once its plan is done.
    pub(crate) fn ends_with_its_plan(&self) -> bool {
        self.is_plan_only || (self.has_changes == Some(false) && !self.allow_empty_apply)
    }

    /// Whether the workspace's state is the run's alone.
    pub(crate) fn locks_workspace(&self) -> bool {
        self.phase() == Some(Phase::Apply)
    }
}

/// Which runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this workspace.
    pub workspace: Option<&'a str>,
    /// With this status.
    pub status: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts =
    &[("created-at", "t.created_at"), ("status", "t.status"), ("updated-at", "t.updated_at")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.message"];

/// Writes a new run.
pub(crate) async fn insert(db: &mut Connection, run: &Run) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO runs
            (id, workspace_id, configuration_version_id, status, source, message, is_destroy,
             auto_apply, has_changes, error_message, created_at, updated_at, is_plan_only,
             save_plan, allow_empty_apply, inputs, terraform_version, is_exclusive)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    )
    .bind(&run.id)
    .bind(&run.workspace_id)
    .bind(&run.configuration_version_id)
    .bind(run.status)
    .bind(run.source)
    .bind(&run.message)
    .bind(run.is_destroy)
    .bind(run.auto_apply)
    .bind(run.has_changes)
    .bind(&run.error_message)
    .bind(run.created_at)
    .bind(run.updated_at)
    .bind(run.is_plan_only)
    .bind(run.save_plan)
    .bind(run.allow_empty_apply)
    .bind(run.inputs.to_json())
    .bind(&run.terraform_version)
    .bind(run.is_exclusive)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, run: &Run) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE runs SET status = $2, has_changes = $3, error_message = $4, updated_at = $5,
            is_exclusive = $6, planned_state = $7
         WHERE id = $1",
    )
    .bind(&run.id)
    .bind(run.status)
    .bind(run.has_changes)
    .bind(&run.error_message)
    .bind(run.updated_at)
    .bind(run.is_exclusive)
    .bind(run.planned_state)
    .execute(db)
    .await
    .map(drop)
}

/// Up to `limit` runs with files that ended before `before`.
pub(crate) async fn removable(
    db: &mut Connection,
    before: Millis,
    limit: i64,
) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(statement(
        "SELECT id FROM runs
         WHERE files_removed_at IS NULL AND updated_at < $1 AND status IN {ended_runs}
         LIMIT $2",
    ))
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Remembers that the files are no longer kept.
pub(crate) async fn set_files_removed(
    db: &mut Connection,
    id: &str,
    now: Millis,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE runs SET files_removed_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// The run with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Run>> {
    sqlx::query_as("SELECT * FROM runs WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The exclusive run of a workspace that has begun and is not through.
pub(crate) async fn current(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Option<Run>> {
    Ok(current_of(db, &[workspace_id]).await?.into_iter().next())
}

/// The exclusive runs of these workspaces that have begun and are not through, oldest
/// first.
pub(crate) async fn current_of(db: &mut Connection, workspaces: &[&str]) -> sqlx::Result<Vec<Run>> {
    super::of_any(
        db,
        "SELECT * FROM runs WHERE status IN {runs_under_way} AND is_exclusive AND workspace_id",
        workspaces,
        "ORDER BY created_at",
    )
    .await
}

/// These workspaces and the ids of their latest runs.
pub(crate) async fn latest_of(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT workspace_id, id FROM runs r WHERE id =
            (SELECT id FROM runs WHERE workspace_id = r.workspace_id
             ORDER BY created_at DESC, id LIMIT 1)
           AND workspace_id",
        workspaces,
        "",
    )
    .await
}

/// A run of a workspace that an agent may be working on, exclusive or not.
pub(crate) async fn under_way(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(statement(
        "SELECT * FROM runs WHERE workspace_id = $1 AND status IN {runs_under_way}
         ORDER BY created_at LIMIT 1",
    ))
    .bind(workspace_id)
    .fetch_optional(db)
    .await
}

/// A run of a schedule that has not ended.
pub(crate) async fn unfinished_of_schedule(
    db: &mut Connection,
    schedule: &RunSchedule,
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(statement(
        "SELECT id FROM runs WHERE workspace_id = $1 AND is_destroy = $2 AND source = 'schedule'
           AND status IN {unended_runs}
         ORDER BY created_at LIMIT 1",
    ))
    .bind(&schedule.workspace_id)
    .bind(schedule.mode == ScheduleMode::Destroy)
    .fetch_optional(db)
    .await
}

/// The run of a workspace that has waited longest.
pub(crate) async fn next(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(statement(
        "SELECT * FROM runs WHERE workspace_id = $1 AND status IN {pending_runs}
         ORDER BY created_at, id LIMIT 1",
    ))
    .bind(workspace_id)
    .fetch_optional(db)
    .await
}

/// What people look for among runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Search<'a> {
    /// Of this workspace.
    pub workspace_id: Option<&'a str>,
    /// With this status.
    pub status: Option<&'a str>,
    /// Of workspaces with this in their names.
    pub workspace: Option<&'a str>,
    /// Planned or applied in this pool.
    pub pool_id: Option<&'a str>,
}

/// A page of what people look for, latest first.
pub(crate) async fn search(
    db: &mut Connection,
    search: Search<'_>,
    page: super::Page,
) -> sqlx::Result<Listed<Run>> {
    super::list(
        db,
        "FROM runs t JOIN workspaces w ON w.id = t.workspace_id
         WHERE ($1 IS NULL OR t.workspace_id = $1) AND ($2 IS NULL OR t.status = $2)
           AND ($3 IS NULL OR instr(lower(w.name), lower($3)) > 0)
           AND ($4 IS NULL OR EXISTS
                (SELECT 1 FROM tasks WHERE run_id = t.id AND pool_id = $4))",
        "t.created_at DESC, t.id",
        &[search.workspace_id, search.status, search.workspace, search.pool_id],
        page.into(),
    )
    .await
}

/// A run that goes on in a pool: one that is under way and was planned there, or is queued
/// there or with one of its agents.
pub(crate) async fn in_pool(db: &mut Connection, pool_id: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(statement(
        "SELECT r.id FROM runs r JOIN tasks t ON t.run_id = r.id
         WHERE t.pool_id = $1 AND (t.ended_at IS NULL OR r.status IN {runs_under_way})
         ORDER BY r.created_at LIMIT 1",
    ))
    .bind(pool_id)
    .fetch_optional(db)
    .await
}

/// The runs with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Run>> {
    super::of_any(db, "SELECT * FROM runs WHERE id", ids, "").await
}

/// The runs of a workspace whose plan is kept for later.
pub(crate) async fn saved(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Vec<Run>> {
    sqlx::query_as(statement(
        "SELECT * FROM runs WHERE workspace_id = $1 AND status IN {saved_runs}",
    ))
    .bind(workspace_id)
    .fetch_all(db)
    .await
}

/// The exclusive runs of these workspaces that have not ended, each workspace's in the order
/// in which they have their turn: (workspace, run).
pub(crate) async fn queues(
    db: &mut Connection,
    workspaces: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT workspace_id, id FROM runs
         WHERE status IN {unended_runs} AND is_exclusive AND workspace_id",
        workspaces,
        "ORDER BY workspace_id, status IN {pending_runs}, created_at, id",
    )
    .await
}

/// A page of them, latest first.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<Run>> {
    super::list(
        db,
        "FROM runs t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.workspace_id = $2)
           AND ($3 IS NULL OR t.status = $3)",
        "t.created_at DESC, t.id",
        &[filter.id, filter.workspace, filter.status],
        view.into(),
    )
    .await
}
