//! Calls of the pool API.

use std::error::Error as _;
use std::io::{Seek as _, SeekFrom};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use reqwest::{Body, ClientBuilder, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Map, Value, json};
use url::Url;

use cli::Failure;
use protocol::Secret;

use crate::api::pools::BASE;

/// How long the server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long an upload may take, as on the server.
const UPLOAD: Duration = crate::upload::TIME;

/// The API of one server.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
}

/// A kind of resource that people know by a name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    path: &'static str,
    /// What its ids begin with.
    prefix: &'static str,
    /// What people call it.
    noun: &'static str,
    plural: &'static str,
}

pub(super) const POOL: Kind =
    Kind { path: "/agent-pools", prefix: "apool-", noun: "pool", plural: "pools" };
pub(super) const WORKSPACE: Kind =
    Kind { path: "/workspaces", prefix: "ws-", noun: "workspace", plural: "workspaces" };
pub(super) const ENVIRONMENT: Kind =
    Kind { path: "/environments", prefix: "env-", noun: "environment", plural: "environments" };

impl Client {
    /// A client that finds the API at `base`.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub(super) fn new(http: ClientBuilder, base: Url, token: Option<Secret>) -> Result<Self> {
        // An error means that a provider is in place already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = http
            .user_agent(concat!("scalr-server/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .build()
            .context("cannot set up HTTPS")?;
        Ok(Self { http, base, token })
    }

    /// A resource.
    ///
    /// # Errors
    /// The server refuses it or can't be reached, as with all calls.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        document(self.send(self.request(Method::GET, path)?).await?).await
    }

    /// All resources of a list for which these filters hold.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn list(&self, path: &str, filters: &[(&str, &str)]) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        for page in 1.. {
            let mut query = vec![("page[size]".to_owned(), "100".to_owned())];
            query.push(("page[number]".to_owned(), page.to_string()));
            query.extend(
                filters
                    .iter()
                    .map(|(name, value)| (format!("filter[{name}]"), (*value).to_owned())),
            );
            let request = self.request(Method::GET, path)?.query(&query);
            let body: Value = self.send(request).await?.json().await.map_err(cannot_read)?;
            found.extend(body["data"].as_array().cloned().unwrap_or_default());
            if body["meta"]["pagination"]["next-page"].is_null() {
                break;
            }
        }
        Ok(found)
    }

    /// Creates a resource, or begins an action.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn post(
        &self,
        path: &str,
        attributes: Value,
        related: &[(&str, &str)],
    ) -> Result<Value> {
        let body = resource(&attributes, related);
        document(self.send(self.request(Method::POST, path)?.json(&body)).await?).await
    }

    /// Changes a resource's attributes.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn patch(&self, path: &str, attributes: Value) -> Result<Value> {
        let body = resource(&attributes, &[]);
        document(self.send(self.request(Method::PATCH, path)?.json(&body)).await?).await
    }

    /// Deletes a resource.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.send(self.request(Method::DELETE, path)?).await.map(drop)
    }

    /// What an output has from `offset` on; empty if there is nothing new.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn output(&self, path: &str, offset: usize) -> Result<Bytes> {
        let request = self.request(Method::GET, path)?.query(&[("offset", offset)]);
        self.send(request).await?.bytes().await.map_err(cannot_read)
    }

    /// Uploads a file to a link that the server gave.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub(super) async fn upload(&self, link: &str, mut file: std::fs::File) -> Result<()> {
        // The way to the server is ours: its own name may mean nothing on this host.
        let link = Url::parse(link).context("cannot read the server's upload link")?;
        file.seek(SeekFrom::Start(0)).context("cannot read the configuration")?;
        let body = Body::from(tokio::fs::File::from_std(file));
        let request = self.http.put(self.url(link.path())?).timeout(UPLOAD).body(body);
        self.send(request).await.map(drop)
    }

    /// The resource that has `named` as its name or its id.
    ///
    /// # Errors
    /// There is none, or more than one; also as [`Client::get`].
    pub(super) async fn find(
        &self,
        kind: Kind,
        named: &str,
        filters: &[(&str, &str)],
    ) -> Result<Value> {
        match self.find_if_there(kind, named, filters).await? {
            Some(found) => Ok(found),
            None => {
                let others = self.list(kind.path, filters).await?;
                let Kind { noun, plural, .. } = kind;
                let mut text = format!("there is no {noun} {named}");
                match others.len() {
                    0 => text.push_str(&format!("; there are no {plural} yet")),
                    _ => text.push_str(&format!("\nThe {plural} are: {}", names(&others))),
                }
                Err(Failure::Usage.because(text))
            }
        }
    }

    /// The same; none if there is none.
    ///
    /// # Errors
    /// There is more than one; also as [`Client::get`].
    pub(super) async fn find_if_there(
        &self,
        kind: Kind,
        named: &str,
        filters: &[(&str, &str)],
    ) -> Result<Option<Value>> {
        let name = [filters, &[("name", named)]].concat();
        let mut found = self.list(kind.path, &name).await?;
        if found.len() > 1 {
            return Err(Failure::Usage.because(format!(
                "there are {} {} {named}: name one by its id: {}",
                found.len(),
                kind.plural,
                found.iter().map(id).collect::<Vec<_>>().join(", ")
            )));
        }
        if found.is_empty() && named.starts_with(kind.prefix) {
            let all = self.list(kind.path, filters).await?;
            found.extend(all.into_iter().find(|one| id(one) == named));
        }
        Ok(found.pop())
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder> {
        let request = self.http.request(method, self.url(&format!("{BASE}{path}"))?);
        let request = request.timeout(TIMEOUT);
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).context("cannot use the server's address")
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(response).await),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(inner) = cause {
            causes.push(inner.to_string());
            cause = inner.source();
        }
        let why = causes.last().cloned().unwrap_or_else(|| "it did not answer in time".to_owned());
        let hint = hint(&causes.join(" "));
        anyhow!("cannot reach the server at {}: {why}{hint}", self.base)
    }
}

/// What to do about a server that cannot be reached, by what rustls says of its certificate.
fn hint(causes: &str) -> &'static str {
    let says = |text: &str| causes.contains(text);
    if says("certificate expired") || says("certificate not valid yet") {
        "\nIs the clock of this host right?"
    } else if causes.to_lowercase().contains("certificate") {
        "\nIf its certificate is of a private authority, name that: --ca-cert FILE"
    } else {
        ""
    }
}

/// The id of a resource.
pub(super) fn id(resource: &Value) -> String {
    text(&resource["id"])
}

/// The attribute of a resource as people read it; empty if there is none.
pub(super) fn attribute(resource: &Value, name: &str) -> String {
    text(&resource["attributes"][name])
}

/// The id of what a resource is related to, if anything.
pub(super) fn related(resource: &Value, name: &str) -> Option<String> {
    resource["relationships"][name]["data"]["id"].as_str().map(str::to_owned)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// At most 20 of them.
fn names(resources: &[Value]) -> String {
    let mut names: Vec<_> = resources.iter().take(20).map(|one| attribute(one, "name")).collect();
    if resources.len() > names.len() {
        names.push("…".to_owned());
    }
    names.join(", ")
}

fn resource(attributes: &Value, related: &[(&str, &str)]) -> Value {
    let relationships: Map<String, Value> = related
        .iter()
        .map(|(name, id)| ((*name).to_owned(), json!({ "data": { "type": name, "id": id } })))
        .collect();
    json!({ "data": { "attributes": attributes, "relationships": relationships } })
}

async fn document(response: Response) -> Result<Value> {
    let mut body: Value = response.json().await.map_err(cannot_read)?;
    Ok(body["data"].take())
}

fn cannot_read(error: reqwest::Error) -> anyhow::Error {
    anyhow!("cannot read the server's answer: {}", error.without_url())
}

/// The server's reason, and the exit code that is for it.
async fn refusal(response: Response) -> anyhow::Error {
    let status = response.status();
    let failure = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::NotPermitted,
        StatusCode::NOT_FOUND
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Failure::Usage,
        _ => Failure::Failed,
    };
    let body: Value = response.json().await.unwrap_or_default();
    let error = &body["errors"][0];
    let why = match (error["detail"].as_str(), error["title"].as_str()) {
        (Some(why), _) | (None, Some(why)) => why.to_owned(),
        (None, None) => format!("the server answered {status}; is it a scalr-server?"),
    };
    let field = error["source"]["pointer"].as_str().and_then(|at| at.rsplit('/').next());
    failure.because(match field {
        Some(field) => format!("the server refuses {field}: {why}"),
        None if failure == Failure::NotPermitted => format!("the server refuses the token: {why}"),
        None => why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_not_valid_now_is_traced_to_the_clock() {
        for (causes, wanted) in [
            ("invalid peer certificate: certificate expired: verification time 1", "clock"),
            ("invalid peer certificate: certificate not valid yet: verification time 1", "clock"),
            ("invalid peer certificate: UnknownIssuer", "--ca-cert FILE"),
            ("Connection refused (os error 111)", ""),
        ] {
            assert!(hint(causes).contains(wanted), "{causes}");
            assert_eq!(hint(causes).is_empty(), wanted.is_empty(), "{causes}");
        }
    }
}
