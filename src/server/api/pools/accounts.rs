//! Accounts.

use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::payload::Payload;
use super::query::ListQuery;
use super::the_account;
use crate::api::calls::Calls;
use crate::api::json_api::{ApiError, Document};
use crate::app::App;
use crate::clock::rfc3339;
use crate::store::account::Account;
use crate::store::{Connection, Listed};

pub(super) fn calls() -> Calls {
    Calls::default()
        .get("/accounts", "List accounts", list)
        .get("/accounts/{id}", "Read an account", read)
        .patch("/accounts/{id}", "Change an account", update)
}

async fn list(State(app): State<App>, query: ListQuery) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    let account = the_account(&mut db).await?;
    let mut accounts = vec![account];
    accounts.retain(|account| query.filter("name").is_none_or(|name| name == account.name));
    accounts.retain(|account| query.searches(&account.name));
    let total = accounts.len() as i64;
    if query.page.number > 1 {
        accounts.clear();
    }
    let listed = Listed { rows: accounts, total };
    Ok(Document::page(listed.rows.iter().map(render).collect(), listed.total, query.page))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

/// Nothing of an account can be changed; what clients write is checked, and accepted where it
/// asks for what is so anyway.
async fn update(
    State(app): State<App>,
    Path(id): Path<String>,
    _: Payload,
) -> Result<Document, ApiError> {
    let mut db = app.scheduler.store.read().await?;
    Ok(Document::of(render(&find(&mut db, &id).await?)))
}

async fn find(db: &mut Connection, id: &str) -> Result<Account, ApiError> {
    let account = the_account(db).await?;
    match account.id == id {
        true => Ok(account),
        false => Err(ApiError::not_found("Account", id)),
    }
}

/// The accounts with these ids.
pub(super) async fn load(db: &mut Connection, ids: &[&str]) -> Result<Vec<Value>, ApiError> {
    let account = the_account(db).await?;
    Ok(if ids.contains(&account.id.as_str()) { vec![render(&account)] } else { Vec::new() })
}

fn render(account: &Account) -> Value {
    json!({
        "type": "accounts",
        "id": account.id,
        "attributes": { "name": account.name, "created-at": rfc3339(account.created_at) },
    })
}
