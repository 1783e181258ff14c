//! What the server remembers: a table for each noun, a file for each table.
//!
//! The functions of the nouns take a connection, so that several of them can
//! stand in one transaction. Writes go through [`Store::write`]; since SQLite
//! has one writer at a time, what was read in such a transaction still holds
//! when it is written.

pub(crate) mod access_token;
pub(crate) mod account;
pub(crate) mod account_hook;
pub(crate) mod agent;
pub(crate) mod agent_change;
pub(crate) mod agent_pool;
pub(crate) mod changes;
pub(crate) mod configuration_version;
pub(crate) mod environment;
pub(crate) mod hook_link;
pub(crate) mod log_link;
pub(crate) mod login_code;
pub(crate) mod page_session;
pub(crate) mod pool_sample;
pub(crate) mod remote_state;
pub(crate) mod run;
pub(crate) mod run_event;
pub(crate) mod run_queue;
pub(crate) mod run_schedule;
pub(crate) mod run_settings;
pub(crate) mod run_trigger;
pub(crate) mod session;
pub(crate) mod sign_in_code;
pub(crate) mod state_upload;
pub(crate) mod state_version;
#[cfg(test)]
mod statements;
mod status_sets;
pub(crate) mod tag;
pub(crate) mod task;
pub(crate) mod variable;
pub(crate) mod webhook;
pub(crate) mod webhook_call;
pub(crate) mod webhook_delivery;
pub(crate) mod webhook_integration;
pub(crate) mod workspace;
pub(crate) mod workspace_tag;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, FromRow, QueryBuilder, Sqlite, SqlitePool};

use crate::metrics::{Metrics, Operation};
use crate::reopened;
use changes::Changes;
use status_sets::with_sets;

pub(crate) use changes::WriteTransaction;

/// How many connections for reading there are at most.
const READERS: u32 = 7;

/// How long a writer waits for the others at most.
const TURN: Duration = Duration::from_secs(30);

/// What a client gets whose request had no turn in time; none if that is not why it failed.
pub(crate) fn busy(error: &anyhow::Error) -> Option<&'static str> {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.find_map(|cause| match cause {
        sqlx::Error::PoolTimedOut => {
            Some("the server has more to do than its database takes. Try again in a minute")
        }
        _ => None,
    })
}

/// What the functions of the nouns work on.
pub(crate) type Connection = sqlx::SqliteConnection;

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    readers: SqlitePool,
    /// One connection, for which writers wait in turn. What it has read stays true while nobody
    /// else writes, so that it reads little again.
    writer: SqlitePool,
    /// What is written.
    pub changes: Changes,
    /// What is measured: how long the database takes, among others.
    pub metrics: Metrics,
}

impl Store {
    /// Opens the database in `file`, which is made if it is missing, and
    /// brings its tables up to date.
    ///
    /// # Errors
    /// It can't be opened, or a newer server wrote it.
    pub(crate) async fn open(file: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // What an agent was told must hold after a power cut: an apply
            // whose start was forgotten would be run twice.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let open = async {
            // A connection is a file here: asking whether it is still there costs as much as
            // what a poll asks.
            let pool = || SqlitePoolOptions::new().test_before_acquire(false);
            let writer = pool().max_connections(1).acquire_timeout(TURN);
            // It stays, with what it has read.
            let writer = writer.idle_timeout(None).max_lifetime(None);
            let writer = writer.connect_with(options.clone()).await?;
            sqlx::migrate!("store/migrations").run(&writer).await.map_err(cannot_upgrade)?;
            anyhow::Ok(Self {
                readers: pool().max_connections(READERS).connect_with(options).await?,
                writer,
                changes: Changes::default(),
                metrics: Metrics::default(),
            })
        };
        open.await.with_context(|| format!("cannot open the database {}", file.display()))
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// None gets free in time.
    pub(crate) async fn read(&self) -> sqlx::Result<PoolConnection<Sqlite>> {
        let begun = Instant::now();
        let connection = self.readers.acquire().await?;
        self.metrics.database(Operation::ReadWait, begun.elapsed());
        Ok(connection)
    }

    /// A transaction for writing; it is undone unless it is committed.
    ///
    /// # Errors
    /// The other writers don't end in time.
    pub(crate) async fn write(&self) -> sqlx::Result<WriteTransaction> {
        if reopened::is_reopened() {
            return Err(sqlx::Error::Protocol("a form was opened again, not sent".to_owned()));
        }
        // "Immediate" takes the write lock now: a transaction that reads first
        // and asks for it later can be refused.
        let begun = Instant::now();
        let tx = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        self.metrics.database(Operation::WriteWait, begun.elapsed());
        self.changes.note(tx, self.metrics.clone()).await
    }

    /// Closes the database.
    pub(crate) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn cannot_upgrade(error: MigrateError) -> anyhow::Error {
    match error {
        MigrateError::VersionMissing(version) => anyhow::anyhow!(
            "a newer server wrote it (its tables are of version {version})\n\
             Install that server again, or put what its package kept in place: before-upgrade.db \
             beside it is the database as it was before the upgrade."
        ),
        error => error.into(),
    }
}

/// Which part of a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    /// The page's number, from 1.
    pub number: i64,
    /// How many rows a page has.
    pub size: i64,
}

impl Default for Page {
    fn default() -> Self {
        Self { number: 1, size: 20 }
    }
}

/// Which rows of a list, and in which order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// The part of the list.
    pub page: Page,
    /// What the rows are sorted by, before the list's own order.
    pub order: &'a [Order],
    /// A text that they have.
    pub search: Option<Search<'a>>,
}

impl From<Page> for View<'_> {
    fn from(page: Page) -> Self {
        Self { page, order: &[], search: None }
    }
}

/// Names that clients sort a list by, each with its expression for the table `t`.
pub(crate) type Sorts = &'static [(&'static str, &'static str)];

/// What rows are sorted by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// One of [`Sorts`].
    pub expression: &'static str,
    /// Whether the greatest comes first.
    pub descending: bool,
}

/// A text that rows have in one of their columns, whatever the case of its letters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search<'a> {
    /// Columns of the table `t`.
    pub columns: &'static [&'static str],
    /// The text.
    pub text: &'a str,
}

/// A part of a list, and how long the whole list is.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    /// The page's rows.
    pub rows: Vec<T>,
    /// How many rows there are on all pages.
    pub total: i64,
}

/// Reads a page of the table named `t` in `from_where`, whose placeholders
/// `filters` fill; a filter that is none is to match everything. Rows that the
/// view has no order for are in that of `order`.
async fn list<T>(
    db: &mut Connection,
    from_where: &'static str,
    order: &'static str,
    filters: &[Option<&str>],
    view: View<'_>,
) -> sqlx::Result<Listed<T>>
where
    T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    let mut found = with_sets(from_where);
    if let Some(search) = view.search {
        let parameter = filters.len() + 1;
        let has = |column: &&str| format!("INSTR(LOWER({column}), ${parameter}) > 0");
        let columns: Vec<String> = search.columns.iter().map(has).collect();
        found += &format!(" AND ({})", columns.join(" OR "));
    }
    let mut sorted = String::new();
    for Order { expression, descending } in view.order {
        let direction = if *descending { " DESC" } else { "" };
        sorted += &format!("{expression}{direction}, ");
    }
    let Page { number, size } = view.page;
    let offset = (number - 1).saturating_mul(size);
    // Safe: the texts are the program's own, the rest are numbers.
    let count = AssertSqlSafe(format!("SELECT COUNT(*) {found}"));
    let select = AssertSqlSafe(format!(
        "SELECT t.* {found} ORDER BY {sorted}{order} LIMIT {size} OFFSET {offset}"
    ));
    let mut count = sqlx::query_scalar(count);
    let mut select = sqlx::query_as(select);
    // Not LIKE, which takes no pattern of more than 50,000 bytes.
    let searched = view.search.map(|search| search.text.to_ascii_lowercase());
    let searched = searched.iter().map(|text| Some(text.as_str()));
    for value in filters.iter().copied().chain(searched) {
        count = count.bind(value);
        select = select.bind(value);
    }
    Ok(Listed { rows: select.fetch_all(&mut *db).await?, total: count.fetch_one(db).await? })
}

/// Reads the rows whose column, the last word of `select`, is one of `ids`: a
/// page's related rows in one query. `rest` follows the condition.
async fn of_any<T>(
    db: &mut Connection,
    select: &'static str,
    ids: &[&str],
    rest: &'static str,
) -> sqlx::Result<Vec<T>>
where
    T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
{
    // PostgreSQL refuses an empty IN ().
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = QueryBuilder::<Sqlite>::new(with_sets(select));
    query.push(" IN (");
    let mut list = query.separated(", ");
    for id in ids {
        list.push_bind(*id);
    }
    query.push(") ").push(with_sets(rest));
    query.build_query_as().fetch_all(db).await
}

/// Whether `error` says that a name is taken.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

#[cfg(test)]
impl Store {
    /// A new database, and the folder it is in.
    pub(crate) async fn temporary() -> (Self, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Self::open(&folder.path().join("test.db")).await.unwrap(), folder)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Executor as _;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn a_newer_servers_database_is_refused_with_what_to_do() {
        let (store, folder) = Store::temporary().await;
        let mut db = store.read().await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations
                (version, description, installed_on, success, checksum, execution_time)
             SELECT 9000, description, installed_on, success, checksum, execution_time
             FROM _sqlx_migrations LIMIT 1",
        )
        .execute(&mut *db)
        .await
        .unwrap();
        drop(db);
        store.close().await;
        let error = Store::open(&folder.path().join("test.db")).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("a newer server wrote it (its tables are of version 9000)"),
            "{error}"
        );
        assert!(error.contains("before-upgrade.db"), "{error}");
    }

    #[tokio::test]
    async fn writers_that_wait_leave_connections_to_readers() {
        let (store, _folder) = Store::temporary().await;
        let first = store.write().await.unwrap();
        let mut waiting = JoinSet::new();
        for _ in 0..2 * READERS {
            let store = store.clone();
            waiting.spawn(async move { store.write().await.map(drop) });
        }
        // Each of them gets as far as it can.
        for _ in 0..4 * READERS {
            tokio::task::yield_now().await;
        }
        let read = tokio::time::timeout(Duration::from_secs(20), store.read()).await;
        read.expect("a reader waits for the writers").unwrap();
        drop(first);
        while let Some(written) = waiting.join_next().await {
            written.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn variables_of_an_older_server_belong_to_their_workspaces() {
        let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await;
        let mut db = pool.unwrap().acquire().await.unwrap();
        let migrations = sqlx::migrate!("store/migrations");
        let (before, after): (Vec<_>, Vec<_>) =
            migrations.iter().partition(|migration| migration.version < 20);
        for migration in before {
            db.execute(migration.sql.clone()).await.unwrap();
        }
        let old = "
            INSERT INTO accounts (id, name, created_at) VALUES ('acc-1', 'main', 0);
            INSERT INTO environments (id, account_id, name, created_at)
                VALUES ('env-1', 'acc-1', 'main', 0);
            INSERT INTO workspaces (id, environment_id, name, auto_apply, deletion_protection,
                created_at, updated_at) VALUES ('ws-1', 'env-1', 'main', FALSE, TRUE, 0, 0);
            INSERT INTO variables VALUES
                ('var-1', 'ws-1', 'size', '2', 'terraform', TRUE, TRUE, 'why', 7);";
        db.execute(old).await.unwrap();
        for migration in after {
            db.execute(migration.sql.clone()).await.unwrap();
        }
        let kept = variable::find(&mut db, "var-1").await.unwrap().unwrap();
        assert_eq!(kept.account_id, "acc-1");
        assert_eq!(kept.environment_id.as_deref(), Some("env-1"));
        assert_eq!(kept.workspace_id.as_deref(), Some("ws-1"));
        assert_eq!((kept.value.0.expose(), kept.hcl, kept.sensitive), ("2", true, true));
        assert_eq!((kept.is_final, kept.created_at, kept.updated_at), (false, 7, 7));
    }
}
