//! The query of a list: which page, and what Terraform asks for.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use crate::api::pools::ApiError;
use crate::store::Page;

/// How many resources a page has unless the client says so, and at most.
const SIZE: (i64, i64) = (20, 100);

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
        let number = |name: &str, default: i64| match value(&parameters, name).map(str::parse) {
            None => Ok(default),
            Some(Ok(number)) if number >= 1 => Ok(number),
            Some(_) => Err(ApiError::parameter(name, "This parameter takes a number from 1.")),
        };
        let page = Page {
            number: number("page[number]", 1)?,
            size: number("page[size]", SIZE.0)?.min(SIZE.1),
        };
        Ok(Self { page, parameters })
    }
}

fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = parameters.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}
