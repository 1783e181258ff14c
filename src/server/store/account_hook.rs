//! Hooks of the account: scripts that the runs of linked environments execute
//! ([`hook_link`]).

use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View, hook_link};
use crate::clock::Millis;
use protocol::Hook;

/// A hook.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct AccountHook {
    /// `hook-…`.
    pub id: String,
    /// Its account.
    pub account_id: String,
    /// Its name, unique in the account.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The program that reads the script.
    pub interpreter: String,
    /// The script.
    pub script: String,
    /// When it was made.
    pub created_at: Millis,
}

/// Which hooks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Filter<'a> {
    /// With this id.
    pub id: Option<&'a str>,
    /// With this name.
    pub name: Option<&'a str>,
    /// Linked to this environment.
    pub environment: Option<&'a str>,
    /// Of this account.
    pub account: Option<&'a str>,
    /// Linked with this event.
    pub event: Option<Hook>,
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("created-at", "t.created_at"), ("name", "t.name")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.name", "t.description"];

/// Writes a new hook.
pub(crate) async fn insert(db: &mut Connection, new: &AccountHook) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO hooks (id, account_id, name, description, interpreter, script, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&new.id)
    .bind(&new.account_id)
    .bind(&new.name)
    .bind(&new.description)
    .bind(&new.interpreter)
    .bind(&new.script)
    .bind(new.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// Writes what can change.
pub(crate) async fn update(db: &mut Connection, changed: &AccountHook) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE hooks SET name = $2, description = $3, interpreter = $4, script = $5
         WHERE id = $1",
    )
    .bind(&changed.id)
    .bind(&changed.name)
    .bind(&changed.description)
    .bind(&changed.interpreter)
    .bind(&changed.script)
    .execute(db)
    .await
    .map(drop)
}

/// Deletes a hook that no environment is linked to.
pub(crate) async fn delete(db: &mut Connection, id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM hooks WHERE id = $1").bind(id).execute(db).await.map(drop)
}

/// The hook with this id.
pub(crate) async fn find(db: &mut Connection, id: &str) -> sqlx::Result<Option<AccountHook>> {
    sqlx::query_as("SELECT * FROM hooks WHERE id = $1").bind(id).fetch_optional(db).await
}

/// The hooks with these ids.
pub(crate) async fn with_ids(db: &mut Connection, ids: &[&str]) -> sqlx::Result<Vec<AccountHook>> {
    super::of_any(db, "SELECT * FROM hooks WHERE id", ids, "").await
}

/// A page of them, by name.
pub(crate) async fn list(
    db: &mut Connection,
    filter: Filter<'_>,
    view: impl Into<View<'_>>,
) -> sqlx::Result<Listed<AccountHook>> {
    let event = filter.event.map(hook_link::with_event);
    super::list(
        db,
        "FROM hooks t WHERE ($1 IS NULL OR t.id = $1) AND ($2 IS NULL OR t.name = $2)
           AND ($3 IS NULL OR EXISTS (
               SELECT 1 FROM hook_environment_links l
               WHERE l.hook_id = t.id AND l.environment_id = $3))
           AND ($4 IS NULL OR t.account_id = $4)
           AND ($5 IS NULL OR EXISTS (
               SELECT 1 FROM hook_environment_links l
               WHERE l.hook_id = t.id AND l.events LIKE $5))",
        "t.name",
        &[filter.id, filter.name, filter.environment, filter.account, event.as_deref()],
        view.into(),
    )
    .await
}
