//! The form for a new hook, and for a hook that is changed.

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use super::address::Path;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::hook;
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use crate::api::json_api::ApiError;
use crate::api::pools::{Payload, hooks};
use crate::app::App;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/hooks/new", get(ask).post(create))
        .route("/hooks/{id}/edit", get(ask_to_change).post(change))
}

#[derive(Serialize)]
struct HookForm {
    /// The hook's id; none: it is a new one.
    id: Option<String>,
    /// What the hook is called now, not what it is to be called.
    heading: String,
    name: String,
    description: String,
    interpreter: String,
    script: String,
    refusal: Refusal,
}

impl HookForm {
    /// As somebody filled it in.
    fn of(fields: &Fields, refusal: Refusal) -> Self {
        Self {
            id: None,
            heading: "New hook".to_owned(),
            name: fields.get("name").to_owned(),
            description: fields.get("description").to_owned(),
            interpreter: fields.get("interpreter").to_owned(),
            script: fields.raw("script"),
            refusal,
        }
    }

    fn show(
        &self,
        status: StatusCode,
        app: &App,
        session: &Session,
    ) -> Result<Response, PageError> {
        let page = Page {
            template: "hook-form.html",
            title: &self.heading,
            section: "account",
            topics: &[],
        };
        page.show_with(status, app, session, self)
    }
}

async fn ask(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let form = HookForm {
        interpreter: "sh".to_owned(),
        ..HookForm::of(&Fields::default(), Refusal::default())
    };
    form.show(StatusCode::OK, &app, &session)
}

async fn create(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let made = async { hooks::create(State(App::clone(&app)), resource(&fields)?).await };
    match made.await {
        Ok(made) => {
            let id = made.resource()["id"].as_str().unwrap_or_default();
            let text =
                format!("Created the hook {}. Link it to an environment.", fields.get("name"));
            Ok(frame::redirect(&format!("/hooks/{id}"), session::message(&text, &app)))
        }
        Err(error) => {
            let form = HookForm::of(&fields, Refusal::of(error)?);
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}

async fn ask_to_change(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let found = hook::find(&mut db, &id).await?;
    let form = HookForm {
        heading: format!("Edit {}", found.name),
        name: found.name,
        description: found.description.unwrap_or_default(),
        interpreter: found.interpreter,
        script: found.script,
        refusal: Refusal::default(),
        id: Some(id),
    };
    form.show(StatusCode::OK, &app, &session)
}

async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let found = {
        let mut db = app.scheduler.store.read().await?;
        hook::find(&mut db, &id).await?
    };
    let changed = async {
        hooks::update(State(App::clone(&app)), extract::Path(id.clone()), resource(&fields)?).await
    };
    match changed.await {
        Ok(_) => {
            let message = session::message("Saved.", &app);
            Ok(frame::redirect(&format!("/hooks/{id}"), message))
        }
        Err(error) => {
            let form = HookForm {
                id: Some(id),
                heading: format!("Edit {}", found.name),
                ..HookForm::of(&fields, Refusal::of(error)?)
            };
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}

/// The hook as the API takes it.
fn resource(fields: &Fields) -> Result<Payload, ApiError> {
    let attributes = json!({
        "name": fields.get("name"),
        "description": fields.get("description"),
        "interpreter": fields.get("interpreter"),
        "script": fields.raw("script"),
    });
    payload("hooks", attributes, json!({}))
}
