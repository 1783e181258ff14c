//! A state version as it comes in: a JSON:API document like any other, but for one
//! attribute that may be as large as a state is, in base64. That one is written to a file
//! as it comes.

use std::io::{ErrorKind, Read, Write as _};

use axum::extract::{FromRequest, Request};
use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use md5::{Digest as _, Md5};
use serde_json::{Map, Value};
use struson::reader::{JsonReader as _, JsonStreamReader, ReaderError, ValueType};
use struson::serde::DeserializerError;

use super::document::Payload;
use super::error::ApiError;
use crate::app::App;
use crate::objects::{Draft, MAX_OBJECT};
use crate::scheduler::Error;
use crate::upload::Upload;

/// The largest document: the largest state in base64, and the rest.
const MAX_DOCUMENT: u64 = MAX_OBJECT / 3 * 4 + 1024 * 1024;

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
        let draft = app.scheduler.objects.draft()?;
        upload.read(MAX_DOCUMENT, |body| read(body, draft)).await
    }
}

fn read(body: &mut dyn Read, mut draft: Draft) -> Result<StateUpload, ApiError> {
    let mut json = JsonStreamReader::new(body);
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
                            let text = json.next_string_reader()?;
                            md5 = Some(decode(text, &mut draft)?);
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
    let md5 = md5.ok_or_else(|| ApiError::attribute("state", "This field is required."))?;
    Ok(StateUpload { payload, state: draft, md5 })
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
        unreadable(error)
    }
}

impl From<DeserializerError> for ApiError {
    fn from(error: DeserializerError) -> Self {
        unreadable(error)
    }
}

fn unreadable(error: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request(format!("The body is no JSON:API document: {error}."))
}
