//! Variables of the account, of environments and of workspaces. The value of a sensitive one
//! never comes back.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::{the_account, workspaces};
use crate::api::calls::{About, Calls, flag};
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::{Millis, rfc3339};
use crate::hcl_value;
use crate::inherited_variables::{barred, barred_by};
use crate::store::variable::{self, Category, Filter, Scope, Variable};
use crate::store::{Connection, environment, is_taken, tag};
use crate::token::new_id;
use protocol::Secret;
use protocol::limits::{MAX_KEY, MAX_VALUES, MAX_VARIABLES};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/vars", "List variables", list)
        .post("/vars", About::from("Create a variable").parameter("force", flag), create)
        .get("/vars/{id}", "Read a variable", read)
        .patch("/vars/{id}", About::from("Change a variable").parameter("force", flag), update)
        .delete("/vars/{id}", "Delete a variable", delete)
}

/// How a variable is written.
#[derive(Debug, Deserialize)]
struct Options {
    /// Whether to delete those that a final one does not let be.
    #[serde(default)]
    force: bool,
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let any_of = |name: &str| query.filter(name).map(any_of);
    let (environments, workspaces) = (any_of("environment"), any_of("workspace"));
    let (keys, tags) = (any_of("key"), any_of("tag"));
    let filter = Filter {
        id: query.filter("var"),
        account: query.filter("account"),
        environments: environments.as_deref(),
        workspaces: workspaces.as_deref(),
        keys: keys.as_deref(),
        category: query.filter("category"),
        tags: tags.as_deref(),
    };
    let listed = variable::list(&mut db, filter, query.view()).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

/// The values that a filter lets through, as a JSON list: `in:a,b` are several, and `null` is
/// none.
fn any_of(filter: &str) -> String {
    let values = match filter.strip_prefix("in:") {
        Some(several) => several.split(',').collect(),
        None => vec![filter],
    };
    let values = values.into_iter().map(|value| (value != "null").then_some(value));
    json!(values.collect::<Vec<_>>()).to_string()
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn create(
    State(app): State<App>,
    options: Result<Query<Options>, QueryRejection>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let Query(options) = options?;
    let mut tx = app.scheduler.store.write().await?;
    let owner = Owner::of(&mut tx, &payload).await?;
    let now = app.scheduler.clock.now();
    let mut variable = Variable {
        id: new_id("var"),
        account_id: owner.account_id,
        environment_id: owner.environment_id,
        workspace_id: owner.workspace_id,
        tag_id: owner.tag_id,
        tag: None,
        key: payload.required("key")?,
        value: variable::Value::default(),
        category: payload.required("category")?,
        hcl: false,
        sensitive: false,
        is_final: false,
        description: None,
        created_at: now,
        updated_at: now,
    };
    change(&mut variable, &payload, now)?;
    variable::insert(&mut tx, &variable).await.map_err(|error| key_taken(error, &variable))?;
    check_others(&mut tx, &variable, &options).await?;
    tx.commit().await?;
    Ok(Document::created(render(&variable)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    options: Result<Query<Options>, QueryRejection>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let Query(options) = options?;
    let mut tx = app.scheduler.store.write().await?;
    let mut variable = find(&mut tx, &id).await?;
    payload.unchanged("account", Some(&variable.account_id))?;
    payload.unchanged("environment", variable.environment_id.as_deref())?;
    payload.unchanged("workspace", variable.workspace_id.as_deref())?;
    payload.unchanged("tag", variable.tag_id.as_deref())?;
    change(&mut variable, &payload, app.scheduler.clock.now())?;
    variable::update(&mut tx, &variable).await.map_err(|error| key_taken(error, &variable))?;
    check_others(&mut tx, &variable, &options).await?;
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

/// What a new variable belongs to.
struct Owner {
    account_id: String,
    environment_id: Option<String>,
    workspace_id: Option<String>,
    /// Of its workspaces, those with this tag get it.
    tag_id: Option<String>,
}

impl Owner {
    /// Clients name the wider scopes beside the one they mean, or leave them out.
    async fn of(db: &mut Connection, payload: &Payload) -> Result<Self, ApiError> {
        let [account, environment, workspace] = ["account", "environment", "workspace"]
            .map(|name| payload.to_one(name).map(Option::flatten));
        let (account, environment, workspace) = (account?, environment?, workspace?);
        if account.is_none() && environment.is_none() && workspace.is_none() {
            return Err(ApiError::relationship(
                "workspace",
                "A variable belongs to a workspace, an environment or the account: one of these \
                 relationships is required.",
            ));
        }
        let account_id = the_account(db).await?.id;
        if let Some(id) = account.filter(|id| *id != account_id) {
            return Err(ApiError::no_related("account", "Account", &id));
        }
        if let Some(id) = &environment
            && environment::find(db, id).await?.is_none()
        {
            return Err(ApiError::no_related("environment", "Environment", id));
        }
        let tag_id = payload.to_one("tag")?.flatten();
        if let Some(id) = &tag_id
            && tag::find(db, id).await?.is_none()
        {
            return Err(ApiError::no_related("tag", "Tag", id));
        }
        let Some(workspace_id) = workspace else {
            return Ok(Self {
                account_id,
                environment_id: environment,
                workspace_id: None,
                tag_id,
            });
        };
        if tag_id.is_some() {
            return Err(ApiError::relationship(
                "tag",
                "A variable of one workspace has no tag: that says which workspaces of the account \
                 or of an environment get a variable.",
            ));
        }
        let found = workspaces::related(db, payload).await?;
        if environment.is_some_and(|environment| environment != found.environment_id) {
            return Err(ApiError::relationship(
                "environment",
                "The workspace is in another environment.",
            ));
        }
        Ok(Self {
            account_id,
            environment_id: Some(found.environment_id),
            workspace_id: Some(workspace_id),
            tag_id: None,
        })
    }
}

fn change(variable: &mut Variable, payload: &Payload, now: Millis) -> Result<(), ApiError> {
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
    if let Some(is_final) = payload.attribute("final")? {
        variable.is_final = is_final;
    }
    if let Some(description) = payload.text("description")? {
        variable.description = description;
    }
    variable.updated_at = now;
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
    if variable.is_final && variable.tag_id.is_some() {
        return Err(ApiError::attribute(
            "final",
            "A variable with a tag can't be final: workspaces get and lose their tags.",
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
    if variable.hcl {
        hcl_value::check(key, variable.value.0.expose())
            .map_err(|why| ApiError::attribute("value", why))?;
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

/// Checks that the variable goes with those of wider and narrower scopes.
async fn check_others(
    db: &mut Connection,
    changed: &Variable,
    options: &Options,
) -> Result<(), ApiError> {
    let related = variable::related(db, changed).await?;
    if let Some(barring) = barred_by(changed, &related) {
        return Err(ApiError::attribute(
            "key",
            format!(
                "{} has a final variable with this key ({}): no narrower scope can have another.",
                of_scope(barring.scope()),
                barring.id
            ),
        ));
    }
    let barred: Vec<&Variable> = barred(changed, &related).collect();
    if let (Some(first), false) = (barred.first(), options.force) {
        return Err(ApiError::attribute(
            "final",
            format!(
                "{} variables of narrower scopes have this key ({} for example). Delete them, or \
                 send ?force=true to have them deleted.",
                barred.len(),
                first.id
            ),
        ));
    }
    for narrower in barred {
        variable::delete(db, &narrower.id).await?;
    }
    check_limits(db, changed).await
}

/// Checks that an agent accepts all variables of each workspace that gets `changed`.
async fn check_limits(db: &mut Connection, changed: &Variable) -> Result<(), ApiError> {
    let (variables, bytes) = variable::most_in_scope(db, changed).await?;
    if variables > MAX_VARIABLES as i64 {
        let scope = match changed.scope() {
            Scope::Account => "account",
            Scope::Environment => "environment",
            Scope::Workspace => "workspace",
        };
        let detail = format!(
            "A workspace has at most {MAX_VARIABLES} variables, with those that it inherits."
        );
        return Err(ApiError::relationship(scope, detail));
    }
    if bytes > MAX_VALUES as i64 {
        let detail = format!(
            "The values of all variables of a workspace together, with those that it inherits, have at most {MAX_VALUES} bytes; with this one they have {bytes}."
        );
        return Err(ApiError::attribute("value", detail));
    }
    Ok(())
}

fn key_taken(error: sqlx::Error, variable: &Variable) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute(
            "key",
            format!(
                "{} has a variable with this key{} already.",
                of_scope(variable.scope()),
                if variable.tag_id.is_some() { " and this tag" } else { "" }
            ),
        ),
        false => error.into(),
    }
}

fn of_scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Account => "The account",
        Scope::Environment => "The environment",
        Scope::Workspace => "The workspace",
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
            "final": variable.is_final,
            "description": variable.description,
            "created-at": rfc3339(variable.created_at),
            "updated-at": rfc3339(variable.updated_at),
        },
        "relationships": {
            "account": to_one("accounts", Some(&variable.account_id)),
            "environment": to_one("environments", variable.environment_id.as_deref()),
            "tag": to_one("tags", variable.tag_id.as_deref()),
            "workspace": to_one("workspaces", variable.workspace_id.as_deref()),
        },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::variable;
    use crate::in_process::{InProcess, register};
    use crate::inherited_variables::resolve;

    /// A server with its account and environment.
    struct Site {
        server: InProcess,
        account: String,
        environment: String,
    }

    impl Site {
        async fn new() -> Self {
            let server = InProcess::new().await;
            let listed = server.api(Method::GET, "/environments", json!(null)).await;
            let environment = &listed["data"][0];
            let account = &environment["relationships"]["account"]["data"]["id"];
            Self {
                account: account.as_str().unwrap().to_owned(),
                environment: environment["id"].as_str().unwrap().to_owned(),
                server,
            }
        }

        /// The id of what `scope` names.
        fn id<'a>(&'a self, scope: &'a str) -> &'a str {
            match scope {
                "account" => &self.account,
                "environment" => &self.environment,
                "workspace" => &self.server.workspace,
                id => id,
            }
        }

        async fn write(&self, method: Method, path: &str, document: Value) -> (StatusCode, Value) {
            let path = format!("/api/iacp/v3{path}");
            let body = document.to_string();
            let (status, answer) =
                self.server.call(method, &path, &self.server.admin, &[], body).await;
            (status, serde_json::from_slice(&answer).unwrap_or_default())
        }

        /// Tries to create a variable; `scopes` are the relationships that the client sends.
        async fn create(
            &self,
            path: &str,
            scopes: &[(&str, &str)],
            attributes: Value,
        ) -> (StatusCode, Value) {
            let mut all = json!({ "key": "size", "value": "1", "category": "terraform" });
            for (name, value) in attributes.as_object().unwrap() {
                all[name] = value.clone();
            }
            let mut related = json!({});
            for (name, id) in scopes {
                related[*name] =
                    json!({ "data": { "type": format!("{name}s"), "id": self.id(id) } });
            }
            let data = json!({ "attributes": all, "relationships": related });
            self.write(Method::POST, path, json!({ "data": data })).await
        }

        async fn created(&self, scope: &str, attributes: Value) -> String {
            let (status, answer) = self.create("/vars", &[(scope, scope)], attributes).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
            answer["data"]["id"].as_str().unwrap().to_owned()
        }

        async fn keys(&self, query: &str) -> Vec<String> {
            let path = format!("/vars?page[size]=100&{query}");
            let listed = self.server.api(Method::GET, &path, json!(null)).await;
            let key = |one: &Value| one["attributes"]["key"].as_str().unwrap().to_owned();
            listed["data"].as_array().unwrap().iter().map(key).collect()
        }
    }

    #[tokio::test]
    async fn a_run_gets_the_variables_of_all_scopes_by_their_precedence() {
        let site = Site::new().await;
        let (workspace, _) = site.server.run().await;
        for (scope, key, is_final, sensitive) in [
            ("account", "everywhere", false, false),
            ("account", "narrowed", false, false),
            ("environment", "narrowed", false, false),
            ("account", "password", false, true),
        ] {
            let attributes =
                json!({ "key": key, "value": scope, "final": is_final, "sensitive": sensitive });
            site.created(scope, attributes).await;
        }
        for key in ["narrowed", "password", "own"] {
            let attributes = json!({ "key": key, "value": "workspace" });
            let (status, answer) =
                site.create("/vars", &[("workspace", &workspace)], attributes).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
        }
        // A wider one that became final.
        let listed = site
            .server
            .api(
                Method::GET,
                "/vars?filter[key]=narrowed&filter[workspace]=null&filter[environment]=null",
                json!(null),
            )
            .await;
        let id = listed["data"][0]["id"].as_str().unwrap();
        let mut tx = site.server.app.scheduler.store.write().await.unwrap();
        let mut narrowed = super::find(&mut tx, id).await.unwrap();
        narrowed.is_final = true;
        crate::store::variable::update(&mut tx, &narrowed).await.unwrap();
        tx.commit().await.unwrap();

        let (_, registered) =
            site.server.tell("register", &site.server.pool_token, &register()).await;
        let session = registered["session_token"].as_str().unwrap();
        let poll = json!({ "free_slots": 1, "tasks": [] });
        let (_, events) = site.server.tell("poll", session, &poll).await;
        let task = events["events"][0]["task_id"].as_str().unwrap();
        let claim = format!("tasks/{task}/claim");
        let (_, claimed) = site.server.tell(&claim, session, &json!({ "attempt": 1 })).await;
        let got: Vec<_> = claimed["task"]["variables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                (
                    one["key"].as_str().unwrap(),
                    one["value"].as_str().unwrap(),
                    one["sensitive"].as_bool().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("everywhere", "account", false),
            ("narrowed", "account", false),
            ("own", "workspace", false),
            // Masked, since the account has a secret of this name.
            ("password", "workspace", true),
        ];
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn a_variable_with_a_tag_is_for_the_workspaces_that_have_it() {
        let site = Site::new().await;
        let tag = site.server.create("/tags", json!({ "name": "prod" }), &[]).await;
        let tagged = [("account", "account"), ("tag", &*tag)];
        site.created("account", json!({ "value": "plain" })).await;
        let value = json!({ "value": "tagged" });
        let (status, answer) = site.create("/vars", &tagged, value.clone()).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        assert_eq!(answer["data"]["relationships"]["tag"]["data"]["id"], tag);
        let got = async || {
            let mut db = site.server.app.scheduler.store.read().await.unwrap();
            let reaching = variable::reaching(&mut db, &site.server.workspace).await.unwrap();
            let winner = resolve(reaching).remove(0).winner;
            winner.value.0.expose().to_owned()
        };
        assert_eq!(got().await, "plain");
        let link = json!({ "data": [{ "type": "tags", "id": tag }] });
        for (what, id) in
            [("workspaces", &site.server.workspace), ("environments", &site.environment)]
        {
            let path = format!("/{what}/{id}/relationships/tags");
            assert!(site.write(Method::POST, &path, link.clone()).await.0.is_success());
            assert_eq!(got().await, "tagged", "{what}");
            assert!(site.write(Method::DELETE, &path, link.clone()).await.0.is_success());
            assert_eq!(got().await, "plain", "{what}");
        }
        assert_eq!(site.keys(&format!("filter[tag]={tag}")).await.len(), 1);
        assert_eq!(site.keys("filter[tag]=null").await.len(), 1);

        let of_workspace = [("workspace", "workspace"), ("tag", &*tag)];
        for (scopes, attributes, pointer) in [
            (&tagged, json!({}), "/data/attributes/key"),
            (&tagged, json!({ "key": "other", "final": true }), "/data/attributes/final"),
            (&of_workspace, json!({}), "/data/relationships/tag"),
        ] {
            let (status, answer) = site.create("/vars", scopes, attributes).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
            assert_eq!(answer["errors"][0]["source"]["pointer"], pointer, "{answer}");
        }
        let path = format!("/tags/{tag}");
        let (status, answer) = site.write(Method::DELETE, &path, json!(null)).await;
        assert_eq!(status, StatusCode::CONFLICT, "{answer}");
        let text = answer.to_string();
        assert!(text.contains("Variables are for workspaces with the tag: size."), "{text}");
    }

    #[tokio::test]
    async fn a_final_variable_lets_no_narrower_scope_have_its_key() {
        let site = Site::new().await;
        site.created("account", json!({ "final": true })).await;
        for scope in ["environment", "workspace"] {
            let (status, answer) = site.create("/vars", &[(scope, scope)], json!({})).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{scope}: {answer}");
            let error = &answer["errors"][0];
            assert_eq!(error["source"]["pointer"], "/data/attributes/key", "{error}");
            assert!(
                error["detail"].as_str().unwrap().contains("The account has a final"),
                "{error}"
            );
        }
        // Another kind of variable, and one that is renamed to the key.
        site.created("workspace", json!({ "category": "shell" })).await;
        let other = site.created("workspace", json!({ "key": "other" })).await;
        let renamed = json!({ "data": { "attributes": { "key": "size" } } });
        let (status, answer) = site.write(Method::PATCH, &format!("/vars/{other}"), renamed).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }

    #[tokio::test]
    async fn a_variable_becomes_final_over_narrower_ones_only_by_force_which_deletes_them() {
        let site = Site::new().await;
        let narrower = site.created("workspace", json!({})).await;
        let wider = site.created("environment", json!({})).await;
        let path = format!("/vars/{wider}");
        let make_final = json!({ "data": { "attributes": { "final": true } } });
        for path in [path.clone(), format!("{path}?force=false")] {
            let (status, answer) = site.write(Method::PATCH, &path, make_final.clone()).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
            assert_eq!(answer["errors"][0]["source"]["pointer"], "/data/attributes/final");
            assert!(answer["errors"][0]["detail"].as_str().unwrap().contains(&narrower));
        }
        let (status, answer) =
            site.write(Method::PATCH, &format!("{path}?force=maybe"), make_final.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        let (status, answer) =
            site.write(Method::PATCH, &format!("{path}?force=true"), make_final).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["data"]["attributes"]["final"], true);
        let (status, _) = site.write(Method::GET, &format!("/vars/{narrower}"), json!(null)).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn clients_may_name_the_wider_scopes_and_read_all_of_them() {
        let site = Site::new().await;
        let all =
            [("account", "account"), ("environment", "environment"), ("workspace", "workspace")];
        for (scopes, expected) in [(&all[..1], 1), (&all[..2], 2), (&all[..], 3), (&all[2..], 3)] {
            let key = format!("key{}{}", scopes.len(), scopes[0].0);
            let (status, answer) = site.create("/vars", scopes, json!({ "key": key })).await;
            assert_eq!(status, StatusCode::CREATED, "{answer}");
            for (at, (name, _)) in all.iter().enumerate() {
                let related = &answer["data"]["relationships"][name]["data"]["id"];
                let id = if at < expected { json!(site.id(name)) } else { json!(null) };
                assert_eq!(*related, id, "{name}: {answer}");
            }
        }
        let other = site.server.create("/environments", json!({ "name": "other" }), &[]).await;
        for (scopes, status) in [
            (&[][..], StatusCode::UNPROCESSABLE_ENTITY),
            (&[("account", "acc-none")], StatusCode::NOT_FOUND),
            (&[("environment", "env-none")], StatusCode::NOT_FOUND),
            (&[("workspace", "ws-none")], StatusCode::NOT_FOUND),
            (
                &[("environment", &*other), ("workspace", "workspace")],
                StatusCode::UNPROCESSABLE_ENTITY,
            ),
        ] {
            let (found, answer) = site.create("/vars", scopes, json!({})).await;
            assert_eq!(found, status, "{scopes:?}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_list_of_variables_is_filtered_by_scopes_and_several_keys() {
        let site = Site::new().await;
        for (scope, key) in [("account", "a"), ("environment", "e"), ("workspace", "w")] {
            site.created(scope, json!({ "key": key })).await;
        }
        let (environment, workspace) = (&site.environment, &site.server.workspace);
        for (query, keys) in [
            (format!("filter[account]={}", site.account), "a e w"),
            (format!("filter[environment]={environment}"), "e w"),
            (format!("filter[environment]={environment}&filter[workspace]=null"), "e"),
            (format!("filter[environment]=in:{environment},null&filter[workspace]=null"), "a e"),
            (format!("filter[workspace]={workspace}"), "w"),
            (format!("filter[workspace]=in:{workspace},null"), "a e w"),
            ("filter[key]=in:a,w,x".to_owned(), "a w"),
            ("filter[key]=a".to_owned(), "a"),
        ] {
            assert_eq!(site.keys(&query).await.join(" "), keys, "{query}");
        }
    }

    #[tokio::test]
    async fn a_value_in_hcl_is_one_expression_of_a_variable_and_of_a_run() {
        let site = Site::new().await;
        let (workspace, _) = site.server.run().await;
        for value in ["1\nother = 2", "[1", "eu-west-1", ""] {
            let attributes = json!({ "value": value, "hcl": true });
            let (status, answer) =
                site.create("/vars", &[("workspace", "workspace")], attributes).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{value:?}: {answer}");
            assert_eq!(answer["errors"][0]["source"]["pointer"], "/data/attributes/value");
            let related =
                json!({ "workspace": { "data": { "type": "workspaces", "id": workspace } } });
            let run = json!({ "variables": [{ "key": "size", "value": value }] });
            let data = json!({ "attributes": run, "relationships": related });
            let (status, answer) = site.write(Method::POST, "/runs", json!({ "data": data })).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{value:?}: {answer}");
        }
        // A text that is made an expression is checked, too.
        let text = site.created("workspace", json!({ "value": "eu-west-1" })).await;
        let change = json!({ "data": { "attributes": { "hcl": true } } });
        let (status, answer) = site.write(Method::PATCH, &format!("/vars/{text}"), change).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }

    #[tokio::test]
    async fn inherited_values_count_for_each_workspace_that_gets_them() {
        let site = Site::new().await;
        let large = "x".repeat(512 * 1024);
        for number in 0..8 {
            let scope = ["account", "environment"][number % 2];
            site.created(scope, json!({ "key": format!("k{number}"), "value": large })).await;
        }
        for scope in ["workspace", "environment", "account"] {
            let attributes = json!({ "key": "more", "value": "x" });
            let (status, answer) = site.create("/vars", &[(scope, scope)], attributes).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{scope}");
            let detail = answer["errors"][0]["detail"].as_str().unwrap();
            assert!(detail.contains("with those that it inherits"), "{detail}");
        }
    }

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
