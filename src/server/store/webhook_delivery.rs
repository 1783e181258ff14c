//! The calls of webhooks for what happened to runs and agents: those to be made, and what became
//! of those that were.

use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{FromRow, Row as _};

use super::agent::Health;
use super::run::Source;
use super::webhook::Webhook;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// A call.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct WebhookDelivery {
    /// `wd-…`.
    pub id: String,
    /// Its webhook.
    pub integration_id: String,
    /// What something happened to.
    #[sqlx(flatten)]
    pub subject: Subject,
    /// What happened.
    pub event: String,
    /// When that was.
    pub happened_at: Millis,
    /// When the call was to be made: later, where somebody asks for it again.
    pub created_at: Millis,
    /// How often it was tried.
    pub attempts: i64,
    /// When it is tried next; none: never again.
    pub next_at: Option<Millis>,
    /// Whether it was answered with 2xx.
    pub delivered: bool,
    /// When it was last tried.
    pub attempted_at: Option<Millis>,
    /// How long that took, in milliseconds.
    pub duration: Option<i64>,
    /// The status of the answer.
    pub answer_status: Option<i64>,
    /// The beginning of the answer, or why there was none.
    pub answer: Option<String>,
}

/// What something happened to.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// A run.
    Run {
        /// The run's id.
        id: String,
        /// The status that it got.
        status: String,
    },
    /// An agent.
    Agent(AgentThen),
}

/// An agent as it was when something happened to it: it may be forgotten before the call is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AgentThen {
    /// `agent-…`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it had become.
    pub health: Health,
    /// Whether it took its leave, as one whose machine is shut down does.
    pub left: bool,
    /// What it said is wrong.
    pub error: Option<String>,
    /// When it was last seen.
    pub last_seen_at: Millis,
    /// Its pool.
    pub pool_id: String,
    /// Its pool's name.
    pub pool_name: String,
}

impl FromRow<'_, SqliteRow> for Subject {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        let Some(agent) = row.try_get::<Option<String>, _>("agent")? else {
            return Ok(Self::Run {
                id: row.try_get("run_id")?,
                status: row.try_get("run_status")?,
            });
        };
        let agent = serde_json::from_str(&agent);
        agent.map(Self::Agent).map_err(|error| sqlx::Error::ColumnDecode {
            index: "agent".to_owned(),
            source: Box::new(error),
        })
    }
}

/// A call that is due, and how it is made.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct DueDelivery {
    /// The call.
    #[sqlx(flatten)]
    pub delivery: WebhookDelivery,
    /// Where it goes.
    #[sqlx(try_from = "String")]
    pub webhook: Webhook,
    /// The webhook's name.
    pub webhook_name: String,
    /// How long it may take, in seconds.
    pub timeout: i64,
    /// How often it is tried.
    pub max_attempts: i64,
}

/// What a call says about a run.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct CalledRun {
    /// The run's message.
    pub message: Option<String>,
    /// Where the run came from.
    pub source: Source,
    /// When the run was made.
    pub created_at: Millis,
    /// The run's workspace.
    pub workspace_id: String,
    /// Its name.
    pub workspace_name: String,
    /// The workspace's environment.
    pub environment_id: String,
    /// Its name.
    pub environment_name: String,
}

/// Which calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this webhook.
    pub integration: Option<&'a str>,
    /// For this run.
    pub run: Option<&'a str>,
    /// For this agent.
    pub agent: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("created-at", "t.created_at"), ("event", "t.event")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.event"];

/// Writes a call that is due at once.
pub(crate) async fn insert(db: &mut Connection, new: &WebhookDelivery) -> sqlx::Result<()> {
    let (run, status, agent) = match &new.subject {
        Subject::Run { id, status } => (Some(id), Some(status), None),
        Subject::Agent(agent) => (None, None, Some(agent.to_json())),
    };
    sqlx::query(
        "INSERT INTO webhook_deliveries
            (id, integration_id, run_id, run_status, agent, event, happened_at, created_at,
             attempts, next_at, delivered)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, FALSE)",
    )
    .bind(&new.id)
    .bind(&new.integration_id)
    .bind(run)
    .bind(status)
    .bind(agent)
    .bind(&new.event)
    .bind(new.happened_at)
    .bind(new.created_at)
    .bind(new.next_at)
    .execute(db)
    .await
    .map(drop)
}

/// The call with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<WebhookDelivery>> {
    sqlx::query_as("SELECT * FROM webhook_deliveries WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// A page of them, the newest first.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<WebhookDelivery>> {
    super::list(
        db,
        "FROM webhook_deliveries t WHERE ($1 IS NULL OR t.id = $1)
           AND ($2 IS NULL OR t.integration_id = $2) AND ($3 IS NULL OR t.run_id = $3)
           AND ($4 IS NULL OR json_extract(t.agent, '$.id') = $4)",
        "t.created_at DESC, t.id",
        &[filter.id, filter.integration, filter.run, filter.agent],
        view.into(),
    )
    .await
}

/// The newest call of each of these webhooks that has any.
pub(crate) async fn newest(
    db: &mut Connection,
    integrations: &[&str],
) -> sqlx::Result<Vec<WebhookDelivery>> {
    super::of_any(
        db,
        "SELECT d.* FROM webhook_integrations i
         JOIN webhook_deliveries d ON d.id = (
             SELECT id FROM webhook_deliveries WHERE integration_id = i.id
             ORDER BY created_at DESC, id LIMIT 1)
         WHERE i.id",
        integrations,
        "",
    )
    .await
}

/// How many calls of a webhook there are, and how many of them are still to be made.
pub(crate) async fn count(db: &mut Connection, integration: &str) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as(
        "SELECT COUNT(*), COUNT(next_at) FROM webhook_deliveries WHERE integration_id = $1",
    )
    .bind(integration)
    .fetch_one(db)
    .await
}

/// The calls that are due, at most `most` of each webhook, but for the webhooks in `busy`, a
/// list of ids in JSON; those of a webhook together, oldest first.
pub(crate) async fn due(
    db: &mut Connection,
    now: Millis,
    most: i64,
    busy: &str,
) -> sqlx::Result<Vec<DueDelivery>> {
    sqlx::query_as(
        "SELECT * FROM (
            SELECT d.*, i.webhook, i.name AS webhook_name, i.timeout, i.max_attempts,
               ROW_NUMBER() OVER (PARTITION BY i.id ORDER BY d.next_at, d.id) AS place
            FROM webhook_deliveries d
            JOIN webhook_integrations i ON i.id = d.integration_id
            WHERE d.next_at <= $1 AND i.enabled
              AND i.id NOT IN (SELECT value FROM json_each($3))) AS calls
         WHERE place <= $2 ORDER BY integration_id, place",
    )
    .bind(now)
    .bind(most)
    .bind(busy)
    .fetch_all(db)
    .await
}

/// What a call says about a run; none: the run is gone, and its calls with it.
pub(crate) async fn called_run(
    db: &mut Connection,
    run_id: &str,
) -> sqlx::Result<Option<CalledRun>> {
    sqlx::query_as(
        "SELECT r.message, r.source, r.created_at, r.workspace_id, w.name AS workspace_name,
            w.environment_id, e.name AS environment_name
         FROM runs r JOIN workspaces w ON w.id = r.workspace_id
         JOIN environments e ON e.id = w.environment_id
         WHERE r.id = $1",
    )
    .bind(run_id)
    .fetch_optional(db)
    .await
}

/// Writes what became of an attempt.
pub(crate) async fn record(db: &mut Connection, tried: &WebhookDelivery) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE webhook_deliveries SET attempts = $2, next_at = $3, delivered = $4,
            attempted_at = $5, duration = $6, answer_status = $7, answer = $8
         WHERE id = $1",
    )
    .bind(&tried.id)
    .bind(tried.attempts)
    .bind(tried.next_at)
    .bind(tried.delivered)
    .bind(tried.attempted_at)
    .bind(tried.duration)
    .bind(tried.answer_status)
    .bind(&tried.answer)
    .execute(db)
    .await
    .map(drop)
}

/// Deletes the calls that are over and were made for what happened before `before`.
pub(crate) async fn delete_old(db: &mut Connection, before: Millis) -> sqlx::Result<u64> {
    sqlx::query("DELETE FROM webhook_deliveries WHERE created_at < $1 AND next_at IS NULL")
        .bind(before)
        .execute(db)
        .await
        .map(|done| done.rows_affected())
}

impl AgentThen {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts have a form in JSON")
    }
}

impl WebhookDelivery {
    /// `pending`, `delivered` or `failed`.
    pub(crate) fn state(&self) -> &'static str {
        match (self.delivered, self.next_at) {
            (true, _) => "delivered",
            (false, Some(_)) => "pending",
            (false, None) => "failed",
        }
    }

    /// The same call once more.
    pub(crate) fn again(self, id: String, now: Millis) -> Self {
        let Self { integration_id, subject, event, happened_at, .. } = self;
        Self { happened_at, ..Self::new(id, &integration_id, subject, &event, now) }
    }

    /// A call that is due now.
    pub(crate) fn new(
        id: String,
        integration_id: &str,
        subject: Subject,
        event: &str,
        now: Millis,
    ) -> Self {
        Self {
            id,
            integration_id: integration_id.to_owned(),
            subject,
            event: event.to_owned(),
            happened_at: now,
            created_at: now,
            attempts: 0,
            next_at: Some(now),
            delivered: false,
            attempted_at: None,
            duration: None,
            answer_status: None,
            answer: None,
        }
    }
}
