//! The first start: account, environment and the admin's token.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;

use super::scheduler::Scheduler;
use super::store::access_token::{self, AccessToken};
use super::store::account::{self, Account};
use super::store::environment::{self, Environment};
use super::token::{Issued, new_id};
use crate::secret::Secret;

/// Makes what a new server needs; the admin's token if it did, and nothing if
/// it was there already.
///
/// # Errors
/// It can't be written; then the next start is the first one again.
pub async fn prepare(scheduler: &Scheduler, token_file: Option<&Path>) -> Result<Option<Secret>> {
    let now = scheduler.clock.now();
    let mut tx = scheduler.store.write().await?;
    if account::only(&mut tx).await?.is_some() {
        return Ok(None);
    }
    let account = Account { id: new_id("acc"), name: "default".to_owned(), created_at: now };
    account::insert(&mut tx, &account).await?;
    let environment = Environment {
        id: new_id("env"),
        account_id: account.id.clone(),
        name: "default".to_owned(),
        default_pool_id: None,
        created_at: now,
    };
    environment::insert(&mut tx, &environment).await?;
    let id = new_id("at");
    let issued = Issued::new(&id);
    let token = AccessToken {
        id,
        account_id: account.id.clone(),
        pool_id: None,
        name: Some("admin".to_owned()),
        description: None,
        secret_hash: issued.secret_hash,
        created_at: now,
        expires_at: None,
        last_used_at: None,
    };
    access_token::insert(&mut tx, &token).await?;
    if let Some(file) = token_file {
        write_private(file, issued.token.expose())
            .with_context(|| format!("cannot write the admin's token into {}", file.display()))?;
    }
    tx.commit().await?;
    info!(account = account.id, environment = environment.id, "first start");
    Ok(Some(issued.token))
}

/// Writes a file that only its owner can read, whole or not at all.
fn write_private(file: &Path, token: &str) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    // A temporary file has mode 0600.
    let mut temporary = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    writeln!(temporary, "{token}")?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    Ok(())
}
