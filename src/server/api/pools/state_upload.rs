//! A state version as it comes in: a JSON:API document like any other, but for one
//! attribute that may be as large as a state is, in base64. That one is written to a file
//! as it comes.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write as _};
use std::rc::Rc;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value};
use struson::reader::{JsonReader as _, JsonStreamReader, ReaderError, ValueType};
use struson::serde::DeserializerError;

use super::attributes::Kind;
use super::payload::Payload;
use crate::api::json_api::ApiError;
use crate::app::App;
use crate::bounded::Bounded;
use crate::objects::Draft;
use crate::scheduler::Error;
use crate::upload::{Limit, Upload};

/// What may stand in the document beside the state, in bytes: it is kept in memory.
const MAX_REST: u64 = 1024 * 1024;
const BEYOND_REST: &str = "it has more than 1048576 bytes beside its state";

/// A new state version.
pub(super) struct StateUpload {
    /// All but the state.
    pub payload: Payload,
    /// The state's content.
    pub state: Draft,
    /// The MD5 of the content, in hex.
    pub md5: String,
}

impl FromRequest<App> for StateUpload {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let Ok(upload) = Upload::from_request(request, app).await;
        let document = receive(app, upload, 1, &[]).await?;
        let StateDocument { payload, state, md5 } = document;
        if let Some(kind) = Kind::named("state-versions") {
            payload.check(kind)?;
        }
        let md5 = md5.ok_or_else(|| ApiError::attribute("state", "This field is required."))?;
        Ok(Self { payload, state, md5 })
    }
}

/// A document with or without a state in it.
pub(in crate::api) struct StateDocument {
    /// All but the state.
    pub payload: Payload,
    /// The state's content; empty if there is none.
    pub state: Draft,
    /// The MD5 of the content, in hex; none if there is no state.
    pub md5: Option<String>,
}

/// Receives a document with at most `copies` of a state in base64; texts of the attributes
/// `ignored`, which may be long, are passed over.
pub(in crate::api) async fn receive(
    app: &App,
    upload: Upload,
    copies: u64,
    ignored: &'static [&'static str],
) -> Result<StateDocument, ApiError> {
    let max_state = app.scheduler.objects.max_state();
    let limit = Limit { body: copies * (max_state / 3 * 4 + MAX_REST), content: max_state };
    let app = Arc::clone(app);
    upload
        .read(limit, move |body| read(body, app.scheduler.objects.draft(max_state)?, ignored))
        .await
}

fn read(
    body: &mut dyn Read,
    mut draft: Draft,
    ignored: &[&str],
) -> Result<StateDocument, ApiError> {
    let left = Rc::new(Cell::new(Some(MAX_REST)));
    let mut json =
        JsonStreamReader::new(Bounded { body, left: Rc::clone(&left), beyond: BEYOND_REST });
    let (mut attributes, mut relationships) = (Map::new(), Map::new());
    let mut md5 = None;
    json.begin_object()?;
    while json.has_next()? {
        if json.next_name()? != "data" {
            json.skip_value()?;
            continue;
        }
        json.begin_object()?;
        while json.has_next()? {
            match json.next_name()? {
                "relationships" => relationships = json.deserialize_next()?,
                "attributes" => {
                    json.begin_object()?;
                    while json.has_next()? {
                        let name = json.next_name_owned()?;
                        let is_text = json.peek()? == ValueType::String;
                        if name == "state" && is_text && md5.is_none() {
                            let rest = left.replace(None);
                            let text = json.next_string_reader()?;
                            md5 = Some(decode(text, &mut draft)?);
                            left.set(rest);
                        } else if is_text && ignored.contains(&name.as_str()) {
                            let rest = left.replace(None);
                            let mut text = json.next_string_reader()?;
                            io::copy(&mut text, &mut io::sink()).map_err(unreadable)?;
                            left.set(rest);
                        } else {
                            let value: Value = json.deserialize_next()?;
                            attributes.insert(name, value);
                        }
                    }
                    json.end_object()?;
                }
                _ => json.skip_value()?,
            }
        }
        json.end_object()?;
    }
    json.end_object()?;
    json.consume_trailing_whitespace()?;
    let payload = Payload::new(attributes, relationships);
    // One that is no text, or a second one.
    if payload.attribute::<Value>("state")?.is_some() {
        return Err(ApiError::attribute("state", "This field takes one state in base64."));
    }
    Ok(StateDocument { payload, state: draft, md5 })
}

/// Writes what `text` is the base64 of; gives its MD5.
fn decode(text: impl Read, draft: &mut Draft) -> Result<String, ApiError> {
    let mut content = DecoderReader::new(text, &STANDARD);
    let mut hash = Md5::new();
    let mut piece = [0; 16 * 1024];
    loop {
        let length = content.read(&mut piece).map_err(|error| match error.kind() {
            ErrorKind::InvalidData => {
                ApiError::attribute("state", "This field takes a state in base64.")
            }
            _ => unreadable(error),
        })?;
        if length == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&piece[..length]);
        draft.write_all(&piece[..length]).map_err(Error::from)?;
    }
}

impl From<ReaderError> for ApiError {
    fn from(error: ReaderError) -> Self {
        match error {
            ReaderError::IoError { error, .. } if error.kind() == ErrorKind::FileTooLarge => {
                Error::from(error).into()
            }
            error => unreadable(error),
        }
    }
}

impl From<DeserializerError> for ApiError {
    fn from(error: DeserializerError) -> Self {
        match error {
            DeserializerError::ReaderError(error) => error.into(),
            error => unreadable(error),
        }
    }
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("The body is no JSON:API document: {error}."))
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};

    use crate::in_process::InProcess;

    #[tokio::test]
    async fn what_stands_beside_a_state_is_bounded_wherever_it_is() {
        let server = InProcess::new().await;
        let long = "x".repeat(2 * 1024 * 1024);
        let deep = "[".repeat(2 * 1024 * 1024);
        for body in [
            format!(r#"{{"data": {{"attributes": {{"lineage": "{long}", "state": "e30="}}}}}}"#),
            format!(r#"{{"data": {{"attributes": {{"state": "e30=", "lineage": "{long}"}}}}}}"#),
            format!(r#"{{"data": {{"relationships": {{"workspace": "{long}"}}}}}}"#),
            format!(r#"{{"data": {{"id": "{long}"}}}}"#),
            format!(r#"{{"{long}": 1}}"#),
            format!(r#"{{"data": {{"attributes": {{"lineage": {deep}"#),
        ] {
            let path = "/api/iacp/v3/state-versions";
            let (status, answer) = server.call(Method::POST, path, &server.admin, &[], body).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            let refused = [StatusCode::PAYLOAD_TOO_LARGE, StatusCode::BAD_REQUEST];
            assert!(refused.contains(&status), "{status}: {answer}");
        }
        let state = "e30=".repeat(1024 * 1024);
        let body = format!(r#"{{"data": {{"attributes": {{"state": "{state}"}}}}}}"#);
        let path = "/api/iacp/v3/state-versions";
        let (_, answer) = server.call(Method::POST, path, &server.admin, &[], body).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.contains("beside its state"), "the state itself is: {answer}");
    }
}
