//! Where a webhook is, and what is sent with each of its calls.

use serde::{Deserialize, Serialize};

use protocol::Secret;

/// Where calls go; kept as a JSON object. All of it may be secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Webhook {
    /// Its URL, if it has one.
    pub url: Option<Secret>,
    /// What is sent with each call.
    #[serde(default)]
    pub headers: Vec<WebhookHeader>,
    /// What calls are signed with; those of pools are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key: Option<Secret>,
}

/// A header of a call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct WebhookHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Secret,
    /// Whether the value is never shown again.
    pub sensitive: bool,
}

impl Webhook {
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts have a form in JSON")
    }
}

impl TryFrom<String> for Webhook {
    type Error = serde_json::Error;

    fn try_from(json: String) -> Result<Self, Self::Error> {
        serde_json::from_str(&json)
    }
}
