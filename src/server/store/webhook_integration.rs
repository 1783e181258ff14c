//! Webhooks that are called when something happens to runs and agents.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::agent::Health;
use super::run::{Run, Status};
use super::webhook::Webhook;
use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// A webhook.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct WebhookIntegration {
    /// `wh-…`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Its name, unique in the account.
    pub name: String,
    /// Whether it is called.
    pub enabled: bool,
    /// Whether it is for all environments.
    pub is_shared: bool,
    /// Where it is.
    #[sqlx(try_from = "String")]
    pub webhook: Webhook,
    /// How long a call may take, in seconds.
    pub timeout: i64,
    /// How often a call is tried.
    pub max_attempts: i64,
    /// What it is called for.
    #[sqlx(try_from = "String")]
    pub events: Events,
    /// When it was last called.
    pub last_triggered_at: Option<Millis>,
    /// When it was made.
    pub created_at: Millis,
}

/// Something that happens to runs or agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A run has done what it was for.
    #[serde(rename = "run:completed")]
    Completed,
    /// A run failed or was canceled.
    #[serde(rename = "run:errored")]
    Errored,
    /// A plan waits for a yes.
    #[serde(rename = "run:needs_attention")]
    NeedsAttention,
    /// An agent has left, or was not seen for too long.
    #[serde(rename = "agent:offline")]
    AgentOffline,
    /// An agent says that it can run nothing.
    #[serde(rename = "agent:errored")]
    AgentErrored,
    /// An agent that was offline or errored can have tasks again.
    #[serde(rename = "agent:online")]
    AgentOnline,
}

/// What a webhook is called for; kept as a JSON list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Events(pub Vec<Event>);

impl Events {
    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names have a form in JSON")
    }
}

impl TryFrom<String> for Events {
    type Error = serde_json::Error;

    fn try_from(json: String) -> Result<Self, Self::Error> {
        serde_json::from_str(&json)
    }
}

impl Event {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Completed,
        Self::Errored,
        Self::NeedsAttention,
        Self::AgentOffline,
        Self::AgentErrored,
        Self::AgentOnline,
    ];

    /// As clients know it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Completed => "run:completed",
            Self::Errored => "run:errored",
            Self::NeedsAttention => "run:needs_attention",
            Self::AgentOffline => "agent:offline",
            Self::AgentErrored => "agent:errored",
            Self::AgentOnline => "agent:online",
        }
    }

    /// What it means that a run has got its status.
    pub(crate) fn of(run: &Run) -> Option<Self> {
        match run.status {
            Status::Applied | Status::PlannedAndFinished => Some(Self::Completed),
            Status::Errored | Status::Canceled => Some(Self::Errored),
            Status::Planned if !run.auto_apply => Some(Self::NeedsAttention),
            _ => None,
        }
    }

    /// What it means that an agent has become so.
    pub(crate) fn of_agent(health: Health) -> Self {
        match health {
            Health::Online => Self::AgentOnline,
            Health::Offline => Self::AgentOffline,
            Health::Errored => Self::AgentErrored,
        }
    }
}

/// Which webhooks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
    /// For this environment.
    pub environment: Option<&'a str>,
    /// `true`: called; `false`: not.
    pub enabled: Option<&'a str>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[
    ("created-at", "t.created_at"),
    ("last-triggered-at", "t.last_triggered_at"),
    ("name", "t.name"),
];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name"];

/// Writes a new webhook.
pub(crate) async fn insert(db: &mut Connection, new: &WebhookIntegration) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO webhook_integrations
            (id, account_id, name, enabled, is_shared, webhook, timeout, max_attempts, events,
             created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(&new.id)
    .bind(&new.account_id)
    .bind(&new.name)
    .bind(new.enabled)
    .bind(new.is_shared)
    .bind(new.webhook.to_json())
    .bind(new.timeout)
    .bind(new.max_attempts)
    .bind(new.events.to_json())
    .bind(new.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, changed: &WebhookIntegration) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE webhook_integrations SET name = $2, enabled = $3, is_shared = $4, webhook = $5,
            timeout = $6, max_attempts = $7, events = $8
         WHERE id = $1",
    )
    .bind(&changed.id)
    .bind(&changed.name)
    .bind(changed.enabled)
    .bind(changed.is_shared)
    .bind(changed.webhook.to_json())
    .bind(changed.timeout)
    .bind(changed.max_attempts)
    .bind(changed.events.to_json())
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a webhook with its deliveries.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM webhook_integrations WHERE id = $1")
        .bind(id)
        .execute(db)
        .await
        .map(drop)
}

/// The webhook with this id.
pub(crate) async fn find(
    db: &mut Connection,
    id: &str,
) -> sqlx::Result<Option<WebhookIntegration>> {
    sqlx::query_as("SELECT * FROM webhook_integrations WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// The webhooks with these ids.
pub(crate) async fn with_ids(
    db: &mut Connection,
    ids: &[&str],
) -> sqlx::Result<Vec<WebhookIntegration>> {
    super::of_any(db, "SELECT * FROM webhook_integrations WHERE id", ids, "").await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<WebhookIntegration>> {
    super::list(
        db,
        "FROM webhook_integrations t WHERE ($1 IS NULL OR t.id = $1)
           AND ($2 IS NULL OR t.name = $2) AND ($3 IS NULL OR t.account_id = $3)
           AND ($4 IS NULL OR t.is_shared OR EXISTS (
               SELECT 1 FROM webhook_integration_environments e
               WHERE e.integration_id = t.id AND e.environment_id = $4))
           AND ($5 IS NULL OR t.enabled = ($5 = 'true'))",
        "t.name",
        &[filter.id, filter.name, filter.account, filter.environment, filter.enabled],
        view.into(),
    )
    .await
}

/// Those that are called for the runs of a workspace.
pub(crate) async fn of_workspace(
    db: &mut Connection,
    workspace_id: &str,
) -> sqlx::Result<Vec<WebhookIntegration>> {
    sqlx::query_as(
        "SELECT i.* FROM webhook_integrations i JOIN workspaces w ON w.id = $1
         WHERE i.enabled AND (i.is_shared OR EXISTS (
             SELECT 1 FROM webhook_integration_environments e
             WHERE e.integration_id = i.id AND e.environment_id = w.environment_id))
         ORDER BY i.id",
    )
    .bind(workspace_id)
    .fetch_all(db)
    .await
}

/// Those that are called for the agents of a pool: for all environments, or for one that may use
/// the pool.
pub(crate) async fn of_pool(
    db: &mut Connection,
    pool_id: &str,
) -> sqlx::Result<Vec<WebhookIntegration>> {
    sqlx::query_as(
        "SELECT i.* FROM webhook_integrations i JOIN agent_pools p ON p.id = $1
         WHERE i.enabled AND (i.is_shared OR EXISTS (
             SELECT 1 FROM webhook_integration_environments e
             WHERE e.integration_id = i.id AND (p.is_shared OR EXISTS (
                 SELECT 1 FROM pool_environments u
                 WHERE u.pool_id = p.id AND u.environment_id = e.environment_id))))
         ORDER BY i.id",
    )
    .bind(pool_id)
    .fetch_all(db)
    .await
}

/// Remembers a call.
pub(crate) async fn touch(db: &mut Connection, id: &str, now: Millis) -> sqlx::Result<()> {
    sqlx::query("UPDATE webhook_integrations SET last_triggered_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now)
        .execute(db)
        .await
        .map(drop)
}

/// These webhooks and the environments that they are for.
pub(crate) async fn environments_of(
    db: &mut Connection,
    ids: &[&str],
) -> sqlx::Result<Vec<(String, String)>> {
    super::of_any(
        db,
        "SELECT integration_id, environment_id FROM webhook_integration_environments
         WHERE integration_id",
        ids,
        "ORDER BY environment_id",
    )
    .await
}

/// Writes the environments that a webhook is for, in the place of those there were.
pub(crate) async fn set_environments(
    db: &mut Connection,
    id: &str,
    environments: &[String],
) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM webhook_integration_environments WHERE integration_id = $1")
        .bind(id)
        .execute(&mut *db)
        .await?;
    for environment in environments {
        sqlx::query(
            "INSERT INTO webhook_integration_environments (integration_id, environment_id)
             VALUES ($1, $2) ON CONFLICT (integration_id, environment_id) DO NOTHING",
        )
        .bind(id)
        .bind(environment)
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}
