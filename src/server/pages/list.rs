//! Lists of which a page shows a part.

use serde::Serialize;
use url::form_urlencoded::Serializer;

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

/// The part with this number, from 1.
pub(super) fn page(number: Option<i64>) -> Page {
    Page { number: number.unwrap_or(1).max(1), size: SIZE }
}

impl Pages {
    /// `query` is what else the list's address says.
    pub(super) fn of(path: &str, query: &[(&str, &str)], page: Page, total: i64) -> Self {
        let count = (total + page.size - 1) / page.size;
        let link = |number: i64| {
            let mut address = Serializer::new(String::new());
            address.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
            address.append_pair("page", &number.to_string());
            format!("{path}?{}", address.finish())
        };
        Self {
            number: page.number,
            count,
            previous: (page.number > 1).then(|| link((page.number - 1).min(count))),
            next: (page.number < count).then(|| link(page.number + 1)),
        }
    }
}

/// A field of a filter; none if it is empty.
pub(super) fn given(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}
