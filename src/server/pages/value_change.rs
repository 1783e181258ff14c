//! A value that differs between two states or in a plan, for people. Sensitive values are not
//! in it.

use serde::Serialize;
use serde_json::Value;

/// The longest value that is shown whole, in characters.
const MAX_VALUE: usize = 400;

/// What stands for a value that nobody is to see, as in Terraform's own output.
pub(super) const HIDDEN: &str = "(sensitive value)";

/// Names of attributes that hold secrets, also where nothing marks them: many are not.
const SECRET_NAMES: [&str; 7] =
    ["password", "secret", "token", "private_key", "access_key", "credential", "passphrase"];

/// A value that differs, as JSON; none where there is none.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct ValueChange {
    pub name: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Whether an attribute with this name may hold a secret.
pub(super) fn has_secret_name(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

/// A value for people; none for null.
pub(super) fn shown(value: &Value, is_secret: bool) -> Option<String> {
    match value {
        Value::Null => None,
        _ if is_secret => Some(HIDDEN.to_owned()),
        // The agent has masked it.
        Value::String(text) if text == HIDDEN => Some(HIDDEN.to_owned()),
        value => Some(shortened(value.to_string())),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(MAX_VALUE) {
        None => text,
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
    }
}
