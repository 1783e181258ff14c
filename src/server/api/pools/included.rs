//! Related resources: what `include` asks for.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::resource_types::ResourceType;
use super::{
    accounts, agent_pools, agents, configuration_versions, environments, hooks, phases, runs,
    state_versions, tags, webhook_integrations, workspaces,
};
use crate::api::json_api::ApiError;
use crate::app::App;
use crate::store::Connection;

/// How many ids stand in one statement: SQLite takes 32766.
const IDS: usize = 30_000;

/// A way from a resource to related ones: `run.workspace`.
#[derive(Debug)]
pub(super) struct IncludePath {
    /// The relationships, and the type of what each leads to: none for something that this
    /// server does not have.
    pub steps: Vec<(String, Option<&'static ResourceType>)>,
}

impl IncludePath {
    /// # Errors
    /// A resource on the way has no such relationship.
    pub(super) fn read(from: &'static ResourceType, path: &str) -> Result<Self, ApiError> {
        let mut steps = Vec::new();
        let mut at = Some(from);
        for name in path.split('.') {
            let Some(here) = at else { break };
            at = here.related_by(name).map_err(|known| {
                let detail =
                    format!("{} have nothing to include as {name}; there is: {known}.", here.name);
                ApiError::parameter("include", detail)
            })?;
            steps.push((name.to_owned(), at));
        }
        Ok(Self { steps })
    }
}

/// The related resources of `data`, each once and none that stands in `data`: a constant
/// number of statements for each step of a path.
pub(super) async fn included(
    app: &App,
    data: &Value,
    paths: &[IncludePath],
) -> Result<Vec<Value>, ApiError> {
    let primary = match data {
        Value::Array(resources) => resources.as_slice(),
        resource => std::slice::from_ref(resource),
    };
    let primary: BTreeMap<Identifier, &Value> =
        primary.iter().filter_map(|resource| Some((identifier(resource)?, resource))).collect();
    let mut included: BTreeMap<Identifier, Value> = BTreeMap::new();
    let mut db = app.scheduler.store.read().await?;
    for path in paths {
        let mut here: BTreeSet<Identifier> = primary.keys().cloned().collect();
        for (name, _) in &path.steps {
            let resources = here.iter().filter_map(|at| match primary.get(at) {
                Some(resource) => Some(*resource),
                None => included.get(at),
            });
            here = resources.flat_map(|resource| linked(resource, name)).collect();
            let missing = here
                .iter()
                .filter(|at| !primary.contains_key(*at) && !included.contains_key(*at))
                .cloned()
                .collect::<Vec<_>>();
            for resource in load_all(app, &mut db, &missing).await? {
                if let Some(at) = identifier(&resource) {
                    included.insert(at, resource);
                }
            }
        }
    }
    Ok(included.into_values().collect())
}

/// The type and the id of a resource.
type Identifier = (String, String);

fn identifier(resource: &Value) -> Option<Identifier> {
    Some((resource["type"].as_str()?.to_owned(), resource["id"].as_str()?.to_owned()))
}

/// What a relationship of a resource names.
fn linked(resource: &Value, name: &str) -> Vec<Identifier> {
    match &resource["relationships"][name]["data"] {
        Value::Array(many) => many.iter().filter_map(identifier).collect(),
        one => identifier(one).into_iter().collect(),
    }
}

async fn load_all(
    app: &App,
    db: &mut Connection,
    missing: &[Identifier],
) -> Result<Vec<Value>, ApiError> {
    let mut by_type: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, id) in missing {
        by_type.entry(name).or_default().push(id);
    }
    let mut loaded = Vec::new();
    for (name, ids) in by_type {
        for ids in ids.chunks(IDS) {
            loaded.extend(load(app, db, name, ids).await?);
        }
    }
    Ok(loaded)
}

async fn load(
    app: &App,
    db: &mut Connection,
    name: &str,
    ids: &[&str],
) -> Result<Vec<Value>, ApiError> {
    match name {
        "accounts" => accounts::load(db, ids).await,
        "agent-pools" => agent_pools::load(app, db, ids).await,
        "agents" => agents::load(app, db, ids).await,
        "applies" | "plans" => phases::load(db, ids).await,
        "configuration-versions" => configuration_versions::load(db, ids).await,
        "environments" => environments::load(db, ids).await,
        "hooks" => hooks::load(db, ids).await,
        "runs" => runs::load(db, ids).await,
        "state-versions" => state_versions::load(app, db, ids).await,
        "tags" => tags::load(db, ids).await,
        "webhook-integrations" => webhook_integrations::load(db, ids).await,
        "workspaces" => workspaces::load(db, ids).await,
        _ => Ok(Vec::new()),
    }
}
