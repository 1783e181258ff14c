//! The form that links a hook to an environment, and changes where it runs there.

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
use crate::api::pools::hook_links;
use crate::app::App;
use crate::store::hook_link::{self, NamedLink};
use crate::store::{Connection, environment};
use protocol::Hook;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/hooks/{id}/links/new", get(ask).post(create))
        .route("/hooks/{id}/links/{link}", get(ask_to_change).post(change))
}

#[derive(Serialize)]
struct LinkForm {
    hook_id: String,
    hook: String,
    heading: String,
    /// The environments to choose from; none: the link is there already.
    environments: Vec<Environment>,
    events: Vec<Event>,
    refusal: Refusal,
}

#[derive(Serialize)]
struct Environment {
    id: String,
    name: String,
    is_chosen: bool,
}

#[derive(Serialize)]
struct Event {
    name: &'static str,
    meaning: &'static str,
    is_chosen: bool,
}

fn meaning(event: Hook) -> &'static str {
    match event {
        Hook::PreInit => "before init, of the plan and of the apply",
        Hook::PrePlan => "before the plan",
        Hook::PostPlan => "after a plan that succeeded",
        Hook::PreApply => "before the apply",
        Hook::PostApply => "after an apply that succeeded",
    }
}

fn events(is_chosen: impl Fn(Hook) -> bool) -> Vec<Event> {
    let event = |event: Hook| Event {
        name: event.name(),
        meaning: meaning(event),
        is_chosen: is_chosen(event),
    };
    Hook::ALL.map(event).into()
}

impl LinkForm {
    /// The form for a new link, as somebody filled it in.
    async fn new(
        db: &mut Connection,
        hook_id: &str,
        fields: &Fields,
        refusal: Refusal,
    ) -> Result<Self, PageError> {
        let hook = hook::find(db, hook_id).await?;
        let links = hook_link::of_hooks(db, &[hook_id]).await?;
        let is_free =
            |(id, _): &(String, String)| links.iter().all(|link| link.environment_id != *id);
        let chosen = fields.get("environment");
        let choice = |(id, name): (String, String)| {
            let is_chosen = id == chosen;
            Environment { id, name, is_chosen }
        };
        let all = environment::names(db).await?.into_iter();
        Ok(Self {
            hook_id: hook.id,
            heading: format!("Link {} to an environment", hook.name),
            hook: hook.name,
            environments: all.filter(is_free).map(choice).collect(),
            events: events(|event| fields.all("event").any(|name| name == event.name())),
            refusal,
        })
    }

    /// The form of a link.
    async fn of(
        db: &mut Connection,
        hook_id: &str,
        link_id: &str,
    ) -> Result<(Self, NamedLink), PageError> {
        let hook = hook::find(db, hook_id).await?;
        let links = hook_link::of_hooks(db, &[hook_id]).await?;
        let link = links.into_iter().find(|link| link.id == link_id);
        let link = link.ok_or(PageError::NotFound("link"))?;
        let form = Self {
            hook_id: hook.id,
            heading: format!("When {} runs in {}", hook.name, link.environment),
            hook: hook.name,
            environments: Vec::new(),
            events: events(|event| link.events.0.contains(&event)),
            refusal: Refusal::default(),
        };
        Ok((form, link))
    }

    fn show(
        &self,
        status: StatusCode,
        app: &App,
        session: &Session,
    ) -> Result<Response, PageError> {
        let page = Page {
            template: "hook-link-form.html",
            title: &self.heading,
            section: "account",
            topics: &[],
        };
        page.show_with(status, app, session, self)
    }
}

async fn ask(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let form = LinkForm::new(&mut db, &id, &Fields::default(), Refusal::default()).await?;
    form.show(StatusCode::OK, &app, &session)
}

async fn create(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let names: Vec<&str> = fields.all("event").collect();
    let link = payload(
        "hook-environment-links",
        json!({ "events": names }),
        json!({
            "hook": { "data": { "type": "hooks", "id": id } },
            "environment":
                { "data": { "type": "environments", "id": fields.get("environment") } },
        }),
    );
    let made = async { hook_links::create(State(App::clone(&app)), link?).await };
    match made.await {
        Ok(_) => {
            let message = session::message("Linked. Plans that begin now execute the hook.", &app);
            Ok(frame::redirect(&format!("/hooks/{id}"), message))
        }
        Err(error) => {
            let mut db = app.scheduler.store.read().await?;
            let form = LinkForm::new(&mut db, &id, &fields, Refusal::of(error)?).await?;
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}

async fn ask_to_change(
    State(app): State<App>,
    Path((id, link)): Path<(String, String)>,
    session: Session,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let (form, _) = LinkForm::of(&mut db, &id, &link).await?;
    form.show(StatusCode::OK, &app, &session)
}

async fn change(
    State(app): State<App>,
    Path((id, link)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let (shown, link) = {
        let mut db = app.scheduler.store.read().await?;
        LinkForm::of(&mut db, &id, &link).await?
    };
    let names: Vec<&str> = fields.all("event").collect();
    let changed = payload("hook-environment-links", json!({ "events": names }), json!({}));
    let changed = async {
        hook_links::update(State(App::clone(&app)), extract::Path(link.id), changed?).await
    };
    match changed.await {
        Ok(_) => {
            let message = session::message("Saved.", &app);
            Ok(frame::redirect(&format!("/hooks/{id}"), message))
        }
        Err(error) => {
            let form = LinkForm {
                events: events(|event| names.contains(&event.name())),
                refusal: Refusal::of(error)?,
                ..shown
            };
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}
