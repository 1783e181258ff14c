//! What the pool API does not accept: pages call the same functions as its clients do, so a rule
//! has one place, and one text.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::error::PageError;
use crate::api::json_api::ApiError;
use crate::api::pools::{CallError, Payload};
use crate::reopened;

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
    /// The server failed, or what the form is about is not there: no other form would be
    /// accepted.
    pub(super) fn of(error: ApiError) -> Result<Self, PageError> {
        if error.is_not_found() {
            return Err(PageError::NotFound("thing"));
        }
        if !error.is_refusal() {
            return Err(PageError::Failed(anyhow::anyhow!("{}", error.text())));
        }
        Ok(Self::all(error.all().map(|error| (error.field(), error.text()))))
    }

    /// The same of a call of the API.
    ///
    /// # Errors
    /// The server failed, or what the form is about is not there.
    pub(super) fn of_call(error: CallError) -> Result<Self, PageError> {
        match error {
            CallError::Refused(wrong) => {
                let all = wrong.iter().map(|wrong| (wrong.field.as_deref(), wrong.text.as_str()));
                Ok(Self::all(all))
            }
            error => Err(error.into()),
        }
    }

    fn all<'a>(wrong: impl Iterator<Item = (Option<&'a str>, &'a str)>) -> Self {
        let mut all = Self::default();
        for (field, text) in wrong {
            // What the API calls null, a form leaves empty.
            let text =
                text.replace(", or null.", ", or is left empty.").replace("; null:", "; empty:");
            match field {
                Some(field) => drop(all.fields.insert(field.to_owned(), text)),
                None => all.text = Some(text),
            }
        }
        all
    }

    /// What a form shows that has only these fields: the rest is wrong with the whole of it.
    pub(super) fn beside(mut self, names: &[&str]) -> Self {
        let (beside, others) =
            self.fields.into_iter().partition(|(name, _)| names.contains(&name.as_str()));
        self.fields = beside;
        let others: BTreeMap<String, String> = others;
        let others =
            others.iter().map(|(name, text)| format!("{}: {text}", name.replace('-', " ")));
        let texts: Vec<String> = self.text.into_iter().chain(others).collect();
        self.text = (!texts.is_empty()).then(|| texts.join(" "));
        self
    }

    /// What is wrong with the field `name`, which a form has as another one.
    pub(super) fn renamed(mut self, name: &str, shown: &str) -> Self {
        if let Some(text) = self.fields.remove(name) {
            self.fields.insert(shown.to_owned(), text);
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.text.is_none() && self.fields.is_empty()
    }

    /// The status of a form's page.
    pub(super) fn status(&self) -> StatusCode {
        if self.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY }
    }
}

/// A resource of a kind as the API takes it. Both are objects.
///
/// # Errors
/// The API does not take such values.
pub(super) fn payload(
    kind: &str,
    attributes: Value,
    relationships: Value,
) -> Result<Payload, ApiError> {
    if reopened::is_reopened() {
        return Err(ApiError::conflict(reopened::WHY));
    }
    let object = |value: Value| match value {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    };
    Payload::of(kind, object(attributes), object(relationships))
}
