//! The outputs in a state. A run chooses its own, and reads them with its token: so they are kept
//! as the text that they are, which takes no more memory than that, and few are read at once.

use std::collections::BTreeMap;
use std::io::{BufReader, Cursor, Read};

use anyhow::{Context as _, Result};
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use serde::Serialize;
use serde_json::value::RawValue;
use struson::reader::{JsonReader, ReaderError, TransferError};
use struson::writer::{JsonStreamWriter, JsonWriter as _};
use tokio_util::io::ReaderStream;

use super::json_api::ApiError;
use super::pools::state_versions::content;
use crate::app::App;
use crate::bounded::StateReader;
use crate::store::state_version::StateVersion;
use crate::turns::{Turn, Turns};

/// The most outputs of a state that are read, in bytes: they are kept in memory.
const MAX_OUTPUTS: u64 = 4 * 1024 * 1024;
const BEYOND_OUTPUTS: &str =
    "they have more than 4194304 bytes (4 MiB)\nDownload the state and read them there.";

/// How many states are read for their outputs at once, and how many answers one token has.
const AT_ONCE: usize = 4;
const OF_ONE: usize = 2;

/// In what pieces an answer is sent, in bytes.
const PIECE: usize = 64 * 1024;

/// An output in a state.
pub(super) struct Output {
    pub value: Box<RawValue>,
    /// Its type as Terraform writes it.
    pub kind: Box<RawValue>,
    pub sensitive: bool,
}

/// A client's turn to read outputs.
pub(super) struct OutputsTurn(Turn);

/// Who reads outputs next.
pub(crate) fn turns() -> Turns {
    Turns::new(AT_ONCE, OF_ONE)
}

impl FromRequestParts<App> for OutputsTurn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let client = app.outputs.client(&parts.headers, &parts.uri);
        let turn = app.outputs.take(client).await.map_err(anyhow::Error::from)?;
        Ok(Self(turn))
    }
}

impl OutputsTurn {
    /// The outputs in a state, by name.
    ///
    /// # Errors
    /// 422 when they are malformed, or have more than [`MAX_OUTPUTS`] bytes.
    pub(super) async fn outputs_of(
        &self,
        app: &App,
        version: &StateVersion,
    ) -> Result<BTreeMap<String, Output>, ApiError> {
        let content = content(app, version)?;
        let read = tokio::task::spawn_blocking(move || read(BufReader::new(content)));
        // A state is kept whatever its outputs are: better a strange one than none.
        read.await.map_err(anyhow::Error::from)?.map_err(|error| {
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Unreadable Outputs")
                .detail(format!("cannot read the outputs in the state: {error:#}"))
        })
    }

    /// An answer with outputs. While a client reads it slowly, others have their turn.
    ///
    /// # Errors
    /// It can't be written as JSON.
    pub(super) fn answer(
        self,
        media_type: &'static str,
        document: &impl Serialize,
    ) -> Result<Response, ApiError> {
        let text = serde_json::to_string(document).map_err(anyhow::Error::from)?;
        let Turn { of_one, .. } = self.0;
        let length = text.len().to_string();
        let pieces = ReaderStream::with_capacity(Cursor::new(text), PIECE).inspect(move |_| {
            let _held = &of_one;
        });
        let headers = [(CONTENT_TYPE, media_type.to_owned()), (CONTENT_LENGTH, length)];
        Ok((headers, Body::from_stream(pieces)).into_response())
    }
}

fn read(state: impl Read) -> Result<BTreeMap<String, Output>> {
    let mut state = StateReader::new(state, BEYOND_OUTPUTS);
    let mut outputs = BTreeMap::new();
    state.json.begin_object()?;
    while let Some(name) = state.next_name()? {
        if name != "outputs" {
            state.skip()?;
            continue;
        }
        state.allow(MAX_OUTPUTS);
        state.json.begin_object()?;
        while state.json.has_next()? {
            let name = state.json.next_name_owned().map_err(cause)?;
            let output = read_output(&mut state.json)?;
            outputs.insert(name, output);
        }
        state.json.end_object()?;
    }
    Ok(outputs)
}

fn read_output(json: &mut impl JsonReader) -> Result<Output> {
    let (mut value, mut kind, mut sensitive) = (None, None, false);
    json.begin_object()?;
    while json.has_next()? {
        match json.next_name()? {
            "value" => value = Some(raw(json)?),
            "type" => kind = Some(raw(json)?),
            "sensitive" => sensitive = json.next_bool()?,
            _ => json.skip_value().map_err(cause)?,
        }
    }
    json.end_object()?;
    let (value, kind) = value.zip(kind).context("an output lacks its value or type")?;
    Ok(Output { value, kind, sensitive })
}

/// The next value, as it is.
fn raw(json: &mut impl JsonReader) -> Result<Box<RawValue>> {
    let mut text = Vec::new();
    let mut writer = JsonStreamWriter::new(&mut text);
    json.transfer_to(&mut writer).map_err(|error| match error {
        TransferError::ReaderError(error) => cause(error),
        error => error.into(),
    })?;
    writer.finish_document()?;
    Ok(RawValue::from_string(String::from_utf8(text)?)?)
}

/// What is too long says so itself.
fn cause(error: ReaderError) -> anyhow::Error {
    match error {
        ReaderError::IoError { error, .. } => error.into(),
        error => error.into(),
    }
}
