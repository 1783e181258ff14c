//! Tags, and which of them workspaces and environments have. Workspaces have them from the
//! Terraform command line, too.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::linkage::Linkage;
use super::payload::Payload;
use super::query::ListQuery;
use super::{environments, the_account, workspaces};
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::store::tag::{self, Filter, Tag};
use crate::store::{Connection, is_taken};
use crate::store::{variable, workspace_tag};
use crate::token::new_id;
use protocol::limits::MAX_NAME;

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/tags", "List tags", list)
        .post("/tags", "Create a tag", create)
        .get("/tags/{id}", "Read a tag", read)
        .patch("/tags/{id}", "Change a tag", update)
        .delete("/tags/{id}", "Delete a tag", delete)
        .post("/workspaces/{id}/relationships/tags", "Add tags to a workspace", change_workspace)
        .patch(
            "/workspaces/{id}/relationships/tags",
            "Replace the tags of a workspace",
            change_workspace,
        )
        .delete(
            "/workspaces/{id}/relationships/tags",
            "Remove tags from a workspace",
            change_workspace,
        )
        .post(
            "/environments/{id}/relationships/tags",
            "Add tags to an environment",
            change_environment,
        )
        .patch(
            "/environments/{id}/relationships/tags",
            "Replace the tags of an environment",
            change_environment,
        )
        .delete(
            "/environments/{id}/relationships/tags",
            "Remove tags from an environment",
            change_environment,
        )
}

/// How many tags a workspace or an environment has at most.
const MAX_TAGS: usize = 1_000;

/// What has tags.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) enum Tagged<'a> {
    /// The workspace with this id.
    Workspace(&'a str),
    /// The environment with this id.
    Environment(&'a str),
}

impl Tagged<'_> {
    /// Writes the tags that a document has, in the place of those there were.
    pub(super) async fn save(self, db: &mut Connection, payload: &Payload) -> Result<(), ApiError> {
        let ids = match payload.tag_names() {
            Some(names) => Some(named(db, names).await?),
            None => payload.to_many("tags")?,
        };
        match ids {
            Some(ids) => self.change(db, &Method::PATCH, &ids).await,
            None => Ok(()),
        }
    }

    /// POST adds tags, PATCH replaces them all, DELETE removes them.
    async fn change(
        self,
        db: &mut Connection,
        method: &Method,
        ids: &[String],
    ) -> Result<(), ApiError> {
        let mut tags = Vec::new();
        for id in ids {
            let tag = tag::find(db, id).await?;
            tags.push(tag.ok_or_else(|| ApiError::no_related_many("tags", id))?);
        }
        if *method == Method::PATCH {
            for tag in self.tags(db).await? {
                if !ids.contains(&tag.id) {
                    self.remove(db, &tag).await?;
                }
            }
        }
        for tag in &tags {
            match *method == Method::DELETE {
                true => self.remove(db, tag).await?,
                false => self.add(db, tag).await?,
            }
        }
        self.check_number(db).await
    }

    /// Refuses more tags than one thing may have; the transaction that added them has to end.
    pub(in crate::api) async fn check_number(self, db: &mut Connection) -> Result<(), ApiError> {
        check_number(self.tags(db).await?.len())
    }

    async fn tags(self, db: &mut Connection) -> sqlx::Result<Vec<Tag>> {
        let ids = match self {
            Self::Workspace(id) => tag::of_workspaces(db, &[id]).await?,
            Self::Environment(id) => tag::of_environments(db, &[id]).await?,
        };
        let ids: Vec<&str> = ids.iter().map(|(_, tag)| tag.as_str()).collect();
        tag::with_ids(db, &ids).await
    }

    async fn add(self, db: &mut Connection, tag: &Tag) -> sqlx::Result<()> {
        match self {
            // One with a value keeps that.
            Self::Workspace(id) => workspace_tag::insert(db, id, &tag.name).await,
            Self::Environment(id) => tag::add_to_environment(db, id, tag).await,
        }
    }

    async fn remove(self, db: &mut Connection, tag: &Tag) -> sqlx::Result<()> {
        match self {
            Self::Workspace(id) => workspace_tag::delete(db, id, &tag.name).await,
            Self::Environment(id) => tag::remove_from_environment(db, id, tag).await,
        }
    }
}

fn check_number(number: usize) -> Result<(), ApiError> {
    if number > MAX_TAGS {
        let message = format!("These would be {number} tags, and there may be {MAX_TAGS}.");
        return Err(ApiError::relationship("tags", message));
    }
    Ok(())
}

/// The ids of the tags with these names; a name that no tag has becomes a new one.
async fn named(db: &mut Connection, names: &[String]) -> Result<Vec<String>, ApiError> {
    check_number(names.len())?;
    let account_id = the_account(db).await?.id;
    let known = tag::names(db).await?;
    let mut ids = Vec::new();
    for name in names {
        if let Some((id, _)) = known.iter().find(|(_, known)| known == name) {
            ids.push(id.clone());
            continue;
        }
        let is_long = name.chars().nth(MAX_NAME).is_some();
        if is_long || name.chars().any(char::is_control) {
            let start: String = name.chars().filter(|c| !c.is_control()).take(20).collect();
            let detail = format!("A tag has at most {MAX_NAME} printable characters: {start}");
            return Err(ApiError::relationship("tags", detail));
        }
        let tag = Tag { id: new_id("tag"), account_id: account_id.clone(), name: name.clone() };
        tag::insert(db, &tag).await?;
        ids.push(tag.id);
    }
    Ok(ids)
}

async fn change_workspace(
    State(app): State<App>,
    Path(id): Path<String>,
    method: Method,
    Linkage(ids): Linkage,
) -> Result<StatusCode, ApiError> {
    change(&app, Tagged::Workspace(&id), &method, &ids).await
}

async fn change_environment(
    State(app): State<App>,
    Path(id): Path<String>,
    method: Method,
    Linkage(ids): Linkage,
) -> Result<StatusCode, ApiError> {
    change(&app, Tagged::Environment(&id), &method, &ids).await
}

async fn change(
    app: &App,
    tagged: Tagged<'_>,
    method: &Method,
    ids: &[String],
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    match tagged {
        Tagged::Workspace(id) => workspaces::find(&mut tx, id).await.map(drop)?,
        Tagged::Environment(id) => environments::find(&mut tx, id).await.map(drop)?,
    }
    tagged.change(&mut tx, method, ids).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let filter = Filter {
        id: query.filter("tag"),
        account: query.filter("account"),
        name: query.filter("name"),
    };
    let listed = tag::list(&mut db, filter, query.view()).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn create(State(app): State<App>, payload: Payload) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let account = the_account(&mut tx).await?;
    payload.unchanged("account", Some(&account.id))?;
    let tag = Tag {
        id: new_id("tag"),
        account_id: account.id,
        name: name(&payload)?
            .ok_or_else(|| ApiError::attribute("name", "This field is required."))?,
    };
    tag::insert(&mut tx, &tag).await.map_err(name_taken)?;
    tx.commit().await?;
    Ok(Document::created(render(&tag)))
}

async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    payload: Payload,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let mut tag = find(&mut tx, &id).await?;
    payload.unchanged("account", Some(&tag.account_id))?;
    if let Some(name) = name(&payload)? {
        tag::rename(&mut tx, &tag, &name).await.map_err(name_taken)?;
        tag.name = name;
    }
    tx.commit().await?;
    Ok(Document::of(render(&tag)))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let tag = find(&mut tx, &id).await?;
    let variables = variable::of_tag(&mut tx, &id).await?;
    if !variables.is_empty() {
        let keys: Vec<_> = variables.into_iter().map(|variable| variable.key).collect();
        return Err(ApiError::conflict(format!(
            "Variables are for workspaces with the tag: {}. Delete them first.",
            keys.join(", ")
        )));
    }
    tag::delete(&mut tx, &tag).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(db: &mut Connection, id: &str) -> Result<Tag, ApiError> {
    tag::find(db, id).await?.ok_or_else(|| ApiError::not_found("Tag", id))
}

fn name(payload: &Payload) -> Result<Option<String>, ApiError> {
    let name = payload.name("name")?;
    match name.as_ref().is_some_and(|name| name.contains(',')) {
        // Lists of tags are written with commas.
        true => Err(ApiError::attribute("name", "This field takes no commas.")),
        false => Ok(name),
    }
}

fn name_taken(error: sqlx::Error) -> ApiError {
    match is_taken(&error) {
        true => ApiError::attribute("name", "A tag with this name exists already."),
        false => error.into(),
    }
}

/// The tags with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    Ok(tag::with_ids(db, ids).await?.iter().map(render).collect())
}

fn render(tag: &Tag) -> Value {
    json!({
        "type": "tags",
        "id": tag.id,
        "attributes": { "name": tag.name },
        "relationships": { "account": to_one("accounts", Some(&tag.account_id)) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_process::InProcess;

    async fn tags_of(server: &InProcess, path: &str) -> Vec<String> {
        let read = server.api(Method::GET, &format!("{path}?include=tags"), Value::Null).await;
        let mut names: Vec<String> = read["included"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag["attributes"]["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        let linked = read["data"]["relationships"]["tags"]["data"].as_array().unwrap();
        assert_eq!(linked.len(), names.len(), "{read}");
        names
    }

    fn many(ids: &[&str]) -> Value {
        json!({ "data": ids.iter().map(|id| json!({ "type": "tags", "id": id })).collect::<Vec<_>>() })
    }

    #[tokio::test]
    async fn workspaces_and_environments_have_tags_that_clients_change() {
        let server = InProcess::new().await;
        let a = server.create("/tags", json!({ "name": "a" }), &[]).await;
        let b = server.create("/tags", json!({ "name": "b" }), &[]).await;
        let listed = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = listed["data"][0]["id"].as_str().unwrap();
        for path in
            [format!("/workspaces/{}", server.workspace), format!("/environments/{environment}")]
        {
            assert!(tags_of(&server, &path).await.is_empty());
            let related = format!("{path}/relationships/tags");
            for (method, ids, names) in [
                (Method::POST, &[a.as_str()][..], &["a"][..]),
                (Method::POST, &[&b], &["a", "b"]),
                (Method::POST, &[&b], &["a", "b"]),
                (Method::DELETE, &[&a], &["b"]),
                (Method::PATCH, &[&a], &["a"]),
                (Method::PATCH, &[], &[]),
            ] {
                server.api(method.clone(), &related, many(ids)).await;
                assert_eq!(tags_of(&server, &path).await, names, "{method} {ids:?}");
            }
            let data = json!({ "relationships": { "tags": many(&[&a, &b]) } });
            server.api(Method::PATCH, &path, json!({ "data": data })).await;
            assert_eq!(tags_of(&server, &path).await, ["a", "b"]);
            let related = format!("/api/iacp/v3{related}");
            for (body, refused) in [
                (many(&["tag-none"]).to_string(), StatusCode::NOT_FOUND),
                (String::new(), StatusCode::BAD_REQUEST),
                (json!({ "data": null }).to_string(), StatusCode::BAD_REQUEST),
            ] {
                let (status, answer) =
                    server.call(Method::PATCH, &related, &server.admin, &[], body).await;
                assert_eq!(status, refused, "{answer:?}");
            }
            assert_eq!(tags_of(&server, &path).await, ["a", "b"]);
        }
        let document = json!({ "data": { "attributes": { "name": "renamed" } } });
        server.api(Method::PATCH, &format!("/tags/{a}"), document).await;
        let path = format!("/workspaces/{}", server.workspace);
        assert_eq!(tags_of(&server, &path).await, ["b", "renamed"]);
        server.api(Method::DELETE, &format!("/tags/{a}"), Value::Null).await;
        assert_eq!(tags_of(&server, &path).await, ["b"]);
        assert_eq!(tags_of(&server, &format!("/environments/{environment}")).await, ["b"]);
    }

    #[tokio::test]
    async fn tags_of_the_terraform_command_line_are_those_of_the_pool_api() {
        let server = InProcess::new().await;
        let path = format!("/api/v2/workspaces/{}/tag-bindings", server.workspace);
        let binding =
            json!({ "type": "tag-bindings", "attributes": { "key": "team", "value": "x" } });
        let body = json!({ "data": [binding] }).to_string();
        let (status, answer) = server.call(Method::PATCH, &path, &server.admin, &[], body).await;
        assert_eq!(status, StatusCode::OK, "{answer:?}");
        let workspace = format!("/workspaces/{}", server.workspace);
        assert_eq!(tags_of(&server, &workspace).await, ["team"]);
        // To add it again does not take its value.
        let listed = server.api(Method::GET, "/tags?filter[name]=team", Value::Null).await;
        let id = listed["data"][0]["id"].as_str().unwrap();
        let related = format!("{workspace}/relationships/tags");
        server.api(Method::POST, &related, many(&[id])).await;
        let (_, answer) = server.call(Method::GET, &path, &server.admin, &[], "").await;
        let bindings: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(bindings["data"][0]["attributes"]["value"], "x");
    }

    #[tokio::test]
    async fn a_tag_has_a_name_of_its_own_without_commas() {
        let server = InProcess::new().await;
        server.create("/tags", json!({ "name": "a" }), &[]).await;
        for name in [json!("a"), json!("a,b"), json!(""), json!(null)] {
            let body = json!({ "data": { "attributes": { "name": name } } }).to_string();
            let path = "/api/iacp/v3/tags";
            let (status, answer) = server.call(Method::POST, path, &server.admin, &[], body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {answer:?}");
        }
    }
}
