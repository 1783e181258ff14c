//! What happened to a run and who did it, and comments.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{FromRequest, Path, Request, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::runs::known;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::scheduler::Decision;
use crate::store::run_event::{self, Actor, COMMENTED, RunEvent};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/runs/{id}/run-events", "List the events of a run", list)
        .get("/runs/{id}/comments", "List the comments on a run", list_comments)
        .post("/runs/{id}/comments", "Comment on a run", comment)
}

async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    page(&app, &id, &query, None).await
}

async fn list_comments(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    page(&app, &id, &query, Some(COMMENTED)).await
}

async fn page(
    app: &App,
    run_id: &str,
    query: &ListQuery,
    action: Option<&str>,
) -> Result<Document, ApiError> {
    known(app, run_id).await?;
    let mut db = app.scheduler.store.read().await?;
    let listed = run_event::list(&mut db, run_id, action, query.view()).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

async fn comment(
    State(app): State<App>,
    Path(id): Path<String>,
    Extension(actor): Extension<Actor>,
    payload: Payload,
) -> Result<Document, ApiError> {
    known(&app, &id).await?;
    let comment = Some(payload.required("body")?);
    let event = app.scheduler.comment(&id, Decision { actor, comment }).await?;
    Ok(Document::created(render(&event)))
}

fn render(event: &RunEvent) -> Value {
    let Actor { kind, id, name } = &event.actor;
    json!({
        "type": if event.action == COMMENTED { "comments" } else { "run-events" },
        "id": event.id,
        "attributes": {
            "action": event.action,
            "body": event.comment,
            "actor": { "kind": kind, "id": id, "name": name },
            "created-at": rfc3339(event.created_at),
        },
        "relationships": { "run": to_one("runs", Some(&event.run_id)) },
    })
}

/// Who asks for something, and the comment in the body: `{"comment": "…"}`, or no body.
pub(in crate::api) struct Decided(pub Decision);

impl FromRequest<App> for Decided {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Body {
            comment: Option<String>,
        }
        let actor = request.extensions().get::<Actor>().cloned();
        let body = Bytes::from_request(request, app).await?;
        let comment = match body.is_empty() {
            true => None,
            false => {
                let body: Body = serde_json::from_slice(&body).map_err(|_| {
                    ApiError::bad_request("The body is neither empty nor {\"comment\": \"…\"}.")
                })?;
                body.comment.filter(|comment| !comment.is_empty())
            }
        };
        Ok(Self(Decision { actor: actor.unwrap_or_default(), comment }))
    }
}
