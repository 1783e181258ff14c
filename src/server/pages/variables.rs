//! `/workspaces/ID/variables`: a workspace's own variables, and those that it inherits. The value
//! of a sensitive one can be replaced, never seen.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::{Value, json};

use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::session::{self, Session};
use super::workspace;
use crate::api::pools::{CallError, call};
use crate::app::App;
use crate::inherited_variables::resolve;
use crate::store::Connection;
use crate::store::variable::{self, Category, Scope};

/// The largest page of the API.
const SIZE: usize = 100;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/workspaces/{id}/variables", get(show).post(create))
        .route("/workspaces/{id}/variables/{variable}", post(update))
        .route("/workspaces/{id}/variables/{variable}/delete", post(delete))
}

async fn show(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    page(&app, &session, &id, None).await
}

async fn page(
    app: &App,
    session: &Session,
    id: &str,
    refusal: Option<&str>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let top = workspace::top(app, &mut db, id).await?;
    let inherited = inherited(&mut db, id).await?;
    drop(db);
    let variables = variables(app, session, id).await?;
    let content = json!({
        "tab": "variables",
        "workspace": top,
        "variables": variables,
        "inherited": inherited,
        "refusal": refusal,
    });
    let title = format!("Variables · {}", top.name);
    let page = Page {
        template: "variables.html",
        title: &title,
        section: "workspaces",
        // Those that it inherits are no part of it.
        topics: &[&format!("workspace:{id}"), "variables"],
    };
    let status = if refusal.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    page.show_with(status, app, session, &content)
}

/// All of them, as the API shows them.
async fn variables(
    app: &App,
    session: &Session,
    workspace_id: &str,
) -> Result<Vec<Value>, PageError> {
    let mut all = Vec::new();
    for number in 1.. {
        let path = format!(
            "/vars?filter[workspace]={workspace_id}&page[size]={SIZE}&page[number]={number}"
        );
        let document = call(app, session.actor(), Method::GET, &path, "").await?;
        let rows = document["data"].as_array().cloned().unwrap_or_default();
        let is_last = rows.len() < SIZE;
        all.extend(rows);
        if is_last {
            break;
        }
    }
    Ok(all)
}

/// Variables of a wider scope, as the page shows them.
#[derive(Serialize)]
struct InheritedRow {
    key: String,
    category: Category,
    scope: Scope,
    /// The tag that brings it to the workspace.
    by_tag: Option<String>,
    /// None: it is sensitive.
    value: Option<String>,
    hcl: bool,
    is_final: bool,
    description: Option<String>,
    /// Whether runs get it, and no other one with its key.
    is_used: bool,
}

async fn inherited(
    db: &mut Connection,
    workspace_id: &str,
) -> Result<Vec<InheritedRow>, PageError> {
    let mut rows = Vec::new();
    for resolved in resolve(variable::reaching(db, workspace_id).await?) {
        let overridden = resolved.overridden.into_iter().map(|variable| (variable, false));
        for (variable, is_used) in overridden.chain([(resolved.winner, true)]) {
            if variable.scope() < Scope::Workspace {
                rows.push(InheritedRow {
                    scope: variable.scope(),
                    by_tag: variable.tag,
                    value: (!variable.sensitive).then(|| variable.value.0.expose().to_owned()),
                    key: variable.key,
                    category: variable.category,
                    hcl: variable.hcl,
                    is_final: variable.is_final,
                    description: variable.description,
                    is_used,
                });
            }
        }
    }
    Ok(rows)
}

async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let mut attributes = attributes(&form.fields);
    attributes["value"] = form.fields.raw("value").into();
    attributes["category"] = form.fields.get("category").into();
    let document = json!({ "data": {
        "type": "vars",
        "attributes": attributes,
        "relationships": { "workspace": { "data": { "type": "workspaces", "id": id } } },
    } });
    let made = call(&app, form.session.actor(), Method::POST, "/vars", document.to_string()).await;
    answer(&app, &form.session, &id, made, "Variable created.").await
}

async fn update(
    State(app): State<App>,
    Path((id, variable)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let mut attributes = attributes(&form.fields);
    // The form of a sensitive one has no value: an empty field leaves it as it is.
    let value = form.fields.raw("value");
    if !value.is_empty() || form.fields.has("value-is-shown") {
        attributes["value"] = value.into();
    }
    let document = json!({ "data": { "type": "vars", "attributes": attributes } });
    let path = format!("/vars/{variable}");
    let changed =
        call(&app, form.session.actor(), Method::PATCH, &path, document.to_string()).await;
    answer(&app, &form.session, &id, changed, "Variable saved.").await
}

async fn delete(
    State(app): State<App>,
    Path((id, variable)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let deleted =
        call(&app, form.session.actor(), Method::DELETE, &format!("/vars/{variable}"), "").await;
    answer(&app, &form.session, &id, deleted, "Variable deleted.").await
}

fn attributes(fields: &Fields) -> Value {
    json!({
        "key": fields.get("key"),
        "description": fields.get("description"),
        "hcl": fields.has("hcl"),
        "sensitive": fields.has("sensitive"),
    })
}

async fn answer(
    app: &App,
    session: &Session,
    id: &str,
    result: Result<Value, CallError>,
    done: &str,
) -> Result<Response, PageError> {
    match result {
        Ok(_) => {
            let message = session::message(done, app);
            Ok(frame::redirect(&format!("/workspaces/{id}/variables"), message))
        }
        Err(CallError::Refused(why)) => page(app, session, id, Some(&why)).await,
        Err(error) => Err(error.into()),
    }
}
