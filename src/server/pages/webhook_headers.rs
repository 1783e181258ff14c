//! The headers of a webhook, as rows of a form. A sensitive value is never shown, also not the one
//! that was just typed.

use serde::Serialize;
use serde_json::{Value, json};

use super::form::Fields;
use crate::store::webhook::WebhookHeader;

/// How many rows are left empty for more.
const SPARE: usize = 2;

/// A row of the form.
#[derive(Debug, Default, Serialize)]
pub(super) struct HeaderRow {
    name: String,
    /// Empty if it is sensitive.
    value: String,
    sensitive: bool,
    /// Whether the value has to be typed again, because the form was refused.
    again: bool,
}

/// A header as a page shows it.
#[derive(Debug, Serialize)]
pub(super) struct ShownHeader {
    name: String,
    /// None: it is sensitive.
    value: Option<String>,
}

/// The rows of these headers, and empty ones.
pub(super) fn rows(headers: &[WebhookHeader]) -> Vec<HeaderRow> {
    let row = |header: &WebhookHeader| HeaderRow {
        name: header.name.clone(),
        value: if header.sensitive { String::new() } else { header.value.expose().to_owned() },
        sensitive: header.sensitive,
        again: false,
    };
    with_spare(headers.iter().map(row).collect())
}

/// The rows as somebody filled them in, and empty ones.
pub(super) fn rows_of(fields: &Fields) -> Vec<HeaderRow> {
    let row = |HeaderRow { name, value, sensitive, .. }| HeaderRow {
        again: sensitive && !value.is_empty(),
        value: if sensitive { String::new() } else { value },
        name,
        sensitive,
    };
    with_spare(typed(fields).map(row).collect())
}

/// The headers as the API takes them.
pub(super) fn attribute(fields: &Fields) -> Value {
    let header = |HeaderRow { name, value, sensitive, .. }| json!({ "name": name, "value": value, "sensitive": sensitive });
    typed(fields).map(header).collect()
}

pub(super) fn shown(headers: &[WebhookHeader]) -> Vec<ShownHeader> {
    let shown = |header: &WebhookHeader| ShownHeader {
        name: header.name.clone(),
        value: (!header.sensitive).then(|| header.value.expose().to_owned()),
    };
    headers.iter().map(shown).collect()
}

/// The rows that are not empty.
fn typed(fields: &Fields) -> impl Iterator<Item = HeaderRow> {
    let row = |row: usize| {
        fields.has(&format!("header-name-{row}")).then(|| HeaderRow {
            name: fields.raw(&format!("header-name-{row}")).trim().to_owned(),
            value: fields.raw(&format!("header-value-{row}")).trim().to_owned(),
            sensitive: fields.has(&format!("header-sensitive-{row}")),
            again: false,
        })
    };
    (0..).map_while(row).filter(|row| !row.name.is_empty() || !row.value.is_empty())
}

fn with_spare(mut rows: Vec<HeaderRow>) -> Vec<HeaderRow> {
    rows.extend((0..SPARE).map(|_| HeaderRow::default()));
    rows
}
