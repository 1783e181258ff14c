//! Which things a transaction changed, for those who watch them: the pages that are open in
//! browsers.
//!
//! SQLite says itself which rows are written, so no writer has to, and none can forget it.
//! A topic is a table's name (`agents`), one thing (`agent:ID`), or [`REMOVED`].

use std::collections::{BTreeSet, HashSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sqlx::sqlite::SqliteOperation;
use sqlx::{Sqlite, Transaction};
use tokio::sync::broadcast;

use super::Connection;
use crate::metrics::{Metrics, Operation};

/// Something was deleted; what it was, nobody can look up any more.
pub(crate) const REMOVED: &str = "removed";

/// How many changes a watcher may lag behind before it has to look at everything.
const LAG: usize = 256;

/// What one transaction changed.
pub(crate) type Topics = Arc<BTreeSet<String>>;

/// Says what was changed.
#[derive(Clone, Debug)]
pub(crate) struct Changes(broadcast::Sender<Topics>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::Sender::new(LAG))
    }
}

impl Changes {
    /// What is changed from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Topics> {
        self.0.subscribe()
    }

    /// Takes notes of what `tx` writes, if anybody watches.
    pub(super) async fn note(
        &self,
        mut tx: Transaction<'static, Sqlite>,
        metrics: Metrics,
    ) -> sqlx::Result<WriteTransaction> {
        let rows = Arc::new(Mutex::new(HashSet::new()));
        if self.0.receiver_count() > 0 {
            // The connection outlives the transaction, and keeps the hook.
            let noted = Arc::downgrade(&rows);
            tx.lock_handle().await?.set_update_hook(move |change| {
                if let Some(noted) = noted.upgrade() {
                    let is_deleted = matches!(change.operation, SqliteOperation::Delete);
                    let table = change.table.to_owned();
                    let row = Row { table, rowid: change.rowid, is_deleted };
                    noted.lock().unwrap_or_else(PoisonError::into_inner).insert(row);
                }
            });
        }
        Ok(WriteTransaction { tx, rows, changes: self.clone(), metrics })
    }
}

/// A transaction for writing, which says what it changed when it is committed.
#[derive(Debug)]
pub(crate) struct WriteTransaction {
    tx: Transaction<'static, Sqlite>,
    rows: Arc<Mutex<HashSet<Row>>>,
    changes: Changes,
    metrics: Metrics,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Row {
    table: String,
    rowid: i64,
    is_deleted: bool,
}

impl WriteTransaction {
    /// Commits it.
    ///
    /// # Errors
    /// Nothing was written: the disk is full, for example.
    pub(crate) async fn commit(mut self) -> sqlx::Result<()> {
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(PoisonError::into_inner));
        let mut topics = BTreeSet::new();
        for row in rows {
            topics.extend(topics_of(&mut self.tx, &row).await?);
        }
        let begun = Instant::now();
        self.tx.commit().await?;
        self.metrics.database(Operation::Commit, begun.elapsed());
        if !topics.is_empty() {
            // An error means that nobody watches any more.
            let _ = self.changes.0.send(Arc::new(topics));
        }
        Ok(())
    }
}

impl Deref for WriteTransaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.tx
    }
}

impl DerefMut for WriteTransaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.tx
    }
}

async fn topics_of(db: &mut Connection, row: &Row) -> sqlx::Result<Vec<String>> {
    let things = match row.table.as_str() {
        "agent_pools" => {
            sqlx::query_scalar("SELECT 'pool:' || id FROM agent_pools WHERE rowid = $1")
        }
        "pool_environments" => {
            sqlx::query_scalar("SELECT 'pool:' || pool_id FROM pool_environments WHERE rowid = $1")
        }
        "access_tokens" => {
            sqlx::query_scalar("SELECT 'pool:' || pool_id FROM access_tokens WHERE rowid = $1")
        }
        "agents" => sqlx::query_scalar(
            "SELECT 'agent:' || id FROM agents WHERE rowid = $1
             UNION SELECT 'pool:' || pool_id FROM agents WHERE rowid = $1",
        ),
        "webhook_integrations" => {
            sqlx::query_scalar("SELECT 'webhook:' || id FROM webhook_integrations WHERE rowid = $1")
        }
        "webhook_integration_environments" => sqlx::query_scalar(
            "SELECT 'webhook:' || integration_id FROM webhook_integration_environments
             WHERE rowid = $1",
        ),
        "webhook_deliveries" => sqlx::query_scalar(
            "SELECT 'webhook:' || integration_id FROM webhook_deliveries WHERE rowid = $1",
        ),
        "hooks" => sqlx::query_scalar("SELECT 'hook:' || id FROM hooks WHERE rowid = $1"),
        "hook_environment_links" => sqlx::query_scalar(
            "SELECT 'hook:' || hook_id FROM hook_environment_links WHERE rowid = $1",
        ),
        "page_sessions" => {
            sqlx::query_scalar("SELECT 'session:' || id FROM page_sessions WHERE rowid = $1")
        }
        "environments" => {
            sqlx::query_scalar("SELECT 'environment:' || id FROM environments WHERE rowid = $1")
        }
        "workspaces" => sqlx::query_scalar(
            "SELECT 'workspace:' || id FROM workspaces WHERE rowid = $1
             UNION SELECT 'pool:' || pool_id FROM workspaces WHERE rowid = $1",
        ),
        "variables" => sqlx::query_scalar(
            "SELECT 'workspace:' || workspace_id FROM variables WHERE rowid = $1",
        ),
        "state_versions" => sqlx::query_scalar(
            "SELECT 'workspace:' || workspace_id FROM state_versions WHERE rowid = $1",
        ),
        "runs" => sqlx::query_scalar(
            "SELECT 'run:' || id FROM runs WHERE rowid = $1
             UNION SELECT 'workspace:' || workspace_id FROM runs WHERE rowid = $1",
        ),
        "run_events" => {
            sqlx::query_scalar("SELECT 'run:' || run_id FROM run_events WHERE rowid = $1")
        }
        "tasks" => sqlx::query_scalar(
            "SELECT 'run:' || run_id FROM tasks WHERE rowid = $1
             UNION SELECT 'pool:' || pool_id FROM tasks WHERE rowid = $1
             UNION SELECT 'agent:' || agent_id FROM tasks WHERE rowid = $1",
        ),
        _ => return Ok(Vec::new()),
    };
    if row.is_deleted {
        return Ok(vec![row.table.clone(), REMOVED.to_owned()]);
    }
    let things: Vec<Option<String>> = things.bind(row.rowid).fetch_all(db).await?;
    let table = std::iter::once(row.table.clone());
    Ok(table.chain(things.into_iter().flatten()).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Store, account};
    use super::*;
    use crate::store::agent_pool::{self, AgentPool};

    async fn pool(store: &Store, name: &str) -> WriteTransaction {
        let mut tx = store.write().await.unwrap();
        let account =
            account::Account { id: format!("acc-{name}"), name: name.into(), created_at: 0 };
        account::insert(&mut tx, &account).await.unwrap();
        let pool = AgentPool {
            id: format!("apool-{name}"),
            account_id: account.id,
            name: name.to_owned(),
            is_default: false,
            is_shared: true,
            image: None,
            max_concurrency: None,
            webhook_enabled: false,
            webhook: Default::default(),
            created_at: 0,
        };
        agent_pool::insert(&mut tx, &pool).await.unwrap();
        tx
    }

    #[tokio::test]
    async fn a_watcher_learns_of_what_was_committed_and_of_nothing_else() {
        let (store, _folder) = Store::temporary().await;
        let mut watcher = store.changes.watch();
        drop(pool(&store, "undone").await);
        pool(&store, "one").await.commit().await.unwrap();
        let topics: Vec<_> = watcher.recv().await.unwrap().iter().cloned().collect();
        assert_eq!(topics, ["agent_pools", "pool:apool-one"]);
        let mut tx = store.write().await.unwrap();
        agent_pool::delete(&mut tx, "apool-one").await.unwrap();
        tx.commit().await.unwrap();
        let topics: Vec<_> = watcher.recv().await.unwrap().iter().cloned().collect();
        assert_eq!(topics, ["agent_pools", REMOVED]);
        assert!(watcher.try_recv().is_err());
    }
}
