//! Ids and tokens.
//!
//! A token is `ID.SECRET`: the id finds the row, the secret (256 random bits)
//! is compared with the stored SHA-256 in constant time. The secret itself is
//! shown once and kept nowhere, and since it is random and long, a plain hash
//! protects it as well as a slow one would.

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use protocol::Secret;

/// A new id: `prefix`, a dash and 72 random bits in hex.
pub(crate) fn new_id(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(rand::random::<[u8; 9]>()))
}

/// A new token.
#[derive(Debug)]
pub(crate) struct NewToken {
    /// The owner's part: `ID.SECRET`.
    pub token: Secret,
    /// The database's part.
    pub secret_hash: String,
}

impl NewToken {
    /// A new token that belongs to the row with `id`.
    pub(crate) fn new(id: &str) -> Self {
        let secret = hex::encode(rand::random::<[u8; 32]>());
        Self { token: Secret::new(format!("{id}.{secret}")), secret_hash: hash(&secret) }
    }
}

/// The token of a request, not checked yet.
#[derive(Clone, Debug)]
pub(crate) struct PresentedToken {
    /// The row that it claims to belong to.
    pub id: String,
    secret: Secret,
}

impl PresentedToken {
    /// Takes a token apart; none if it has not a token's form.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let (id, secret) = token.rsplit_once('.')?;
        Some(Self { id: id.to_owned(), secret: Secret::new(secret) })
    }

    /// Whether it is the token whose hash is stored.
    pub(crate) fn matches(&self, secret_hash: &str) -> bool {
        hash(self.secret.expose()).as_bytes().ct_eq(secret_hash.as_bytes()).into()
    }
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_recognised_by_its_hash_alone() {
        let issued = NewToken::new("at-1");
        let shown = PresentedToken::parse(issued.token.expose()).unwrap();
        assert_eq!(shown.id, "at-1");
        assert!(shown.matches(&issued.secret_hash));
        assert!(!shown.matches(&NewToken::new("at-1").secret_hash));
        assert!(!format!("{issued:?}{shown:?}").contains(shown.secret.expose()));
    }
}
