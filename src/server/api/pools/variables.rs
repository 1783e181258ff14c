//! Variables of workspaces. The value of a sensitive one never comes back.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::workspaces;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::variable::{self, Category, Filter, Variable};
use crate::store::{Connection, is_taken};
use crate::token::new_id;
use protocol::Secret;
use protocol::limits::{MAX_KEY, MAX_VALUES, MAX_VARIABLES};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/vars", get(list).post(create))
        .route("/vars/{id}", get(read).patch(update).delete(delete))
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("var"),
        workspace: query.filter("workspace"),
        key: query.filter("key"),
        category: query.filter("category"),
    };
    let listed = variable::list(&mut db, filter, query.view()).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let workspace = workspaces::related(&mut tx, &payload).await?;
    let mut variable = Variable {
        id: new_id("var"),
        workspace_id: workspace.id,
        key: payload.required("key")?,
        value: variable::Value::default(),
        category: payload.required("category")?,
        hcl: false,
        sensitive: false,
        description: None,
        created_at: app.scheduler.clock.now(),
    };
    change(&mut variable, &payload)?;
    variable::insert(&mut tx, &variable).await.map_err(key_taken)?;
    check_all(&mut tx, &variable).await?;
    tx.commit().await?;
    Ok(Document::created(render(&variable)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut variable = find(&mut tx, &id).await?;
    change(&mut variable, &payload)?;
    variable::update(&mut tx, &variable).await.map_err(key_taken)?;
    check_all(&mut tx, &variable).await?;
    tx.commit().await?;
    Ok(Document::of(render(&variable)))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    variable::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(db: &mut Connection, id: &str) -> Result<Variable, ApiError> {
    variable::find(db, id).await?.ok_or_else(|| ApiError::not_found("Variable", id))
}

fn change(variable: &mut Variable, payload: &Payload) -> Result<(), ApiError> {
    let value = payload.change::<String>("value")?;
    if let Some(sensitive) = payload.attribute::<bool>("sensitive")? {
        if variable.sensitive && !sensitive && value.is_none() {
            return Err(ApiError::attribute(
                "sensitive",
                "A sensitive variable can be made a plain one only together with a new value.",
            ));
        }
        variable.sensitive = sensitive;
    }
    if let Some(value) = value {
        variable.value = variable::Value(Secret::new(value.unwrap_or_default()));
    }
    if let Some(key) = payload.attribute("key")? {
        variable.key = key;
    }
    if let Some(category) = payload.attribute("category")? {
        variable.category = category;
    }
    if let Some(hcl) = payload.attribute("hcl")? {
        variable.hcl = hcl;
    }
    if let Some(description) = payload.text("description")? {
        variable.description = description;
    }
    check(variable)
}

/// The most bytes of `KEY=VALUE` that Linux passes to a program (`MAX_ARG_STRLEN`,
/// less the NUL at its end).
const LONGEST_SHELL_VARIABLE: usize = 128 * 1024 - 1;

/// Checks that a run can be given the variable.
fn check(variable: &Variable) -> Result<(), ApiError> {
    let key = &variable.key;
    let starts = |c: char| c.is_ascii_alphabetic() || c == '_';
    let goes_on = |c: char| {
        starts(c) || c.is_ascii_digit() || (c == '-' && variable.category == Category::Terraform)
    };
    if key.len() > MAX_KEY {
        let detail = format!("This field takes at most {MAX_KEY} bytes.");
        return Err(ApiError::attribute("key", detail));
    }
    if !key.starts_with(starts) || !key.chars().all(goes_on) {
        return Err(ApiError::attribute(
            "key",
            "This field takes letters, digits and underscores (and dashes in a Terraform \
             variable), and starts with a letter or an underscore.",
        ));
    }
    if variable.hcl && variable.category == Category::Shell {
        return Err(ApiError::attribute(
            "hcl",
            "Only the value of a Terraform variable can be HCL.",
        ));
    }
    if variable.value.0.expose().contains('\0') {
        return Err(ApiError::attribute("value", "This field takes no NUL characters."));
    }
    if variable.category == Category::Shell {
        if key == "_" {
            return Err(ApiError::attribute("key", "Shells use the variable _ themselves."));
        }
        let most = LONGEST_SHELL_VARIABLE.saturating_sub(key.len() + 1);
        if variable.value.0.expose().len() > most {
            return Err(ApiError::attribute(
                "value",
                format!(
                    "The value of this shell variable takes at most {most} bytes: Linux passes no longer one to a program."
                ),
            ));
        }
    }
    Ok(())
}

/// Checks that an agent accepts all variables of the workspace, `changed` among them.
async fn check_all(db: &mut Connection, changed: &Variable) -> Result<(), ApiError> {
    let variables = variable::of_workspace(db, &changed.workspace_id).await?;
    if variables.len() > MAX_VARIABLES {
        let detail = format!("A workspace has at most {MAX_VARIABLES} variables.");
        return Err(ApiError::relationship("workspace", detail));
    }
    let values: usize = variables.iter().map(|variable| variable.value.0.expose().len()).sum();
    if values > MAX_VALUES {
        let detail = format!(
            "The values of all variables of a workspace together have at most {MAX_VALUES} bytes; with this one they have {values}."
        );
        return Err(ApiError::attribute("value", detail));
    }
    Ok(())
}

fn key_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("key", "The workspace has a variable with this key already."),
        false => error.into(),
    }
}

fn render(variable: &Variable) -> Value {
    let value = (!variable.sensitive).then(|| variable.value.0.expose());
    json!({
        "type": "vars",
        "id": variable.id,
        "attributes": {
            "key": variable.key,
            "value": value,
            "category": variable.category,
            "hcl": variable.hcl,
            "sensitive": variable.sensitive,
            "description": variable.description,
            "created-at": rfc3339(variable.created_at),
        },
        "relationships": { "workspace": to_one("workspaces", Some(&variable.workspace_id)) },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use serde_json::json;

    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_workspace_takes_no_more_values_than_an_agent_accepts() {
        let server = InProcess::new().await;
        let workspace = json!({ "data": { "type": "workspaces", "id": server.workspace } });
        let create = async |key: &str, value: String| {
            let attributes = json!({ "key": key, "value": value, "category": "terraform" });
            let data =
                json!({ "attributes": attributes, "relationships": { "workspace": workspace } });
            let body = json!({ "data": data }).to_string();
            let path = "/api/iacp/v3/vars";
            server.call(Method::POST, path, &server.admin, &[], body).await
        };
        for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            assert_eq!(create(key, "x".repeat(512 * 1024)).await.0, StatusCode::CREATED);
        }
        let (status, answer) = create("i", "x".to_owned()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        assert!(String::from_utf8_lossy(&answer).contains("4194304 bytes"), "{answer:?}");
        let (status, _) = create(&"k".repeat(300), String::new()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let listed = server.api(Method::GET, "/vars", json!(null)).await;
        assert_eq!(listed["meta"]["pagination"]["total-count"], 8);
    }
}
