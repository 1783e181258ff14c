//! Webhooks as clients write and read them, and those of pools. A sensitive header's value never
//! comes back.

use axum::http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::payload::Payload;
use crate::api::json_api::ApiError;
use crate::store::agent_pool::AgentPool;
use crate::store::webhook::WebhookHeader;
use protocol::Secret;

const URL: &str = "webhook-url";
const HEADERS: &str = "webhook-headers";
const MAX_HEADERS: usize = 50;

/// Headers that the server writes itself, or that say where a message ends.
const OWN: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "x-scalr-delivery-id",
    "x-signature",
];

/// Changes a pool's webhook.
pub(super) fn change(pool: &mut AgentPool, payload: &Payload) -> Result<(), ApiError> {
    if let Some(url) = url(payload, URL)? {
        pool.webhook.url = url;
    }
    if let Some(headers) = headers(payload, HEADERS, &pool.webhook.headers)? {
        pool.webhook.headers = headers;
    }
    if let Some(is_enabled) = payload.attribute("webhook-enabled")? {
        pool.webhook_enabled = is_enabled;
    }
    match pool.webhook_enabled && pool.webhook.url.is_none() {
        true => Err(ApiError::attribute(URL, "A webhook that is enabled needs a URL.")),
        false => Ok(()),
    }
}

/// Adds a pool's webhook to its attributes.
pub(super) fn render(pool: &AgentPool, attributes: &mut Value) {
    attributes["webhook-enabled"] = pool.webhook_enabled.into();
    attributes[URL] = json!(pool.webhook.url.as_ref().map(Secret::expose));
    attributes[HEADERS] = render_headers(&pool.webhook.headers);
}

/// What to make of a webhook's URL: nothing if it is missing, else its value or null.
pub(super) fn url(
    payload: &Payload,
    name: &'static str,
) -> Result<Option<Option<Secret>>, ApiError> {
    let Some(url) = payload.text(name)? else { return Ok(None) };
    Ok(Some(url.map(|text| checked_url(name, text)).transpose()?))
}

/// What to make of a webhook's headers: nothing if they are missing.
pub(super) fn headers(
    payload: &Payload,
    name: &'static str,
    earlier: &[WebhookHeader],
) -> Result<Option<Vec<WebhookHeader>>, ApiError> {
    let Some(written) = payload.change::<Vec<Written>>(name)? else { return Ok(None) };
    let written = written.unwrap_or_default();
    if written.len() > MAX_HEADERS {
        let detail = format!("This field takes at most {MAX_HEADERS} headers.");
        return Err(ApiError::attribute(name, detail));
    }
    written.into_iter().map(|header| header.read(name, earlier)).collect::<Result<_, _>>().map(Some)
}

pub(super) fn render_headers(headers: &[WebhookHeader]) -> Value {
    let header = |header: &WebhookHeader| {
        let value = if header.sensitive { "" } else { header.value.expose() };
        json!({ "name": header.name, "value": value, "sensitive": header.sensitive })
    };
    headers.iter().map(header).collect()
}

/// A header as clients write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    value: Option<String>,
    #[serde(default)]
    sensitive: bool,
}

impl Written {
    /// An empty value of a sensitive header, as an answer has it, is the value that it has.
    fn read(
        self,
        field: &'static str,
        earlier: &[WebhookHeader],
    ) -> Result<WebhookHeader, ApiError> {
        let Self { name, value, sensitive } = self;
        let refuse = |detail: String| ApiError::attribute(field, detail);
        if HeaderName::try_from(&name).is_err() {
            return Err(refuse(format!("{name:?} is not the name of an HTTP header.")));
        }
        if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(refuse(format!("The server writes the header {name} itself.")));
        }
        let value = value.unwrap_or_default();
        let is_kept = sensitive && value.is_empty();
        let kept = earlier
            .iter()
            .find(|header| is_kept && header.sensitive && header.name.eq_ignore_ascii_case(&name));
        if is_kept && kept.is_none() {
            return Err(refuse(format!(
                "There is no sensitive header {name} yet: it takes a value."
            )));
        }
        if HeaderValue::try_from(&value).is_err() {
            return Err(refuse(format!("The header {name} takes a value of one line.")));
        }
        let value = kept.map_or_else(|| Secret::new(value), |header| header.value.clone());
        Ok(WebhookHeader { name, value, sensitive })
    }
}

fn checked_url(field: &'static str, text: String) -> Result<Secret, ApiError> {
    match Url::parse(&text).is_ok_and(|url| config::is_encrypted_or_local(&url)) {
        true => Ok(Secret::new(text)),
        false => Err(ApiError::attribute(
            field,
            "This field takes a URL that starts with https://; plain http is only for localhost.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};

    use super::*;
    use crate::in_process::InProcess;

    #[tokio::test]
    async fn a_webhooks_sensitive_headers_are_kept_and_never_come_back() {
        let server = InProcess::new().await;
        let headers = json!([
            { "name": "Authorization", "value": "Bearer hunter2", "sensitive": true },
            { "name": "X-Team", "value": "platform" },
        ]);
        let url = "https://starter.example.com/start?key=1";
        let attributes = json!({
            "name": "serverless", URL: url, HEADERS: headers, "webhook-enabled": true,
        });
        let pool = server.create("/agent-pools", attributes, &[]).await;
        let path = format!("/agent-pools/{pool}");
        let read = server.api(Method::GET, &path, Value::Null).await;
        let attributes = &read["data"]["attributes"];
        assert_eq!((&attributes[URL], &attributes["webhook-enabled"]), (&json!(url), &json!(true)));
        let shown = json!([
            { "name": "Authorization", "value": "", "sensitive": true },
            { "name": "X-Team", "value": "platform", "sensitive": false },
        ]);
        assert_eq!(attributes[HEADERS], shown);

        // What was read can be written, also in other letters.
        let shown = json!([{ "name": "authorization", "value": "", "sensitive": true }]);
        let data = json!({ "attributes": { HEADERS: shown, URL: url } });
        server.api(Method::PATCH, &path, json!({ "data": data })).await;
        let mut db = server.app.scheduler.store.read().await.unwrap();
        let kept = crate::store::agent_pool::find(&mut db, &pool).await.unwrap().unwrap();
        assert_eq!(kept.webhook.headers[0].value.expose(), "Bearer hunter2");
        let debug = format!("{kept:?}");
        assert!(!debug.contains("hunter2") && !debug.contains("key=1"), "{debug}");
    }

    #[tokio::test]
    async fn a_webhook_that_cannot_be_called_is_refused_and_changes_nothing() {
        let server = InProcess::new().await;
        let pools = server.api(Method::GET, "/agent-pools", Value::Null).await;
        let path = format!(
            "{}/agent-pools/{}",
            super::super::BASE,
            pools["data"][0]["id"].as_str().unwrap()
        );
        let header = |name: &str, value: &str| json!([{ "name": name, "value": value }]);
        for (name, value) in [
            ("webhook-enabled", json!(true)),
            (URL, json!("http://starter.example.com/")),
            (URL, json!("starter.example.com")),
            (URL, json!("ftp://localhost/")),
            (HEADERS, header("two words", "x")),
            (HEADERS, header("X-Lines", "a\r\nHost: b")),
            (HEADERS, header("Idempotency-Key", "x")),
            (HEADERS, header("", "x")),
            (HEADERS, json!([{ "name": "X-Key", "value": "", "sensitive": true }])),
            (HEADERS, json!([{ "name": "x", "secret": true }])),
            (HEADERS, json!({ "x": "y" })),
        ] {
            let body = json!({ "data": { "attributes": { "name": "other", name: value } } });
            let body = body.to_string();
            let (status, answer) =
                server.call(Method::PATCH, &path, &server.admin, &[], body.clone()).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer:?}");
            let pointer = if name == "webhook-enabled" { URL } else { name };
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.contains(&format!("/data/attributes/{pointer}\"")), "{answer}");
            let read = server.api(Method::GET, "/agent-pools", Value::Null).await;
            assert_eq!(read, pools, "{body}");
        }
    }
}
