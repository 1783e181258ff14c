//! The first start, and admins' tokens.

use std::path::Path;

use anyhow::{Context as _, Result};
use tracing::info;

use super::clock::Millis;
use super::store::access_token::{self, AccessToken};
use super::store::account::{self, Account};
use super::store::environment::{self, Environment};
use super::store::{Connection, Store};
use super::token::{NewToken, new_id};
use cli::Failure;
use cli::whole_file::WholeFile;
use protocol::Secret;

/// Makes what a new server needs: account, environment and the admin's token,
/// which it gives. Nothing if the server is not new.
///
/// # Errors
/// Something can't be written; then the next start is the first one again.
pub(crate) async fn first_start(
    store: &Store,
    now: Millis,
    token_file: Option<&Path>,
) -> Result<Option<Secret>> {
    let mut tx = store.write().await?;
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
    let token = issue(&mut tx, &account, now, token_file).await?;
    tx.commit().await?;
    info!(account = account.id, environment = environment.id, "first start");
    Ok(Some(token))
}

/// Makes another admin's token, for when the first one is lost.
///
/// # Errors
/// The server was never started, or something can't be written.
pub(crate) async fn another_token(
    store: &Store,
    now: Millis,
    token_file: Option<&Path>,
) -> Result<Secret> {
    let mut tx = store.write().await?;
    let account = account::only(&mut tx).await?.ok_or_else(|| {
        Failure::Usage.because("no server was ever started in this folder; see --data")
    })?;
    let token = issue(&mut tx, &account, now, token_file).await?;
    tx.commit().await?;
    Ok(token)
}

async fn issue(
    db: &mut Connection,
    account: &Account,
    now: Millis,
    token_file: Option<&Path>,
) -> Result<Secret> {
    let id = new_id("at");
    let issued = NewToken::new(&id);
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
    access_token::insert(db, &token).await?;
    if let Some(file) = token_file {
        WholeFile::at(file)
            .write(format!("{}\n", issued.token.expose()))
            .context("cannot save the admin's token")?;
    }
    Ok(issued.token)
}
