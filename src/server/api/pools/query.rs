//! The query of a list: which page, which filters.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::store::Page;

/// How many resources a page has unless the client says so, and at most.
const SIZE: (i64, i64) = (20, 100);

/// A list's query.
#[derive(Debug)]
pub(super) struct ListQuery {
    /// Which page.
    pub page: Page,
    filters: HashMap<String, String>,
}

impl ListQuery {
    /// The value of `filter[name]`.
    pub(super) fn filter(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// Refuses filters other than `names`: one that is passed over would
    /// answer a question that nobody asked.
    pub(super) fn allow(&self, names: &[&str]) -> Result<(), ApiError> {
        match self.filters.keys().find(|name| !names.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(ApiError::bad_request(format!(
                "There is no filter[{name}] here; there is: {}.",
                names.join(", ")
            ))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) =
            Query::<HashMap<String, String>>::from_request_parts(parts, state).await?;
        let number = |name: &str, default: i64| match query.get(name).map(|text| text.parse()) {
            None => Ok(default),
            Some(Ok(number)) if number >= 1 => Ok(number),
            Some(_) => Err(ApiError::bad_request(format!("{name} takes a number from 1."))),
        };
        let page = Page {
            number: number("page[number]", 1)?,
            size: number("page[size]", SIZE.0)?.min(SIZE.1),
        };
        let filters = query.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("filter[")?.strip_suffix(']')?;
            Some((name.to_owned(), value))
        });
        Ok(Self { page, filters: filters.collect() })
    }
}
