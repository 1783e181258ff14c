//! Hooks of the account: scripts that the runs of linked environments execute.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::{hook_links, the_account};
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::account_hook::{self, AccountHook};
use crate::store::{Connection, hook_link, is_taken};
use crate::token::new_id;
use protocol::EnvironmentHook;
use protocol::limits::MAX_HOOK;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/hooks", "List hooks", list)
        .post("/hooks", "Create a hook", create)
        .get("/hooks/{id}", "Read a hook", read)
        .patch("/hooks/{id}", "Change a hook", update)
        .delete("/hooks/{id}", "Delete a hook that no environment is linked to", delete)
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let event = hook_links::event_filter(&query)?;
    let filter = account_hook::Filter {
        id: query.filter("hook"),
        name: query.filter("name"),
        environment: query.filter("environment"),
        account: query.filter("account"),
        event,
    };
    let listed = account_hook::list(&mut db, filter, query.view()).await?;
    let resources = listed.rows.iter().map(render).collect();
    Ok(Document::page(resources, listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

/// Creates a hook.
pub(crate) async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut new = AccountHook {
        id: new_id("hook"),
        account_id: the_account(&mut tx).await?.id,
        name: payload.required("name")?,
        description: None,
        interpreter: payload.required("interpreter")?,
        script: payload.required("script")?,
        created_at: app.scheduler.clock.now(),
    };
    change(&mut new, &payload)?;
    account_hook::insert(&mut tx, &new).await.map_err(name_taken)?;
    tx.commit().await?;
    Ok(Document::created(render(&new)))
}

/// Changes a hook.
pub(crate) async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut changed = find(&mut tx, &id).await?;
    change(&mut changed, &payload)?;
    account_hook::update(&mut tx, &changed).await.map_err(name_taken)?;
    tx.commit().await?;
    Ok(Document::of(render(&changed)))
}

/// Deletes a hook.
pub(crate) async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    find(&mut tx, &id).await?;
    let links = hook_link::of_hooks(&mut tx, &[&id]).await?;
    if !links.is_empty() {
        let names: Vec<&str> = links.iter().map(|link| link.environment.as_str()).collect();
        return Err(ApiError::conflict(format!(
            "The hook is linked to these environments: {}. Delete the links first.",
            names.join(", ")
        )));
    }
    account_hook::delete(&mut tx, &id).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn change(changed: &mut AccountHook, payload: &Payload) -> Result<(), ApiError> {
    payload.unchanged("account", Some(&changed.account_id))?;
    if let Some(name) = payload.name("name")? {
        changed.name = name;
    }
    if let Some(description) = payload.text("description")? {
        changed.description = description;
    }
    if let Some(interpreter) = payload.attribute::<String>("interpreter")? {
        if !EnvironmentHook::is_interpreter(&interpreter) {
            return Err(ApiError::attribute(
                "interpreter",
                "This field takes the name or the path of one program, without arguments: 1 to \
                 255 of the characters A-Z, a-z, 0-9 and . _ / + -.",
            ));
        }
        changed.interpreter = interpreter;
    }
    if let Some(script) = payload.attribute::<String>("script")? {
        if script.trim().is_empty() || script.len() > MAX_HOOK || script.contains('\0') {
            let detail = format!("This field takes a script of 1 to {MAX_HOOK} bytes.");
            return Err(ApiError::attribute("script", detail));
        }
        changed.script = script;
    }
    Ok(())
}

async fn find(db: &mut Connection, id: &str) -> Result<AccountHook, ApiError> {
    account_hook::find(db, id).await?.ok_or_else(|| ApiError::not_found("Hook", id))
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("name", "A hook with this name exists already."),
        false => error.into(),
    }
}

/// The hooks with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    Ok(account_hook::with_ids(db, ids).await?.iter().map(render).collect())
}

fn render(hook: &AccountHook) -> Value {
    json!({
        "type": "hooks",
        "id": hook.id,
        "attributes": {
            "name": hook.name,
            "description": hook.description,
            "interpreter": hook.interpreter,
            "script": hook.script,
            "created-at": rfc3339(hook.created_at),
        },
        "relationships": { "account": to_one("accounts", Some(&hook.account_id)) },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;

    fn hook(changed: (&str, Value)) -> Value {
        let mut attributes = json!({
            "name": "policy", "interpreter": "sh", "script": "exit 0",
            // What existing clients write who have none.
            "vcs-repo": null,
        });
        attributes[changed.0] = changed.1;
        json!({ "data": { "type": "hooks", "attributes": attributes } })
    }

    async fn refusal(server: &InProcess, method: Method, path: &str, body: Value) -> Value {
        let path = format!("{}{path}", super::super::BASE);
        let (status, answer) =
            server.call(method, &path, &server.admin, &[], body.to_string()).await;
        assert!(status.is_client_error(), "{path}: {status}");
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        answer["errors"][0].clone()
    }

    #[tokio::test]
    async fn a_hook_is_kept_as_it_was_written_and_what_cannot_run_is_refused() {
        let server = InProcess::new().await;
        let made = server.api(Method::POST, "/hooks", hook(("description", json!("a")))).await;
        let attributes = &made["data"]["attributes"];
        assert_eq!(attributes["script"], "exit 0");
        assert_eq!(attributes["scriptfile-path"], Value::Null);
        let path = format!("/hooks/{}", made["data"]["id"].as_str().unwrap());
        for (name, value, text) in [
            ("name", json!("policy"), "exists already"),
            ("interpreter", json!("sh -e"), "without arguments"),
            ("script", json!(" \n"), "1 to 65536 bytes"),
            ("script", json!("x".repeat(65_537)), "1 to 65536 bytes"),
            ("scriptfile-path", json!("check.sh"), "send the text of the script as `script`"),
            ("vcs-repo", json!({ "identifier": "a/b" }), "send the text of the script as `script`"),
        ] {
            let error = refusal(&server, Method::POST, "/hooks", hook((name, value))).await;
            assert_eq!(error["source"]["pointer"], format!("/data/attributes/{name}"));
            let detail = error["detail"].as_str().unwrap();
            assert!(detail.contains(text), "{name}: {detail}");
        }
        let changed = json!({ "data": { "attributes": { "script": "exit 1" } } });
        let changed = server.api(Method::PATCH, &path, changed).await;
        assert_eq!(changed["data"]["attributes"]["script"], "exit 1");
        assert_eq!(changed["data"]["attributes"]["description"], "a");
    }

    #[tokio::test]
    async fn a_hook_is_linked_once_to_an_environment_and_then_cannot_be_deleted() {
        let server = InProcess::new().await;
        let made = server.api(Method::POST, "/hooks", hook(("name", json!("policy")))).await;
        let hook = made["data"]["id"].as_str().unwrap();
        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environments["data"][0]["id"].as_str().unwrap();
        let link = |events: Value| {
            json!({ "data": {
                "attributes": { "events": events },
                "relationships": {
                    "hook": { "data": { "type": "hooks", "id": hook } },
                    "environment": { "data": { "type": "environments", "id": environment } },
                },
            } })
        };
        for events in [json!([]), json!(["pre-destroy"])] {
            let body = link(events);
            let error = refusal(&server, Method::POST, "/hook-environment-links", body).await;
            assert_eq!(error["source"]["pointer"], "/data/attributes/events", "{error}");
        }
        let events = json!(["post-plan", "pre-init", "post-plan"]);
        let made = server.api(Method::POST, "/hook-environment-links", link(events)).await;
        let events = &made["data"]["attributes"]["events"];
        assert_eq!(*events, json!(["pre-init", "post-plan"]));
        let again = link(json!(["pre-plan"]));
        let error = refusal(&server, Method::POST, "/hook-environment-links", again).await;
        assert!(error["detail"].as_str().unwrap().contains("linked to this environment already"));

        let path = format!("/hooks/{hook}");
        let error = refusal(&server, Method::DELETE, &path, Value::Null).await;
        assert!(error["detail"].as_str().unwrap().contains("environments: default."), "{error}");
        for (event, number) in [("post-plan", 1), ("pre-plan", 0)] {
            for list in ["hooks", "hook-environment-links"] {
                let path = format!("/{list}?filter[events]={event}");
                let listed = server.api(Method::GET, &path, Value::Null).await;
                assert_eq!(listed["data"].as_array().unwrap().len(), number, "{path}: {listed}");
            }
        }
        let unknown = "/hooks?filter[events]=%25";
        let error = refusal(&server, Method::GET, unknown, Value::Null).await;
        assert_eq!(error["source"]["parameter"], "filter[events]", "{error}");
        let included = format!("/hook-environment-links?filter[hook]={hook}&include=hook");
        let listed = server.api(Method::GET, &included, Value::Null).await;
        assert_eq!(listed["included"][0]["attributes"]["name"], "policy");

        let one = format!("/hook-environment-links/{}", made["data"]["id"].as_str().unwrap());
        let body = json!({ "data": { "attributes": { "events": ["pre-apply"] } } });
        let changed = server.api(Method::PATCH, &one, body).await;
        assert_eq!(changed["data"]["attributes"]["events"], json!(["pre-apply"]));
        server.api(Method::DELETE, &one, Value::Null).await;
        server.api(Method::DELETE, &path, Value::Null).await;
    }
}
