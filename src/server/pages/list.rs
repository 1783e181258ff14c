//! Lists of which a page shows a part.

use serde::Serialize;
use url::form_urlencoded::Serializer;

use super::error::PageError;
use crate::store::Page;

/// How many rows a page has.
const SIZE: i64 = 50;

/// The links to the parts before and behind the one that is shown.
#[derive(Debug, Serialize)]
pub(super) struct Pages {
    number: i64,
    count: i64,
    previous: Option<String>,
    next: Option<String>,
}

/// The part with this number.
///
/// # Errors
/// It is less than 1.
pub(super) fn page(number: Option<i64>) -> Result<Page, PageError> {
    match number.unwrap_or(1) {
        number @ 1.. => Ok(Page { number, size: SIZE }),
        number => Err(PageError::Address(format!("page is {number}; the first page is 1"))),
    }
}

impl Pages {
    /// `query` is what else the list's address says.
    ///
    /// # Errors
    /// The list has fewer parts.
    pub(super) fn of(
        path: &str,
        query: &[(&str, &str)],
        page: Page,
        total: i64,
    ) -> Result<Self, PageError> {
        let count = (total + page.size - 1) / page.size;
        if page.number > count.max(1) {
            return Err(PageError::NotFound("page of this list"));
        }
        let link = |number: i64| {
            let mut address = Serializer::new(String::new());
            address.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
            address.append_pair("page", &number.to_string());
            format!("{path}?{}", address.finish())
        };
        Ok(Self {
            number: page.number,
            count,
            previous: (page.number > 1).then(|| link(page.number - 1)),
            next: (page.number < count).then(|| link(page.number + 1)),
        })
    }
}

/// A field of a filter; none if it is empty.
pub(super) fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}
