//! Projects: an environment has one, with all of its workspaces. An environment of its own
//! does what a further project would.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::organizations;
use super::query::ListQuery;
use crate::api::calls::{About, Calls, text};
use crate::api::json_api::{ApiError, Document, MEDIA_TYPE, to_one};
use crate::app::App;
use crate::store::environment::{self, Environment};

/// The project's name, as HCP Terraform's first one has it.
pub(super) const NAME: &str = "Default Project";

/// What a project's id begins with, before the environment's.
const PREFIX: &str = "prj-";

pub(super) fn calls() -> Calls {
    Calls::default()
        .get(
            "/organizations/{organization}/projects",
            About::page("List the projects of an organization", "projects")
                .parameter("filter[names]", text)
                .parameter("q", text),
            list,
        )
        .post(
            "/organizations/{organization}/projects",
            About::from("Create a project")
                .details("It is always refused: an environment has one project.")
                .takes(MEDIA_TYPE, false, || json!({ "type": "object" })),
            create,
        )
        .get("/projects/{id}", About::one("Read a project", StatusCode::OK, "projects"), read)
}

/// The id of an environment's project.
pub(super) fn id_of(environment: &Environment) -> String {
    format!("{PREFIX}{}", environment.id)
}

async fn list(
    State(app): State<App>,
    Path(organization): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = organizations::find(&mut db, &organization).await?;
    let is_named = query
        .get("filter[names]")
        .is_none_or(|names| names.split(',').any(|name| name.eq_ignore_ascii_case(NAME)));
    let is_searched = query.get("q").is_none_or(|text| NAME.to_lowercase().contains(text));
    let projects = if is_named && is_searched { vec![render(&environment)] } else { Vec::new() };
    let total = i64::from(!projects.is_empty());
    Ok(Document::page(projects, total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let environment = match id.strip_prefix(PREFIX) {
        Some(environment) => environment::find(&mut db, environment).await?,
        None => None,
    };
    let environment = environment.ok_or_else(|| ApiError::not_found("Project", &id))?;
    Ok(Document::of(render(&environment)))
}

async fn create() -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Unsupported Project").detail(format!(
        "An environment has one project, \"{NAME}\". Leave `project` out of the configuration, or \
         make an environment for these workspaces."
    ))
}

fn render(environment: &Environment) -> Value {
    json!({
        "type": "projects",
        "id": id_of(environment),
        "attributes": {
            "name": NAME,
            "description": "All workspaces of the environment.",
            "permissions": { "can-create-workspace": true, "can-update": false },
        },
        "relationships": { "organization": to_one("organizations", Some(&environment.name)) },
    })
}
