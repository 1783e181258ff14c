//! Starts a run with the form of its workspace's page, which may have an archive in it.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use multer::{Constraints, Multipart, SizeLimit};
use serde::Serialize;
use serde_json::json;

use super::address::Path;
use super::error::PageError;
use super::form::Fields;
use super::frame;
use super::refusal::Refusal;
use super::session::{self, Session};
use super::workspace;
use crate::api::json_api::ApiError;
use crate::api::pools::call;
use crate::app::App;
use crate::objects::MAX_OBJECT;

/// The field with the archive.
const ARCHIVE: &str = "archive";

/// The longest of the other fields, in bytes, and how many there may be.
const MAX_FIELD: u64 = 64 * 1024;
const MAX_FIELDS: usize = 16;

/// The form for a new run, as it is filled in.
#[derive(Debug, Serialize)]
pub(super) struct RunForm {
    message: String,
    /// What the archive became, which is not sent again; empty: there is none.
    configuration_version: String,
    is_plan_only: bool,
    is_destroy: bool,
    auto_apply: bool,
    refusal: Refusal,
}

impl RunForm {
    /// The form before anybody filled it in.
    pub(super) fn new(auto_apply: bool) -> Self {
        Self { auto_apply, ..Self::of(&Fields::default(), String::new(), Refusal::default()) }
    }

    /// As somebody filled it in.
    fn of(fields: &Fields, configuration_version: String, refusal: Refusal) -> Self {
        Self {
            message: fields.get("message").to_owned(),
            configuration_version,
            is_plan_only: fields.has("plan-only"),
            is_destroy: fields.has("is-destroy"),
            auto_apply: fields.has("auto-apply"),
            refusal: refusal
                .renamed("configuration-version", ARCHIVE)
                .beside(&["message", ARCHIVE]),
        }
    }
}

/// `POST /workspaces/ID/runs`
pub(super) async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
    request: Request,
) -> Result<Response, PageError> {
    let content_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok());
    let (fields, archive) = match boundary {
        Some(boundary) => read_parts(&app, &id, &session, request, boundary).await?,
        None => (Fields::of_form(request, &app, &session).await?, None),
    };
    let version = match archive {
        Some(Ok(version)) => version,
        Some(Err(error)) => {
            let why = Refusal::of(error)?.whole();
            let refusal = Refusal { fields: [(ARCHIVE.to_owned(), why)].into(), text: None };
            let form = RunForm::of(&fields, String::new(), refusal);
            return workspace::page(&app, &session, &id, None, Some(form)).await;
        }
        None => fields.get("configuration-version").to_owned(),
    };
    let mut relationships = json!({ "workspace": { "data": { "type": "workspaces", "id": id } } });
    if !version.is_empty() {
        relationships["configuration-version"] =
            json!({ "data": { "type": "configuration-versions", "id": version.as_str() } });
    }
    let message = Some(fields.get("message")).filter(|message| !message.is_empty());
    let document = json!({ "data": {
        "type": "runs",
        "attributes": {
            "source": "ui",
            "message": message,
            "is-destroy": fields.has("is-destroy"),
            "plan-only": fields.has("plan-only"),
            "auto-apply": fields.has("auto-apply"),
        },
        "relationships": relationships,
    } });
    match call(&app, session.actor(), Method::POST, "/runs", document.to_string()).await {
        Ok(made) => {
            let id = made["data"]["id"].as_str().unwrap_or_default();
            Ok(frame::redirect(&format!("/runs/{id}"), session::message("Run started.", &app)))
        }
        Err(error) => {
            let form = RunForm::of(&fields, version, Refusal::of_call(error)?);
            workspace::page(&app, &session, &id, None, Some(form)).await
        }
    }
}

/// The configuration version that an archive became, or why it became none.
type Archive = Result<String, ApiError>;

/// The fields of a form in parts, and what became of its archive, if it has one. The form's token
/// stands before the archive.
async fn read_parts(
    app: &App,
    workspace_id: &str,
    session: &Session,
    request: Request,
    boundary: String,
) -> Result<(Fields, Option<Archive>), PageError> {
    let (headers, uri) = (request.headers().clone(), request.uri().clone());
    let limits = SizeLimit::new().per_field(MAX_FIELD).for_field(ARCHIVE, MAX_OBJECT + 1);
    let constraints = Constraints::new().size_limit(limits);
    let body = request.into_body().into_data_stream();
    let mut parts = Multipart::with_constraints(body, boundary, constraints);
    let cannot =
        |error: multer::Error| PageError::Refused(format!("cannot read the form: {error}"));
    let (mut fields, mut version) = (Fields::default(), None);
    while let Some(part) = parts.next_field().await.map_err(cannot)? {
        let name = part.name().unwrap_or_default().to_owned();
        if name != ARCHIVE {
            if fields.len() == MAX_FIELDS {
                return Err(PageError::Refused("The form has too many fields.".to_owned()));
            }
            fields.add(name, part.text().await.map_err(cannot)?);
            continue;
        }
        fields.check(&headers, &session.form_token)?;
        // Without a file, browsers send one without a name.
        if part.file_name().is_some_and(|file| !file.is_empty()) {
            let mut archive = Request::new(Body::from_stream(part));
            *archive.uri_mut() = uri.clone();
            version = Some(workspace::upload_configuration(app, workspace_id, archive).await);
        }
    }
    fields.check(&headers, &session.form_token)?;
    Ok((fields, version))
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::Value;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    fn form(fields: &[(&str, &str)]) -> String {
        let part = |(name, value): &(&str, &str)| {
            let file = if *name == ARCHIVE { "; filename=\"it.tar.gz\"" } else { "" };
            format!(
                "--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n"
            )
        };
        let parts: String = fields.iter().map(part).collect();
        format!("{parts}--x--\r\n")
    }

    #[tokio::test]
    async fn an_archive_that_is_refused_or_breaks_off_leaves_nothing_behind() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let path = format!("/workspaces/{}", server.workspace);
        let token = ("form-token", browser.form_token());
        let whole = form(&[token, (ARCHIVE, "no archive")]);
        let broken = whole.split_once("no archive").unwrap().0.to_owned();
        for body in [whole, broken] {
            let kind = ("content-type", "multipart/form-data; boundary=x");
            let path = format!("{path}/runs");
            let (status, page) = browser.send_as(Method::POST, &path, kind, body).await;
            assert!(status.is_client_error(), "{status} {page}");
        }
        let path = format!("{path}/configuration");
        let header = ("x-form-token", browser.form_token());
        let body = "no archive".to_owned();
        let (status, why) = browser.send_as(Method::POST, &path, header, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(why.contains("not taken as a configuration"), "{why}");
        let versions = server.api(Method::GET, "/configuration-versions", Value::Null).await;
        assert_eq!(versions["data"].as_array().unwrap().len(), 0, "{versions}");
    }

    #[tokio::test]
    async fn an_archive_without_the_forms_token_before_it_is_not_taken() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let path = format!("/workspaces/{}/runs", server.workspace);
        let versions = async || {
            let all = server.api(Method::GET, "/configuration-versions", Value::Null).await;
            all["data"].as_array().unwrap().len()
        };
        let before = versions().await;
        let token = ("form-token", browser.form_token());
        for fields in [
            vec![(ARCHIVE, "x")],
            vec![("form-token", "other"), (ARCHIVE, "x")],
            vec![(ARCHIVE, "x"), token],
            vec![("message", "x")],
        ] {
            let kind = ("content-type", "multipart/form-data; boundary=x");
            let (status, page) = browser.send_as(Method::POST, &path, kind, form(&fields)).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{fields:?}: {page}");
        }
        let long = "x".repeat(100_000);
        for (fields, why) in [
            (vec![token, ("message", long.as_str())], "cannot read the form"),
            (vec![token; 17], "too many fields"),
        ] {
            let kind = ("content-type", "multipart/form-data; boundary=x");
            let (status, page) = browser.send_as(Method::POST, &path, kind, form(&fields)).await;
            assert_eq!(status, StatusCode::CONFLICT);
            assert!(page.contains(why), "{page}");
        }
        assert_eq!(versions().await, before);
    }
}
