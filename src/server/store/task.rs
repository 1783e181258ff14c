//! Tasks: the plans and applies of runs, and the claims on them.

use serde::Serialize;
use sqlx::FromRow;

use super::Connection;
use super::status_sets::statement;
use crate::clock::Millis;
use protocol::{Kind, PlanSummary};

/// A plan or an apply.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Task {
    /// `task-…`: its name among agents.
    pub id: String,
    /// `plan-…` or `apply-…`: its name among clients.
    pub phase_id: String,
    /// Its run.
    pub run_id: String,
    /// Plan or apply.
    pub phase: Phase,
    /// How far it is.
    pub state: State,
    /// The attempt that counts, from 1; writes of earlier ones are refused.
    pub attempt: i64,
    /// What an agent has to be able to do for it ([`protocol::LEVEL`]).
    pub level: i64,
    /// The pool that it is queued in.
    pub pool_id: Option<String>,
    /// The agent that it was offered to, or that has it.
    pub agent_id: Option<String>,
    /// Whether its agent is to interrupt it.
    pub cancel_requested: bool,
    /// When it was last offered.
    pub offered_at: Option<Millis>,
    /// When it is taken from its agent, unless a heartbeat comes first; set exactly
    /// while [`State::holds_lease`].
    pub lease_expires_at: Option<Millis>,
    /// When it is taken from its agent although that sends heartbeats, since it should have
    /// ended it; counts while the task is [`State::Running`].
    pub overdue_at: Option<Millis>,
    /// What went wrong.
    pub message: Option<String>,
    /// The exit code of the step that ended it.
    pub exit_code: Option<i64>,
    /// Whether it was killed for memory.
    pub oom_killed: bool,
    /// What a finished plan does, or a finished apply did.
    #[sqlx(try_from = "Option<String>")]
    pub summary: Summary,
    /// When it was made.
    pub created_at: Millis,
    /// When it was queued.
    pub queued_at: Option<Millis>,
    /// When its container was started.
    pub started_at: Option<Millis>,
    /// When it ended; set exactly when [`State::is_ended`].
    pub ended_at: Option<Millis>,
}

/// What a plan does, if that is known; kept as a JSON object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary(pub Option<PlanSummary>);

impl Summary {
    fn to_json(self) -> Option<String> {
        self.0.map(|summary| serde_json::to_string(&summary).expect("numbers have a form in JSON"))
    }
}

impl TryFrom<Option<String>> for Summary {
    type Error = serde_json::Error;

    fn try_from(json: Option<String>) -> Result<Self, Self::Error> {
        json.map(|json| serde_json::from_str(&json)).transpose().map(Self)
    }
}

/// Plan or apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum Phase {
    /// The plan.
    Plan,
    /// The apply.
    Apply,
}

impl Phase {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Phase::Plan => "plan",
            Phase::Apply => "apply",
        }
    }
}

impl From<Phase> for Kind {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Plan => Kind::Plan,
            Phase::Apply => Kind::Apply,
        }
    }
}

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub(crate) enum State {
    /// Its run is not there yet.
    Pending,
    /// It waits for an agent.
    Queued,
    /// An agent was told of it.
    Offered,
    /// An agent has it and has not started it.
    Claimed,
    /// Its container runs, or may run.
    Running,
    /// It ended as asked for.
    Finished,
    /// It failed.
    Errored,
    /// It was canceled, or its run ended before it.
    Canceled,
    /// It is an apply that was started and whose agent is gone: it may still
    /// run.
    Unreachable,
}

impl State {
    /// An agent was offered these tasks, or has them.
    pub(super) const OF_AGENTS: &[Self] =
        &[State::Offered, State::Claimed, State::Running, State::Unreachable];

    /// As the database has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Queued => "queued",
            State::Offered => "offered",
            State::Claimed => "claimed",
            State::Running => "running",
            State::Finished => "finished",
            State::Errored => "errored",
            State::Canceled => "canceled",
            State::Unreachable => "unreachable",
        }
    }

    /// Whether an agent has an offer or a claim of it, and has not started it.
    pub(crate) fn is_assigned(self) -> bool {
        matches!(self, State::Offered | State::Claimed)
    }

    /// Whether another agent gets it, or it is marked unreachable, when its lease
    /// expires.
    pub(crate) fn holds_lease(self) -> bool {
        self.is_assigned() || self == State::Running
    }

    /// Whether nothing more happens to it.
    pub(crate) fn is_ended(self) -> bool {
        matches!(self, State::Finished | State::Errored | State::Canceled)
    }

    /// Whether its agent may write to it.
    pub(crate) fn is_with_agent(self) -> bool {
        matches!(self, State::Claimed | State::Running | State::Unreachable)
    }
}

/// Writes a new task.
pub(crate) async fn insert(db: &mut Connection, task: &Task) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO tasks
            (id, phase_id, run_id, phase, state, attempt, cancel_requested, oom_killed, created_at,
             level)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&task.id)
    .bind(&task.phase_id)
    .bind(&task.run_id)
    .bind(task.phase)
    .bind(task.state)
    .bind(task.attempt)
    .bind(task.cancel_requested)
    .bind(task.oom_killed)
    .bind(task.created_at)
    .bind(task.level)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, task: &Task) -> sqlx::Result<()> {
    // Statements select by these columns instead of by sets of states.
    debug_assert_eq!(task.lease_expires_at.is_some(), task.state.holds_lease(), "{task:?}");
    debug_assert_eq!(task.ended_at.is_some(), task.state.is_ended(), "{task:?}");
    sqlx::query(
        "UPDATE tasks SET
            state = $2, attempt = $3, pool_id = $4, agent_id = $5, cancel_requested = $6,
            offered_at = $7, lease_expires_at = $8, message = $9, exit_code = $10,
            oom_killed = $11, queued_at = $12, started_at = $13, ended_at = $14,
            overdue_at = $15, level = $16, summary = $17
         WHERE id = $1",
    )
    .bind(&task.id)
    .bind(task.state)
    .bind(task.attempt)
    .bind(&task.pool_id)
    .bind(&task.agent_id)
    .bind(task.cancel_requested)
    .bind(task.offered_at)
    .bind(task.lease_expires_at)
    .bind(&task.message)
    .bind(task.exit_code)
    .bind(task.oom_killed)
    .bind(task.queued_at)
    .bind(task.started_at)
    .bind(task.ended_at)
    .bind(task.overdue_at)
    .bind(task.level)
    .bind(task.summary.to_json())
    .execute(db)
    .await
    .map(drop)
}

/// The task with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<Task>> {
    sqlx::query_as("SELECT * FROM tasks WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The task with this plan's or apply's id.
pub(crate) async fn find_phase(db: &mut Connection, phase_id: &str) -> sqlx::Result<Option<Task>> {
    sqlx::query_as("SELECT * FROM tasks WHERE phase_id = $1")
        .bind(phase_id)
        .fetch_optional(db)
        .await
}

/// The tasks with these plans' or applies' ids.
pub(crate) async fn with_phase_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<Task>> {
    super::of_any(db, "SELECT * FROM tasks WHERE phase_id", ids, "").await
}

/// The plan or the apply of a run.
pub(crate) async fn of_run(db: &mut Connection, run_id: &str, phase: Phase) -> sqlx::Result<Task> {
    sqlx::query_as("SELECT * FROM tasks WHERE run_id = $1 AND phase = $2")
        .bind(run_id)
        .bind(phase)
        .fetch_one(db)
        .await
}

/// The plans and applies of a workspace whose logs and files are kept.
pub(crate) async fn kept(db: &mut Connection, workspace_id: &str) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar(
        "SELECT t.id FROM tasks t JOIN runs r ON r.id = t.run_id
         WHERE r.workspace_id = $1 AND r.files_removed_at IS NULL",
    )
    .bind(workspace_id)
    .fetch_all(db)
    .await
}

/// The plans and applies of these runs.
pub(crate) async fn of_runs(db: &mut Connection, runs: &[&str]) -> sqlx::Result<Vec<Task>> {
    super::of_any(db, "SELECT * FROM tasks WHERE run_id", runs, "").await
}

/// What an agent of a `level` could take: its pool's queue, oldest first, and before that
/// what was offered to it before `reoffer_before` and never claimed, because
/// that answer may have been lost, and what was offered to another one before
/// `unclaimed_before`.
pub(crate) async fn offerable(
    db: &mut Connection,
    pool_id: &str,
    (agent_id, level): (&str, i64),
    reoffer_before: Millis,
    unclaimed_before: Millis,
    limit: i64,
) -> sqlx::Result<Vec<Task>> {
    sqlx::query_as(statement(
        "SELECT * FROM tasks
         WHERE pool_id = $1 AND level <= $6
           AND (state IN {queued_tasks}
                OR (state IN {offered_tasks} AND agent_id = $2 AND offered_at <= $3)
                OR (state IN {offered_tasks} AND agent_id <> $2 AND offered_at <= $4))
         ORDER BY queued_at, id LIMIT $5",
    ))
    .bind(pool_id)
    .bind(agent_id)
    .bind(reoffer_before)
    .bind(unclaimed_before)
    .bind(limit)
    .bind(level)
    .fetch_all(db)
    .await
}

/// Whether a poll of an agent may find anything at all: a task that the agent has, or one that
/// waits in its pool. Most polls are of idle agents in idle pools, and this is all they ask.
pub(crate) async fn concern(
    db: &mut Connection,
    pool_id: &str,
    agent_id: &str,
) -> sqlx::Result<bool> {
    sqlx::query_scalar(statement(
        "SELECT EXISTS (SELECT 1 FROM tasks WHERE agent_id = $2 AND state IN {tasks_of_agents})
             OR EXISTS (SELECT 1 FROM tasks WHERE pool_id = $1
                        AND (state IN {queued_tasks} OR state IN {offered_tasks}))",
    ))
    .bind(pool_id)
    .bind(agent_id)
    .fetch_one(db)
    .await
}

/// For each pool and level, how many tasks nobody has claimed that were queued, or last
/// offered, before `before`.
pub(crate) async fn unclaimed(
    db: &mut Connection,
    before: Millis,
) -> sqlx::Result<Vec<(String, i64, i64)>> {
    sqlx::query_as(statement(
        "SELECT pool_id, level, COUNT(*) FROM tasks
         WHERE ended_at IS NULL AND pool_id IS NOT NULL
           AND ((state IN {queued_tasks} AND queued_at <= $1)
                OR (state IN {offered_tasks} AND offered_at <= $1))
         GROUP BY pool_id, level",
    ))
    .bind(before)
    .fetch_all(db)
    .await
}

/// Which place a queued task has among those that wait for agents of its pool, from 1, and how
/// many wait.
pub(crate) async fn place_in_queue(
    db: &mut Connection,
    id: &str,
    pool_id: &str,
) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as(statement(
        "SELECT COUNT(*) FILTER (WHERE (t.queued_at, t.id) <= (own.queued_at, own.id)), COUNT(*)
         FROM tasks t JOIN tasks own ON own.id = $1
         WHERE t.pool_id = $2 AND t.state IN {queued_tasks}",
    ))
    .bind(id)
    .bind(pool_id)
    .fetch_one(db)
    .await
}

/// The tasks that have not ended.
pub(crate) async fn open(db: &mut Connection) -> sqlx::Result<Vec<Task>> {
    sqlx::query_as("SELECT * FROM tasks WHERE ended_at IS NULL").fetch_all(db).await
}

/// For each of these pools with a queue: how many tasks wait for an agent, and
/// since when the oldest does.
pub(crate) async fn waiting(
    db: &mut Connection,
    pools: &[&str],
) -> sqlx::Result<Vec<(String, i64, Option<Millis>)>> {
    super::of_any(
        db,
        "SELECT pool_id, COUNT(*), MIN(queued_at) FROM tasks
         WHERE state IN {queued_tasks} AND pool_id",
        pools,
        "GROUP BY pool_id",
    )
    .await
}

/// How many tasks were offered to an agent after `since` and are not claimed.
pub(crate) async fn count_offered(
    db: &mut Connection,
    agent_id: &str,
    since: Millis,
) -> sqlx::Result<i64> {
    sqlx::query_scalar(statement(
        "SELECT COUNT(*) FROM tasks
         WHERE agent_id = $1 AND state IN {offered_tasks} AND offered_at > $2",
    ))
    .bind(agent_id)
    .bind(since)
    .fetch_one(db)
    .await
}

/// How many more tasks the agents of a pool may be offered; none: its runs are not limited.
pub(crate) async fn room_in_pool(db: &mut Connection, pool_id: &str) -> sqlx::Result<Option<i64>> {
    sqlx::query_scalar(statement(
        "SELECT p.max_concurrency - (SELECT COUNT(*) FROM tasks t
                                     WHERE t.pool_id = p.id AND t.state IN {tasks_of_agents})
         FROM agent_pools p WHERE p.id = $1",
    ))
    .bind(pool_id)
    .fetch_optional(db)
    .await
    .map(Option::flatten)
}

/// The tasks that an agent was offered or has.
pub(crate) async fn of_agent(db: &mut Connection, agent_id: &str) -> sqlx::Result<Vec<Task>> {
    of_agents(db, &[agent_id]).await
}

/// The tasks that these agents were offered or have.
pub(crate) async fn of_agents(db: &mut Connection, agents: &[&str]) -> sqlx::Result<Vec<Task>> {
    // Not by ended_at: every poll asks this, and an agent has an index by state,
    // but thousands of ended tasks.
    super::of_any(
        db,
        "SELECT * FROM tasks
         WHERE state IN {tasks_of_agents} AND agent_id",
        agents,
        "ORDER BY id",
    )
    .await
}

/// A task as the pages of pools and agents show it.
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct Work {
    /// The agent that has it.
    pub agent_id: String,
    /// Its run.
    pub run_id: String,
    /// The run's workspace.
    pub workspace_id: String,
    /// The workspace's name.
    pub workspace: String,
    /// What it is.
    pub phase: Phase,
    /// How far it is.
    pub state: State,
    /// When its container was started.
    pub started_at: Option<Millis>,
    /// When it ended.
    pub ended_at: Option<Millis>,
}

/// What the agents of a pool have, oldest first.
pub(crate) async fn work_of_pool(db: &mut Connection, pool_id: &str) -> sqlx::Result<Vec<Work>> {
    sqlx::query_as(statement(
        "SELECT t.agent_id, t.run_id, r.workspace_id, w.name AS workspace, t.phase, t.state,
                t.started_at, t.ended_at
         FROM tasks t
         JOIN runs r ON r.id = t.run_id
         JOIN workspaces w ON w.id = r.workspace_id
         WHERE t.pool_id = $1 AND t.agent_id IS NOT NULL
           AND t.state IN {tasks_of_agents}
         ORDER BY t.created_at, t.id",
    ))
    .bind(pool_id)
    .fetch_all(db)
    .await
}

/// What an agent has and had, newest first.
pub(crate) async fn work_of_agent(
    db: &mut Connection,
    agent_id: &str,
    limit: i64,
) -> sqlx::Result<Vec<Work>> {
    sqlx::query_as(
        "SELECT t.agent_id, t.run_id, r.workspace_id, w.name AS workspace, t.phase, t.state,
                t.started_at, t.ended_at
         FROM tasks t
         JOIN runs r ON r.id = t.run_id
         JOIN workspaces w ON w.id = r.workspace_id
         WHERE t.agent_id = $1
         ORDER BY t.created_at DESC, t.id LIMIT $2",
    )
    .bind(agent_id)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The tasks whose lease has expired.
pub(crate) async fn expired(db: &mut Connection, now: Millis) -> sqlx::Result<Vec<Task>> {
    sqlx::query_as("SELECT * FROM tasks WHERE lease_expires_at <= $1 ORDER BY lease_expires_at")
        .bind(now)
        .fetch_all(db)
        .await
}

/// The tasks that run although their agents should have ended them.
pub(crate) async fn overdue(db: &mut Connection, now: Millis) -> sqlx::Result<Vec<Task>> {
    sqlx::query_as(statement(
        "SELECT * FROM tasks WHERE state IN {running_tasks} AND overdue_at <= $1 ORDER BY id",
    ))
    .bind(now)
    .fetch_all(db)
    .await
}

/// Makes no task overdue before `time`.
pub(crate) async fn delay_overdue(db: &mut Connection, time: Millis) -> sqlx::Result<()> {
    sqlx::query(statement(
        "UPDATE tasks SET overdue_at = $1 WHERE state IN {running_tasks} AND overdue_at < $1",
    ))
    .bind(time)
    .execute(db)
    .await
    .map(drop)
}

/// Gives every lease a new end.
pub(crate) async fn extend_all(db: &mut Connection, lease_expires_at: Millis) -> sqlx::Result<u64> {
    sqlx::query("UPDATE tasks SET lease_expires_at = $1 WHERE lease_expires_at IS NOT NULL")
        .bind(lease_expires_at)
        .execute(db)
        .await
        .map(|done| done.rows_affected())
}

/// Brings what happened later than `now`, by a clock that was set back since, to
/// `now`.
pub(crate) async fn forget_future(db: &mut Connection, now: Millis) -> sqlx::Result<()> {
    sqlx::query("UPDATE tasks SET offered_at = $1 WHERE offered_at > $1")
        .bind(now)
        .execute(&mut *db)
        .await?;
    sqlx::query("UPDATE claims SET cancel_told_at = $1 WHERE cancel_told_at > $1")
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// An attempt that an agent took.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Claim {
    /// The task.
    pub task_id: String,
    /// The attempt.
    pub attempt: i64,
    /// Who took it; none in an old claim.
    pub agent_id: Option<String>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// When it was taken.
    pub claimed_at: Millis,
    /// The SHA-256 of the secret of its agent's token.
    pub secret_hash: String,
    /// The SHA-256 of the secret of its run's token; none in an old claim.
    pub run_secret_hash: Option<String>,
    /// When the agent was last told to interrupt it.
    pub cancel_told_at: Option<Millis>,
    /// Why its agent did not end it: what follows the agent's name in a sentence.
    pub lost_because: Option<String>,
}

/// Writes a claim, in the place of an earlier one of the same attempt.
pub(crate) async fn upsert_claim(db: &mut Connection, claim: &Claim) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO claims
            (task_id, attempt, secret_hash, run_secret_hash, claimed_at, agent_id, agent_name)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (task_id, attempt) DO UPDATE SET
            secret_hash = excluded.secret_hash, run_secret_hash = excluded.run_secret_hash,
            claimed_at = excluded.claimed_at",
    )
    .bind(&claim.task_id)
    .bind(claim.attempt)
    .bind(&claim.secret_hash)
    .bind(&claim.run_secret_hash)
    .bind(claim.claimed_at)
    .bind(&claim.agent_id)
    .bind(&claim.agent_name)
    .execute(db)
    .await
    .map(drop)
}

/// Remembers why the agent of an attempt did not end it.
pub(crate) async fn set_lost(db: &mut Connection, task: &Task, because: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE claims SET lost_because = $3 WHERE task_id = $1 AND attempt = $2")
        .bind(&task.id)
        .bind(task.attempt)
        .bind(because)
        .execute(db)
        .await
        .map(drop)
}

/// The claims on the attempts at a task that their agents did not end, by attempt.
pub(crate) async fn lost_claims(db: &mut Connection, task_id: &str) -> sqlx::Result<Vec<Claim>> {
    sqlx::query_as(
        "SELECT * FROM claims WHERE task_id = $1 AND lost_because IS NOT NULL ORDER BY attempt",
    )
    .bind(task_id)
    .fetch_all(db)
    .await
}

/// The claim on an attempt.
pub(crate) async fn find_claim(
    db: &mut Connection,
    task_id: &str,
    attempt: i64,
) -> sqlx::Result<Option<Claim>> {
    sqlx::query_as("SELECT * FROM claims WHERE task_id = $1 AND attempt = $2")
        .bind(task_id)
        .bind(attempt)
        .fetch_optional(db)
        .await
}

/// Remembers that an agent was told to interrupt an attempt.
pub(crate) async fn set_cancel_told(
    db: &mut Connection,
    claim: &Claim,
    now: Millis,
) -> sqlx::Result<()> {
    sqlx::query("UPDATE claims SET cancel_told_at = $3 WHERE task_id = $1 AND attempt = $2")
        .bind(&claim.task_id)
        .bind(claim.attempt)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}
