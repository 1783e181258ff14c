//! Organizations: environments, as Terraform knows them.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::projects;
use super::query::ListQuery;
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document, to_one};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::environment::{self, Environment, Filter};
use crate::store::{Connection, Page};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/organizations", About::page("List organizations", "organizations"), list)
        .get(
            "/organizations/{organization}",
            About::one("Read an organization", StatusCode::OK, "organizations"),
            read,
        )
        .get(
            "/organizations/{organization}/entitlement-set",
            About::one("Read what an organization may do", StatusCode::OK, "entitlement-sets"),
            entitlements,
        )
}

/// The environment that an organization is.
pub(super) async fn find(db: &mut Connection, organization: &str) -> Result<Environment, ApiError> {
    if let Some(environment) = environment::find(db, organization).await? {
        return Ok(environment);
    }
    let filter = Filter { name: Some(organization), ..Filter::default() };
    let named = environment::list(db, filter, Page { number: 1, size: 1 }).await?;
    named.rows.into_iter().next().ok_or_else(|| ApiError::not_found("Organization", organization))
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let listed = environment::list(&mut db, Filter::default(), query.page).await?;
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

async fn read(
    State(app): State<App>,
    Path(organization): Path<String>,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &organization).await?)))
}

async fn entitlements(
    State(app): State<App>,
    Path(organization): Path<String>,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = find(&mut db, &organization).await?;
    Ok(Document::of(json!({
        "type": "entitlement-sets",
        "id": environment.id,
        "attributes": {
            "agents": true,
            "operations": true,
            "state-storage": true,
            "cost-estimation": false,
            "private-module-registry": false,
            "run-tasks": false,
            "sentinel": false,
            "sso": false,
            "teams": false,
            "vcs-integrations": false,
        },
    })))
}

fn render(environment: &Environment) -> Value {
    json!({
        "type": "organizations",
        // What Terraform names an organization by.
        "id": environment.name,
        "attributes": {
            "name": environment.name,
            "external-id": environment.id,
            "created-at": rfc3339(environment.created_at),
            "default-execution-mode": "remote",
            "permissions": {
                "can-create-workspace": true,
                "can-create-workspace-migration": true,
                "can-destroy": false,
                "can-update": false,
            },
        },
        "relationships": {
            "default-project": to_one("projects", Some(&projects::id_of(environment))),
        },
    })
}
