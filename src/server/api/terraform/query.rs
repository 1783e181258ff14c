//! The query of a list: which page, and what Terraform asks for.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::api::json_api::{ApiError, MAX_PAGE};
use crate::store::Page;

/// A list's query.
#[derive(Debug)]
pub(super) struct ListQuery {
    /// Which page.
    pub page: Page,
    parameters: Vec<(String, String)>,
}

impl ListQuery {
    /// The value of a parameter, `search[name]` for example; none if it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        value(&self.parameters, name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(parameters) =
            Query::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let given = |name: &str| parameters.iter().find(|(known, _)| known == name);
        let number = |name: &str, default: i64| match given(name).map(|(_, text)| text.parse()) {
            None => Ok(default),
            Some(Ok(number)) if number >= 1 => Ok(number),
            Some(_) => Err(ApiError::parameter(name, "This parameter takes a number from 1.")),
        };
        let page = Page {
            number: number("page[number]", 1)?,
            size: number("page[size]", Page::default().size)?.min(MAX_PAGE),
        };
        Ok(Self { page, parameters })
    }
}

fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = parameters.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}
