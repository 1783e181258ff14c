//! The workspaces whose runs may read the state of one that does not share it with all.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};

use super::linkage::Linkage;
use super::query::ListQuery;
use super::workspaces;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document};
use crate::app::App;
use crate::store::remote_state;
use crate::store::workspace::{self, Filter};

const NAME: &str = "remote-state-consumers";

pub(super) fn calls() -> Calls {
    Calls::default()
        .get(
            "/workspaces/{id}/remote-state-consumers",
            "List the consumers of a workspace's state",
            list,
        )
        .post(
            "/workspaces/{id}/relationships/remote-state-consumers",
            "Add consumers of a workspace's state",
            change,
        )
        .patch(
            "/workspaces/{id}/relationships/remote-state-consumers",
            "Replace the consumers of a workspace's state",
            change,
        )
        .delete(
            "/workspaces/{id}/relationships/remote-state-consumers",
            "Remove consumers of a workspace's state",
            change,
        )
}

async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let filter = Filter { consumer_of: Some(&id), ..Filter::default() };
    let listed = workspace::list(&mut db, filter, query.view()).await?;
    let resources = workspaces::render_all(&mut db, &listed.rows).await?;
    Ok(Document::page(resources, listed.total, query.page))
}

/// POST adds consumers, PATCH replaces them all, DELETE removes them.
async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    method: Method,
    Linkage(consumers): Linkage,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.scheduler.store.write().await?;
    let owner = workspaces::find(&mut tx, &id).await?;
    if method == Method::PATCH {
        remote_state::remove_consumer(&mut tx, &id, None).await?;
    }
    for consumer_id in &consumers {
        if method == Method::DELETE {
            remote_state::remove_consumer(&mut tx, &id, Some(consumer_id)).await?;
            continue;
        }
        let consumer = workspace::find(&mut tx, consumer_id).await?;
        let consumer = consumer.ok_or_else(|| ApiError::no_related_many(NAME, consumer_id))?;
        if consumer.environment_id != owner.environment_id {
            return Err(ApiError::relationship(
                NAME,
                format!("The workspace {consumer_id} is in another environment."),
            ));
        }
        remote_state::add_consumer(&mut tx, &id, consumer_id).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::InProcess;

    struct Sharing {
        server: InProcess,
        owner: String,
        reader: String,
        run_token: String,
    }

    impl Sharing {
        /// A run of the workspace `reader`, and a state of the workspace `owner`.
        async fn new() -> Self {
            let server = InProcess::new().await;
            let owner = server.workspace.clone();
            let state = json!({ "version": 4, "serial": 1, "lineage": "l", "resources": [],
                "outputs": { "name": { "value": "x", "type": "string" } } });
            let state = state.to_string();
            let digest = <md5::Md5 as md5::Digest>::digest(state.as_bytes());
            let attributes = json!({
                "serial": 1, "lineage": "l", "md5": hex::encode(digest),
                "state": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, state),
            });
            server.create("/state-versions", attributes, &[("workspace", &owner)]).await;
            let (reader, _) = server.run().await;
            let claimed = server.claim().await;
            let run_token = claimed["run_token"].as_str().unwrap().to_owned();
            Self { server, owner, reader, run_token }
        }

        async fn share(&self, sharing: bool) {
            let path = format!("/workspaces/{}", self.owner);
            let attributes = json!({ "remote-state-sharing": sharing });
            let document = json!({ "data": { "attributes": attributes } });
            let answer = self.server.api(Method::PATCH, &path, document).await;
            assert_eq!(answer["data"]["attributes"]["remote-state-sharing"], sharing);
        }

        async fn change(&self, method: Method, ids: &[&str]) -> (StatusCode, Value) {
            let path = format!(
                "/api/iacp/v3/workspaces/{}/relationships/remote-state-consumers",
                self.owner
            );
            let data: Vec<_> =
                ids.iter().map(|id| json!({ "type": "workspaces", "id": id })).collect();
            let body = json!({ "data": data }).to_string();
            let (status, answer) =
                self.server.call(method, &path, &self.server.admin, &[], body).await;
            (status, serde_json::from_slice(&answer).unwrap_or_default())
        }

        /// Whether the run of the reader gets the owner's state, in both ways.
        async fn can_read(&self) -> bool {
            let get = async |call: &str| {
                let path = format!("/api/iacp/v3/workspaces/{}/{call}", self.owner);
                self.server.call(Method::GET, &path, &self.run_token, &[], "").await.0
            };
            let statuses = [get("outputs").await, get("current-state-version").await];
            assert_eq!(statuses[0], statuses[1]);
            statuses[0] == StatusCode::OK
        }
    }

    #[tokio::test]
    async fn a_state_that_is_not_shared_is_read_by_its_consumers_alone() {
        let site = Sharing::new().await;
        assert!(site.can_read().await, "without a choice the environment shares its states");
        site.share(false).await;
        assert!(!site.can_read().await);
        assert_eq!(site.change(Method::POST, &[&site.reader]).await.0, StatusCode::NO_CONTENT);
        assert!(site.can_read().await);
        let path = format!("/workspaces/{}/remote-state-consumers", site.owner);
        let listed = site.server.api(Method::GET, &path, Value::Null).await;
        assert_eq!(listed["data"][0]["id"], site.reader);
        assert_eq!(listed["meta"]["pagination"]["total-count"], 1);
        assert_eq!(site.change(Method::DELETE, &[&site.reader]).await.0, StatusCode::NO_CONTENT);
        assert!(!site.can_read().await);
        assert_eq!(site.change(Method::PATCH, &[&site.reader]).await.0, StatusCode::NO_CONTENT);
        assert!(site.can_read().await);
        assert_eq!(site.change(Method::PATCH, &[]).await.0, StatusCode::NO_CONTENT);
        assert!(!site.can_read().await);
        site.share(true).await;
        assert!(site.can_read().await);
    }

    #[tokio::test]
    async fn a_consumer_is_a_workspace_of_the_same_environment() {
        let site = Sharing::new().await;
        let (status, answer) = site.change(Method::POST, &["ws-none"]).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
        let server = &site.server;
        let other = server.create("/environments", json!({ "name": "other" }), &[]).await;
        let related = [("environment", other.as_str())];
        let other = server.create("/workspaces", json!({ "name": "other" }), &related).await;
        let (status, answer) = site.change(Method::POST, &[&other]).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    }
}
