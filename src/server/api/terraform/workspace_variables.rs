//! Variables of workspaces: `terraform import` works on the client's machine and needs them.

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::query::ListQuery;
use crate::api::calls::{About, Calls};
use crate::api::json_api::{ApiError, Document};
use crate::api::pools::workspaces;
use crate::app::App;
use crate::inherited_variables::{Inherited, resolve};
use crate::store::variable::{self, Category};

pub(super) fn calls() -> Calls {
    Calls::default().get(
        "/workspaces/{id}/vars",
        About::page("List the variables that the runs of a workspace get", "vars"),
        list,
    )
}

/// All that its runs get: Terraform reads the first page alone.
async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    query: ListQuery,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    workspaces::find(&mut db, &id).await?;
    let resources: Vec<Value> =
        resolve(variable::reaching(&mut db, &id).await?).iter().map(render).collect();
    let total = i64::try_from(resources.len()).unwrap_or(i64::MAX);
    Ok(Document::page(resources, total, query.page))
}

fn render(inherited: &Inherited) -> Value {
    let variable = &inherited.winner;
    let is_sensitive = inherited.is_sensitive();
    json!({
        "type": "vars",
        "id": variable.id,
        "attributes": {
            "key": variable.key,
            "value": (!is_sensitive).then(|| variable.value.0.expose()),
            "category": match variable.category {
                Category::Terraform => "terraform",
                Category::Shell => "env",
            },
            "hcl": variable.hcl,
            "sensitive": is_sensitive,
            "description": variable.description,
        },
    })
}
