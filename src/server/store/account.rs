//! Accounts. A server has one.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

/// An account.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Account {
    /// `acc-…`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Millis,
}

/// Writes a new account.
pub(crate) async fn insert(db: &mut Connection, account: &Account) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO accounts (id, name, created_at) VALUES ($1, $2, $3)")
        .bind(&account.id)
        .bind(&account.name)
        .bind(account.created_at)
        .execute(db)
        .await
        .map(drop)
}

/// The server's account; none before its first start is through.
pub(crate) async fn only(db: &mut Connection) -> sqlx::Result<Option<Account>> {
    sqlx::query_as("SELECT * FROM accounts ORDER BY created_at LIMIT 1").fetch_optional(db).await
}
