//! The first start, and admins' tokens.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tracing::info;

use super::clock::{Millis, rfc3339};
use super::scheduler::millis;
use super::store::access_token::{self, AccessToken};
use super::store::account::{self, Account};
use super::store::environment::{self, Environment};
use super::store::{Connection, Page, Store};
use super::token::{NewToken, PresentedToken, new_id};
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
    let new = new_token(&account, now, "admin", None);
    let token = issue(&mut tx, new, token_file).await?;
    tx.commit().await?;
    info!(account = account.id, environment = environment.id, "first start");
    Ok(Some(token))
}

/// Makes another admin's token.
///
/// # Errors
/// The server was never started, the name is no good, or something can't be written.
pub(crate) async fn another_token(
    store: &Store,
    now: Millis,
    name: &str,
    expires_in: Option<Duration>,
    token_file: Option<&Path>,
) -> Result<Secret> {
    if name.is_empty() || name.chars().count() > 255 || name.chars().any(char::is_control) {
        return Err(Failure::Usage.because("--name takes 1 to 255 printable characters"));
    }
    let mut tx = store.write().await?;
    let account = account::only(&mut tx).await?.ok_or_else(|| {
        Failure::Usage.because("no server was ever started in this folder; see --data")
    })?;
    let new = new_token(&account, now, name, expires_in);
    let token = issue(&mut tx, new, token_file).await?;
    tx.commit().await?;
    Ok(token)
}

/// The admin's token that `shown` is. It may have expired.
pub(crate) async fn of_token(
    db: &mut Connection,
    shown: &PresentedToken,
) -> sqlx::Result<Option<AccessToken>> {
    let found = access_token::find(db, &shown.id).await?;
    Ok(found.filter(|token| shown.matches(&token.secret_hash) && token.pool_id.is_none()))
}

/// The admins' tokens as a table, oldest first.
///
/// # Errors
/// They can't be read.
pub(crate) async fn list(store: &Store, now: Millis) -> Result<String> {
    let mut db = store.read().await?;
    let all = Page { number: 1, size: i64::MAX };
    let tokens = access_token::list_admins(&mut db, all).await?.rows;
    let mut text = row(["ID", "CREATED", "LAST USED", "EXPIRES", "NAME"]);
    let time = |time: Option<Millis>| time.map_or_else(|| "never".to_owned(), to_the_second);
    for token in tokens {
        let expires = match token.is_expired(now) {
            true => "expired".to_owned(),
            false => time(token.expires_at),
        };
        let (created, used) = (to_the_second(token.created_at), time(token.last_used_at));
        let name = token.name.as_deref().unwrap_or_default();
        text.push_str(&row([&token.id, &created, &used, &expires, name]));
    }
    Ok(text)
}

/// Revokes an admin's token.
///
/// # Errors
/// There is no such token, or it is the last one that works and `force` is not set.
pub(crate) async fn revoke(store: &Store, now: Millis, id: &str, force: bool) -> Result<()> {
    let mut tx = store.write().await?;
    let token = access_token::find(&mut tx, id).await?.filter(|token| token.pool_id.is_none());
    let token = token.ok_or_else(|| {
        let text = format!(
            "there is no admin's token {id}; `scalr-server admin-token list` shows the tokens"
        );
        Failure::Usage.because(text)
    })?;
    if !force && access_token::is_last_admin(&mut tx, &token, now).await? {
        return Err(Failure::Usage.because(format!(
            "cannot revoke {id}: it is the last admin's token that works. Make another one with \
             `scalr-server admin-token create` first, or revoke it all the same with --force; this \
             host can make a new one at any time"
        )));
    }
    access_token::delete(&mut tx, id).await?;
    Ok(tx.commit().await?)
}

fn row(cells: [&str; 5]) -> String {
    let [id, created, used, expires, name] = cells;
    let line = format!("{id:<21}  {created:<20}  {used:<20}  {expires:<20}  {name}");
    format!("{}\n", line.trim_end())
}

fn to_the_second(time: Millis) -> String {
    rfc3339(time / 1_000 * 1_000)
}

/// A token that is not in the database yet, and its owner's part.
fn new_token(
    account: &Account,
    now: Millis,
    name: &str,
    expires_in: Option<Duration>,
) -> (AccessToken, Secret) {
    let id = new_id("at");
    let issued = NewToken::new(&id);
    let token = AccessToken {
        id,
        account_id: account.id.clone(),
        pool_id: None,
        name: Some(name.to_owned()),
        description: None,
        secret_hash: issued.secret_hash,
        created_at: now,
        expires_at: expires_in.map(|time| now.saturating_add(millis(time))),
        last_used_at: None,
        for_one_agent: false,
        agent_id: None,
    };
    (token, issued.token)
}

async fn issue(
    db: &mut Connection,
    (token, secret): (AccessToken, Secret),
    token_file: Option<&Path>,
) -> Result<Secret> {
    access_token::insert(db, &token).await?;
    if let Some(file) = token_file {
        WholeFile::at(file)
            .write(format!("{}\n", secret.expose()))
            .context("cannot save the admin's token")?;
    }
    Ok(secret)
}
