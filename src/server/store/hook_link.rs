//! Which environments' runs execute which hooks, and where.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;
use protocol::{EnvironmentHook, Hook};

/// A hook that the runs of an environment execute.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct HookLink {
    /// `hel-…`.
    pub id: String,
    /// The hook.
    pub hook_id: String,
    /// The environment; a hook has one link with it.
    pub environment_id: String,
    /// Where the hook runs.
    #[sqlx(try_from = "String")]
    pub events: HookEvents,
    /// When it was made.
    pub created_at: Millis,
}

/// Where a hook runs, each place once; kept as a JSON list.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct HookEvents(pub Vec<Hook>);

impl HookEvents {
    /// The names of the events.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(|event| event.name()).collect()
    }

    fn to_json(&self) -> String {
        serde_json::to_string(self).expect("names have a form in JSON")
    }
}

impl TryFrom<String> for HookEvents {
    type Error = serde_json::Error;

    fn try_from(json: String) -> Result<Self, Self::Error> {
        serde_json::from_str(&json)
    }
}

/// Which links.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// Of this hook.
    pub hook: Option<&'a str>,
    /// Of this environment.
    pub environment: Option<&'a str>,
    /// With this event.
    pub event: Option<Hook>,
}

/// A pattern of the lists of events that have this one.
pub(super) fn with_event(event: Hook) -> String {
    format!("%\"{}\"%", event.name())
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("created-at", "t.created_at")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id"];

/// Writes a new link.
pub(crate) async fn insert(db: &mut Connection, new: &HookLink) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO hook_environment_links (id, hook_id, environment_id, events, created_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&new.id)
    .bind(&new.hook_id)
    .bind(&new.environment_id)
    .bind(new.events.to_json())
    .bind(new.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes the events of a link.
pub(crate) async fn update(db: &mut Connection, changed: &HookLink) -> sqlx::Result<()> {
    sqlx::query("UPDATE hook_environment_links SET events = $2 WHERE id = $1")
        .bind(&changed.id)
        .bind(changed.events.to_json())
        .execute(db)
        .await
        .map(drop)
}

/// Deletes a link.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM hook_environment_links WHERE id = $1")
        .bind(id)
        .execute(db)
        .await
        .map(drop)
}

/// The link with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<HookLink>> {
    sqlx::query_as("SELECT * FROM hook_environment_links WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// A page of them, oldest first.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<HookLink>> {
    let event = filter.event.map(with_event);
    super::list(
        db,
        "FROM hook_environment_links t WHERE ($1 IS NULL OR t.id = $1)
           AND ($2 IS NULL OR t.hook_id = $2) AND ($3 IS NULL OR t.environment_id = $3)
           AND ($4 IS NULL OR t.events LIKE $4)",
        "t.created_at, t.id",
        &[filter.id, filter.hook, filter.environment, event.as_deref()],
        view.into(),
    )
    .await
}

/// The links of these hooks with the names of their environments, in the order of these.
pub(crate) async fn of_hooks(db: &mut Connection, hooks: &[&str]) -> sqlx::Result<Vec<NamedLink>> {
    super::of_any(
        db,
        "SELECT l.id, l.hook_id, l.environment_id, e.name AS environment, l.events
         FROM hook_environment_links l JOIN environments e ON e.id = l.environment_id
         WHERE l.hook_id",
        hooks,
        "ORDER BY e.name, l.id",
    )
    .await
}

/// A link with the name of its environment.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct NamedLink {
    /// The link's id.
    pub id: String,
    /// The hook.
    pub hook_id: String,
    /// The environment's id.
    pub environment_id: String,
    /// The environment's name.
    pub environment: String,
    /// Where the hook runs.
    #[sqlx(try_from = "String")]
    pub events: HookEvents,
}

/// How many hooks an environment has.
pub(crate) async fn count(db: &mut Connection, environment_id: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT COUNT(*) FROM hook_environment_links WHERE environment_id = $1")
        .bind(environment_id)
        .fetch_one(db)
        .await
}

/// Whether a run has an environment with hooks.
pub(crate) async fn are_executed_by(db: &mut Connection, run_id: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (
            SELECT 1 FROM runs r JOIN workspaces w ON w.id = r.workspace_id
            JOIN hook_environment_links l ON l.environment_id = w.environment_id
            WHERE r.id = $1)",
    )
    .bind(run_id)
    .fetch_one(db)
    .await
}

/// What the runs of an environment execute, in the order of the hooks' names.
pub(crate) async fn of_environment(
    db: &mut Connection,
    environment_id: &str,
) -> sqlx::Result<Vec<EnvironmentHook>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT h.name, h.interpreter, h.script, l.events
         FROM hook_environment_links l JOIN hooks h ON h.id = l.hook_id
         WHERE l.environment_id = $1 ORDER BY h.name, h.id",
    )
    .bind(environment_id)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(EnvironmentHook::from).collect())
}

#[derive(FromRow)]
struct Row {
    name: String,
    interpreter: String,
    script: String,
    #[sqlx(try_from = "String")]
    events: HookEvents,
}

impl From<Row> for EnvironmentHook {
    fn from(row: Row) -> Self {
        let Row { name, interpreter, script, events: HookEvents(events) } = row;
        Self { name, interpreter, script, events }
    }
}
