//! Tags of workspaces: plain ones, and those with a key and a value.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::query::ListQuery;
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Data, Document, MEDIA_TYPE};
use crate::api::pools::tags::Tagged;
use crate::api::pools::workspaces;
use crate::app::App;
use crate::store::Connection;
use crate::store::workspace_tag::{self, WorkspaceTag};
use protocol::limits::MAX_NAME;

pub(super) fn calls() -> Calls {
    Calls::default()
        .post(
            "/workspaces/{id}/relationships/tags",
            About::nothing("Add tags to a workspace", StatusCode::NO_CONTENT)
                .takes(MEDIA_TYPE, false, tags),
            add,
        )
        .get(
            "/workspaces/{id}/relationships/tags",
            About::page("List the tags of a workspace", "tags"),
            list,
        )
        .delete(
            "/workspaces/{id}/relationships/tags",
            About::nothing("Remove tags from a workspace", StatusCode::NO_CONTENT)
                .takes(MEDIA_TYPE, false, tags),
            remove,
        )
        .get(
            "/workspaces/{id}/tag-bindings",
            About::page("List the tags of a workspace with their values", "tag-bindings"),
            list_bindings,
        )
        .patch(
            "/workspaces/{id}/tag-bindings",
            About::page("Add tags with values to a workspace", "tag-bindings")
                .takes(MEDIA_TYPE, false, tags),
            add_bindings,
        )
        .get(
            "/workspaces/{id}/effective-tag-bindings",
            About::page("List the tags that a workspace has", "tag-bindings"),
            list_bindings,
        )
}

/// A list of tags as clients write it, in JSON Schema.
pub(super) fn tags() -> Value {
    let text = json!({ "type": "string", "maxLength": MAX_NAME });
    let tag = json!({
        "type": "object",
        "required": ["attributes"],
        "properties": { "attributes": {
            "type": "object",
            "properties": { "key": text, "name": text, "value": text },
            "oneOf": [{ "required": ["key"] }, { "required": ["name"] }],
        } },
    });
    json!({
        "type": "object",
        "required": ["data"],
        "properties": { "data": { "type": "array", "items": tag } },
    })
}

/// A tag as it comes in: plain ones have a name.
#[derive(Debug, Deserialize)]
pub(super) struct SentTag {
    attributes: SentAttributes,
}

#[derive(Debug, Deserialize)]
struct SentAttributes {
    #[serde(alias = "name")]
    key: String,
    #[serde(default)]
    value: String,
}

/// Tags a workspace.
pub(super) async fn save(
    db: &mut Connection,
    workspace_id: &str,
    tags: Vec<SentTag>,
) -> Result<(), ApiError> {
    for SentTag { attributes: SentAttributes { key, value } } in tags {
        let is_text =
            |text: &str| text.chars().count() <= MAX_NAME && !text.chars().any(char::is_control);
        // Lists of tags are written with commas.
        if key.is_empty() || key.contains(',') || !is_text(&key) || !is_text(&value) {
            return Err(ApiError::relationship(
                "tags",
                format!(
                    "A tag takes 1 to {MAX_NAME} printable characters without commas, and its \
                     value at most as many."
                ),
            ));
        }
        let tag = WorkspaceTag { workspace_id: workspace_id.to_owned(), key, value };
        workspace_tag::upsert(db, &tag).await?;
    }
    Tagged::Workspace(workspace_id).check_number(db).await
}

async fn add(
    State(app): State<App>,
    Path(id): Path<String>,
    Data(tags): Data<Vec<SentTag>>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    workspaces::find(&mut tx, &id).await?;
    save(&mut tx, &id, tags).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove(
    State(app): State<App>,
    Path(id): Path<String>,
    Data(tags): Data<Vec<SentTag>>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    workspaces::find(&mut tx, &id).await?;
    for tag in tags {
        workspace_tag::delete(&mut tx, &id, &tag.attributes.key).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let tags = of_workspace(&app, &id).await?;
    let plain = |tag: &WorkspaceTag| json!({ "type": "tags", "id": tag.key, "attributes": { "name": tag.key } });
    Ok(whole(tags.iter().map(plain).collect(), &query))
}

async fn list_bindings(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let tags = of_workspace(&app, &id).await?;
    Ok(whole(tags.iter().map(render_binding).collect(), &query))
}

async fn add_bindings(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
    Data(tags): Data<Vec<SentTag>>,
) -> Result<Document, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    workspaces::find(&mut tx, &id).await?;
    save(&mut tx, &id, tags).await?;
    tx.commit().await?;
    list_bindings(State(app), Path(id), query).await
}

async fn of_workspace(app: &App, id: &str) -> Result<Vec<WorkspaceTag>, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, id).await?;
    Ok(workspace_tag::of_workspaces(&mut db, &[id]).await?)
}

/// A list that is always one page.
fn whole(resources: Vec<Value>, query: &ListQuery) -> Document {
    let total = i64::try_from(resources.len()).unwrap_or(i64::MAX);
    Document::page(resources, total, query.page)
}

fn render_binding(tag: &WorkspaceTag) -> Value {
    json!({
        "type": "tag-bindings",
        "id": format!("{}.{}", tag.workspace_id, tag.key),
        "attributes": { "key": tag.key, "value": tag.value },
    })
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::api::terraform::BASE;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_workspace_has_at_most_a_thousand_tags() {
        let server = InProcess::new().await;
        let tags = |numbers: std::ops::Range<u32>| {
            let tag =
                |number| json!({ "type": "tags", "attributes": { "name": format!("t{number}") } });
            json!({ "data": numbers.map(tag).collect::<Vec<_>>() })
        };
        let path = format!("{BASE}/workspaces/{}/relationships/tags", server.workspace);
        let add = async |tags: Value| {
            server.call(Method::POST, &path, &server.admin, &[], tags.to_string()).await
        };
        let (status, answer) = add(tags(0..1_001)).await;
        let says = String::from_utf8_lossy(&answer);
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{says}");
        assert!(says.contains("These would be 1001 tags, and there may be 1000."), "{says}");
        assert_eq!(add(tags(0..1_000)).await.0, StatusCode::NO_CONTENT, "nothing of it was kept");
        assert_eq!(add(tags(999..1_000)).await.0, StatusCode::NO_CONTENT, "it has that one");
        assert_eq!(add(tags(1_000..1_001)).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    }
}
