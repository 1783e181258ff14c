//! What happened to runs, and who did it.

use serde::Serialize;
use sqlx::FromRow;

use super::{Connection, Listed, Sorts, View};
use crate::clock::Millis;

/// Something that happened to a run.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct RunEvent {
    /// `re-…`.
    pub id: String,
    /// Its run.
    pub run_id: String,
    /// The status that the run got, or [`COMMENTED`].
    pub action: String,
    /// Who did it.
    #[sqlx(flatten)]
    pub actor: Actor,
    /// What was said about it.
    pub comment: Option<String>,
    /// When it happened.
    pub created_at: Millis,
}

/// The action of an event that is no more than a comment.
pub(crate) const COMMENTED: &str = "commented";

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct Actor {
    /// What it is.
    #[sqlx(rename = "actor_kind")]
    pub kind: ActorKind,
    /// The id of a token, a session or an agent.
    #[sqlx(rename = "actor_id")]
    pub id: Option<String>,
    /// The name of a token or an agent, or of who is signed in.
    #[sqlx(rename = "actor_name")]
    pub name: Option<String>,
}

/// What can do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "kebab-case")]
#[sqlx(rename_all = "kebab-case")]
pub(crate) enum ActorKind {
    /// Somebody with an admin's token.
    AccessToken,
    /// An administrator of the server's host, who needs no token.
    LocalAdmin,
    /// Somebody who is signed in to the server's pages.
    Session,
    /// An agent.
    Agent,
    /// The server itself.
    Server,
}

impl Default for Actor {
    fn default() -> Self {
        Self::SERVER
    }
}

impl Actor {
    pub(crate) const SERVER: Self = Self { kind: ActorKind::Server, id: None, name: None };
    pub(crate) const LOCAL_ADMIN: Self = Self { kind: ActorKind::LocalAdmin, id: None, name: None };

    pub(crate) fn access_token(id: &str, name: Option<&str>) -> Self {
        let name = name.map(str::to_owned);
        Self { kind: ActorKind::AccessToken, id: Some(id.to_owned()), name }
    }

    pub(crate) fn session(id: &str, name: &str) -> Self {
        Self { kind: ActorKind::Session, id: Some(id.to_owned()), name: Some(name.to_owned()) }
    }

    pub(crate) fn agent(id: &str, name: Option<&str>) -> Self {
        let name = name.map(str::to_owned);
        Self { kind: ActorKind::Agent, id: Some(id.to_owned()), name }
    }
}

/// What a list of them can be sorted by.
pub(crate) const SORTS: Sorts = &[("action", "t.action"), ("created-at", "t.number")];

/// Where a text is looked for in a list of them.
pub(crate) const SEARCHED: &[&str] = &["t.id", "t.comment"];

/// Writes an event, after the others of its run.
pub(crate) async fn insert(db: &mut Connection, event: &RunEvent) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO run_events
            (id, run_id, number, action, actor_kind, actor_id, actor_name, comment, created_at)
         VALUES ($1, $2, (SELECT COUNT(*) FROM run_events WHERE run_id = $2), $3, $4, $5, $6, $7,
                 $8)",
    )
    .bind(&event.id)
    .bind(&event.run_id)
    .bind(&event.action)
    .bind(event.actor.kind)
    .bind(&event.actor.id)
    .bind(&event.actor.name)
    .bind(&event.comment)
    .bind(event.created_at)
    .execute(db)
    .await
    .map(drop)
}

/// How many events with this action a run has.
pub(crate) async fn count(db: &mut Connection, run_id: &str, action: &str) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT COUNT(*) FROM run_events WHERE run_id = $1 AND action = $2")
        .bind(run_id)
        .bind(action)
        .fetch_one(db)
        .await
}

/// A page of the events of a run with this action, or of all, oldest first.
pub(crate) async fn list(
    db: &mut Connection,
    run_id: &str,
    action: Option<&str>,
    view: View<'_>,
) -> sqlx::Result<Listed<RunEvent>> {
    super::list(
        db,
        "FROM run_events t WHERE t.run_id = $1 AND ($2 IS NULL OR t.action = $2)",
        "t.number",
        &[Some(run_id), action],
        view,
    )
    .await
}
