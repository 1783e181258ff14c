//! What the pool API does not accept: pages call the same functions as its clients do, so a rule
//! has one place, and one text.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::error::PageError;
use crate::api::json_api::ApiError;
use crate::api::pools::Payload;

/// Why a form was not accepted.
#[derive(Debug, Default, Serialize)]
pub(super) struct Refusal {
    /// What is wrong with the whole of it.
    pub text: Option<String>,
    /// What is wrong with a field, by the field's name.
    pub fields: BTreeMap<String, String>,
}

impl Refusal {
    /// All of it in one text.
    pub(super) fn whole(&self) -> String {
        let texts = self.text.iter().chain(self.fields.values());
        texts.map(String::as_str).collect::<Vec<_>>().join(" ")
    }

    /// Reads an error of the API.
    ///
    /// # Errors
    /// The server failed: no other form would be accepted.
    pub(super) fn of(error: ApiError) -> Result<Self, PageError> {
        if !error.is_refusal() {
            return Err(PageError::Failed(anyhow::anyhow!("{}", error.text())));
        }
        let text = error.text().to_owned();
        Ok(match error.field() {
            Some(field) => Self { text: None, fields: BTreeMap::from([(field.to_owned(), text)]) },
            None => Self { text: Some(text), fields: BTreeMap::new() },
        })
    }
}

/// A resource as the API takes it. Both are objects.
pub(super) fn payload(attributes: Value, relationships: Value) -> Payload {
    let object = |value: Value| match value {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    Payload::new(object(attributes), object(relationships))
}
