//! Who needs a pool, and so keeps it from being deleted or from being shared with fewer.

use serde::Serialize;

use super::error::PageError;
use crate::store::{Connection, environment, workspace};

#[derive(Debug, Default, Serialize)]
pub(super) struct PoolUsers {
    /// Workspaces that are linked to it.
    workspaces: Vec<User>,
    /// Environments whose default it is.
    environments: Vec<User>,
}

#[derive(Debug, Serialize)]
struct User {
    id: String,
    name: String,
}

impl PoolUsers {
    /// Those in environments that are not left to the pool.
    pub(super) async fn outside(
        db: &mut Connection,
        pool_id: &str,
        left: &[&str],
    ) -> Result<Self, PageError> {
        let linked = workspace::of_pool(db, pool_id).await?.into_iter();
        let linked = linked.filter(|workspace| !left.contains(&workspace.environment_id.as_str()));
        let workspaces = linked.map(|workspace| User { id: workspace.id, name: workspace.name });
        let ids = environment::with_default_pool(db, pool_id).await?;
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let ids: Vec<&str> = ids.into_iter().filter(|id| !left.contains(id)).collect();
        let environments = environment::with_ids(db, &ids).await?.into_iter();
        let environments = environments.map(|one| User { id: one.id, name: one.name });
        Ok(Self { workspaces: workspaces.collect(), environments: environments.collect() })
    }
}
