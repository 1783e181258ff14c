//! The variables of a workspace, of an environment and of the account: `/workspaces/ID/variables`,
//! `/environments/ID/variables` and `/account/variables`. The value of a sensitive one can be
//! replaced, never seen.

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::address::Path;
use super::environments::choices;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::refusal::Refusal;
use super::session::{self, Session};
use super::variable_owner::Owner;
use super::workspace;
use crate::api::pools::{CallError, call};
use crate::app::App;
use crate::inherited_variables::resolve;
use crate::store::variable::{self, Category, Scope, Variable};
use crate::store::{Connection, tag};

/// The largest page of the API.
const SIZE: usize = 100;

pub(super) fn routes() -> Router<App> {
    let of = |owner: &str| {
        Router::new()
            .route(&format!("{owner}/variables"), get(show).post(create))
            .route(&format!("{owner}/variables/{{variable}}"), post(update))
            .route(
                &format!("{owner}/variables/{{variable}}/delete"),
                get(ask_to_delete).post(delete),
            )
    };
    of("/workspaces/{workspace}").merge(of("/environments/{environment}")).merge(of("/account"))
}

/// The variable that a path names.
#[derive(Deserialize)]
struct Named {
    variable: String,
}

async fn show(
    State(app): State<App>,
    session: Session,
    owner: Owner,
) -> Result<Response, PageError> {
    page(&app, &session, &owner, None).await
}

/// The form of a variable, as it is filled in.
#[derive(Serialize)]
struct VariableForm {
    key: String,
    category: String,
    /// Empty if it is sensitive.
    value: String,
    /// Whether the value has to be typed again, because the form was refused.
    again: bool,
    description: String,
    hcl: bool,
    sensitive: bool,
    #[serde(rename = "final")]
    is_final: bool,
    /// The tag's id, or empty.
    tag: String,
    refusal: Refusal,
}

impl VariableForm {
    /// As somebody filled it in.
    fn of(fields: &Fields, refusal: Refusal) -> Self {
        let (value, sensitive) = (fields.raw("value"), fields.has("sensitive"));
        // The value of a variable that was sensitive is new only if it was typed.
        let is_secret = sensitive || fields.has("is-sensitive");
        Self {
            key: fields.get("key").to_owned(),
            category: fields.get("category").to_owned(),
            again: is_secret && !value.is_empty(),
            value: if is_secret { String::new() } else { value },
            description: fields.get("description").to_owned(),
            hcl: fields.has("hcl"),
            sensitive,
            is_final: fields.has("final"),
            tag: fields.get("tag").to_owned(),
            refusal: refusal.beside(&["key", "category", "value", "description", "tag"]),
        }
    }

    /// As the API shows the variable.
    fn of_resource(resource: &Value) -> Self {
        let attributes = &resource["attributes"];
        let text = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
        let flag = |name: &str| attributes[name] == true;
        Self {
            key: text("key"),
            category: text("category"),
            value: text("value"),
            again: false,
            description: text("description"),
            hcl: flag("hcl"),
            sensitive: flag("sensitive"),
            is_final: flag("final"),
            tag: String::new(),
            refusal: Refusal::default(),
        }
    }
}

/// A form that was refused, and the id of its variable; none: that was to be a new one.
struct Refused<'a> {
    variable: Option<&'a str>,
    form: VariableForm,
}

async fn page(
    app: &App,
    session: &Session,
    owner: &Owner,
    refused: Option<Refused<'_>>,
) -> Result<Response, PageError> {
    let status = match refused {
        Some(_) => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::OK,
    };
    let (refused_id, new) = match &refused {
        Some(Refused { variable: None, form }) => (None, json!(form)),
        Some(Refused { variable, .. }) => (*variable, Value::Null),
        None => (None, Value::Null),
    };
    let mut db = app.scheduler.store.read().await?;
    let (mut workspace, mut inherited_rows) = (None, Vec::new());
    if let Owner::Workspace(id) = owner {
        workspace = Some(workspace::top(app, &mut db, id).await?);
        inherited_rows = inherited(&mut db, id).await?;
    }
    let name = owner.name(&mut db).await?;
    let tags = tag::names(&mut db).await?;
    drop(db);
    let mut variables = variables(app, session, owner).await?;
    for variable in &mut variables {
        let tag = variable["relationships"]["tag"]["data"]["id"].as_str();
        let name = tag.and_then(|id| tags.iter().find(|(tag, _)| tag == id));
        variable["tag"] = name.map(|(_, name)| name.as_str()).into();
        let own = refused.as_ref().filter(|_| refused_id.is_some());
        let own = own.filter(|_| variable["id"].as_str() == refused_id);
        variable["form"] = match own {
            Some(Refused { form, .. }) => json!(form),
            None => json!(VariableForm::of_resource(variable)),
        };
    }
    let content = json!({
        "tab": "variables",
        "name": name,
        "path": owner.path(),
        "scope": owner.scope(),
        "workspace": workspace,
        "tags": choices(tags),
        "variables": variables,
        "inherited": inherited_rows,
        // What was typed stays: the page does not follow the database then.
        "is_refused": refused.is_some(),
        "new": match new {
            Value::Null => json!(VariableForm::of(&Fields::default(), Refusal::default())),
            form => form,
        },
    });
    let title = format!("Variables · {name}");
    // Those that a workspace inherits are no part of it.
    let topic = owner.topic();
    let topics = [topic.as_deref().unwrap_or("tags"), "variables"];
    let page = Page {
        template: "variables.html",
        title: &title,
        section: owner.section(),
        topics: &topics,
    };
    page.show_with(status, app, session, &content)
}

/// All of them, as the API shows them.
async fn variables(app: &App, session: &Session, owner: &Owner) -> Result<Vec<Value>, PageError> {
    let mut all = Vec::new();
    for number in 1.. {
        let filter = owner.filter();
        let path = format!("/vars?{filter}&page[size]={SIZE}&page[number]={number}");
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

async fn create(State(app): State<App>, owner: Owner, form: Form) -> Result<Response, PageError> {
    let mut attributes = attributes(&owner, &form.fields);
    attributes["value"] = form.fields.raw("value").into();
    attributes["category"] = form.fields.get("category").into();
    let mut relationships = {
        let mut db = app.scheduler.store.read().await?;
        owner.relationship(&mut db).await?
    };
    let tag = form.fields.get("tag");
    if !tag.is_empty() {
        relationships["tag"] = json!({ "data": { "type": "tags", "id": tag } });
    }
    let document = json!({ "data": {
        "type": "vars", "attributes": attributes, "relationships": relationships,
    } });
    let made = call(&app, form.session.actor(), Method::POST, "/vars", document.to_string()).await;
    answer(&app, &form, &owner, None, made, "Variable created.").await
}

async fn update(
    State(app): State<App>,
    owner: Owner,
    Path(Named { variable }): Path<Named>,
    form: Form,
) -> Result<Response, PageError> {
    find(&app, &owner, &variable).await?;
    let mut attributes = attributes(&owner, &form.fields);
    // The form of a sensitive one has no value: an empty field leaves it as it is.
    let value = form.fields.raw("value");
    if !value.is_empty() || form.fields.has("value-is-shown") {
        attributes["value"] = value.into();
    }
    let document = json!({ "data": { "type": "vars", "attributes": attributes } });
    let path = format!("/vars/{variable}");
    let changed =
        call(&app, form.session.actor(), Method::PATCH, &path, document.to_string()).await;
    answer(&app, &form, &owner, Some(&variable), changed, "Variable saved.").await
}

async fn ask_to_delete(
    State(app): State<App>,
    owner: Owner,
    Path(Named { variable }): Path<Named>,
    session: Session,
) -> Result<Response, PageError> {
    let key = find(&app, &owner, &variable).await?.key;
    let owner_name = owner.name(&mut *app.scheduler.store.read().await?).await?;
    let title = format!("Delete {key}");
    let content = json!({
        "key": key, "owner": owner_name, "scope": owner.scope(), "path": owner.path(),
    });
    let page = Page {
        template: "variable-delete.html",
        title: &title,
        section: owner.section(),
        topics: &[],
    };
    page.show(&app, &session, &content)
}

async fn delete(
    State(app): State<App>,
    owner: Owner,
    Path(Named { variable }): Path<Named>,
    form: Form,
) -> Result<Response, PageError> {
    find(&app, &owner, &variable).await?;
    call(&app, form.session.actor(), Method::DELETE, &format!("/vars/{variable}"), "").await?;
    let message = session::message("Variable deleted.", &app);
    Ok(frame::redirect(&format!("{}/variables", owner.path()), message))
}

/// The variable with this id, which is the owner's own.
async fn find(app: &App, owner: &Owner, id: &str) -> Result<Variable, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let found = variable::find(&mut db, id).await?;
    found.filter(|variable| owner.has(variable)).ok_or(PageError::NotFound("variable"))
}

fn attributes(owner: &Owner, fields: &Fields) -> Value {
    let mut attributes = json!({
        "key": fields.get("key"),
        "description": fields.get("description"),
        "hcl": fields.has("hcl"),
        "sensitive": fields.has("sensitive"),
    });
    if owner.scope() < Scope::Workspace {
        attributes["final"] = fields.has("final").into();
    }
    attributes
}

async fn answer(
    app: &App,
    form: &Form,
    owner: &Owner,
    variable: Option<&str>,
    result: Result<Value, CallError>,
    done: &str,
) -> Result<Response, PageError> {
    match result {
        Ok(_) => {
            let message = session::message(done, app);
            Ok(frame::redirect(&format!("{}/variables", owner.path()), message))
        }
        Err(error) => {
            let filled = VariableForm::of(&form.fields, Refusal::of_call(error)?);
            page(app, &form.session, owner, Some(Refused { variable, form: filled })).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn variables_of_each_scope_are_created_changed_and_deleted_after_a_question() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let listed = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = listed["data"][0]["id"].as_str().unwrap();
        let tag = server.create("/tags", json!({ "name": "prod" }), &[]).await;
        for owner in [
            format!("/workspaces/{}", server.workspace),
            format!("/environments/{environment}"),
            "/account".to_owned(),
        ] {
            let path = format!("{owner}/variables");
            let is_wide = !owner.starts_with("/workspaces");
            let mut fields = vec![("key", "size"), ("value", "large"), ("category", "terraform")];
            if is_wide {
                fields.push(("tag", &tag));
            }
            assert_eq!(browser.post(&path, &fields).await.0, StatusCode::SEE_OTHER, "{owner}");
            let page = browser.page(&path).await;
            assert!(page.contains(">size</strong>") && page.contains("large"), "{page}");
            assert_eq!(page.contains(">tag prod<"), is_wide, "{page}");
            let (_, id) = page.split_once("id=\"var-").unwrap();
            let id = format!("var-{}", id.split('"').next().unwrap());

            let changed = [("key", "size"), ("value", "small"), ("value-is-shown", "yes")];
            let one = format!("{path}/{id}");
            assert_eq!(browser.post(&one, &changed).await.0, StatusCode::SEE_OTHER);
            assert!(browser.page(&path).await.contains("small"));
            let (status, page) = browser.post(&path, &[("key", "1"), ("category", "shell")]).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
            assert!(page.contains("starts with a letter"), "{page}");

            let question = browser.page(&format!("{one}/delete")).await;
            assert!(question.contains("Delete the variable size"), "{question}");
            let deleted = browser.post(&format!("{one}/delete"), &[]).await;
            assert_eq!(deleted.0, StatusCode::SEE_OTHER);
            assert!(browser.page(&path).await.contains("No variables"));
        }
        let fields = [("key", "size"), ("value", "1"), ("category", "terraform"), ("final", "on")];
        let (status, _) = browser.post("/account/variables", &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        assert!(browser.page("/account/variables").await.contains(">final<"));
        let own = format!("/workspaces/{}/variables", server.workspace);
        assert!(browser.page(&own).await.contains("account <span class=\"tag\">final"));
        let missing = browser.get("/environments/env-none/variables").await;
        assert_eq!(missing.0, StatusCode::NOT_FOUND);
    }
}
