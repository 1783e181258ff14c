//! `/workspaces/ID/settings`: what the runs of a workspace are made with.

use axum::Router;
use axum::extract::{self, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use super::address::Path;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use super::tags::Tags;
use super::workspace;
use crate::api::pools::{call, workspaces};
use crate::app::App;
use crate::store::agent_pool;
use protocol::Hook;

/// The attributes that are texts; an empty one is null.
const TEXTS: [&str; 6] = [
    "name",
    "terraform-version",
    "working-directory",
    "image",
    "apply-schedule",
    "destroy-schedule",
];

/// Those that are switched on or off.
const SWITCHES: [&str; 3] =
    ["auto-apply", "allow-other-terraform-version", "deletion-protection-enabled"];

/// Those that are numbers; an empty one is null.
const NUMBERS: [&str; 2] = ["plan-timeout-seconds", "apply-timeout-seconds"];

pub(super) fn routes() -> Router<App> {
    Router::new().route("/workspaces/{id}/settings", get(show).post(save))
}

async fn show(
    State(app): State<App>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Response, PageError> {
    let document =
        call(&app, session.actor(), Method::GET, &format!("/workspaces/{id}"), "").await?;
    let resource = document["data"].clone();
    let tags = {
        let mut db = app.scheduler.store.read().await?;
        Tags::of_resource(&mut db, &resource).await?
    };
    page(&app, &session, &id, resource, &tags, Refusal::default()).await
}

/// `resource` has what the fields show.
async fn page(
    app: &App,
    session: &Session,
    id: &str,
    resource: Value,
    tags: &Tags,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let fields = TEXTS.iter().chain(&NUMBERS).chain(&["agent-pool", "tags", "hooks"]);
    let refusal = refusal.beside(&fields.copied().collect::<Vec<_>>());
    let mut db = app.scheduler.store.read().await?;
    let top = workspace::top(app, &mut db, id).await?;
    let pools = agent_pool::names(&mut db).await?;
    drop(db);
    let attributes = &resource["attributes"];
    // Templates take names with underscores, and fields take texts.
    let value = |name: &&str| {
        let value = match &attributes[*name] {
            Value::Null => "".into(),
            Value::Number(number) => number.to_string().into(),
            value => value.clone(),
        };
        (name.replace('-', "_"), value)
    };
    let names = TEXTS.iter().chain(&SWITCHES).chain(&NUMBERS);
    let settings: serde_json::Map<String, Value> = names.map(value).collect();
    let hooks = Hook::ALL.map(Hook::name).map(|name| {
        json!({ "name": name, "commands": attributes["hooks"][name].as_str().unwrap_or_default() })
    });
    let content = json!({
        "tab": "settings",
        "workspace": top,
        "settings": settings,
        "hooks": hooks,
        "tags": tags.text(),
        "pool": resource["relationships"]["agent-pool"]["data"]["id"],
        "pools": pools.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect::<Vec<_>>(),
        "refusal": refusal,
    });
    let title = format!("Settings · {}", top.name);
    let page = Page {
        template: "workspace-settings.html",
        title: &title,
        section: "workspaces",
        topics: &[],
    };
    page.show_with(refusal.status(), app, session, &content)
}

async fn save(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let (resource, tags) = (resource(&form.fields), Tags::of(&form.fields));
    let saved = async {
        let (attributes, related) = (&resource["attributes"], &resource["relationships"]);
        let changed = payload("workspaces", attributes.clone(), related.clone())?;
        let changed = changed.tagged(tags.names());
        workspaces::update(State(App::clone(&app)), extract::Path(id.clone()), changed).await
    };
    match saved.await {
        Ok(_) => {
            let message = session::message("Settings saved.", &app);
            Ok(frame::redirect(&format!("/workspaces/{id}/settings"), message))
        }
        Err(error) => page(&app, &form.session, &id, resource, &tags, Refusal::of(error)?).await,
    }
}

fn resource(fields: &Fields) -> Value {
    let text = |name: &'static str| Some(fields.get(name)).filter(|text| !text.is_empty());
    let mut attributes = json!({});
    for name in TEXTS {
        attributes[name] = text(name).into();
    }
    for name in SWITCHES {
        attributes[name] = fields.has(name).into();
    }
    for name in NUMBERS {
        // What is no number, the API refuses by its name.
        attributes[name] = match text(name) {
            None => Value::Null,
            Some(text) => text.parse::<u32>().map_or_else(|_| text.into(), Value::from),
        };
    }
    for name in Hook::ALL.map(Hook::name) {
        attributes["hooks"][name] = fields.raw(name).into();
    }
    let pool = text("agent-pool").map(|id| json!({ "type": "agent-pools", "id": id }));
    json!({
        "type": "workspaces",
        "attributes": attributes,
        "relationships": { "agent-pool": { "data": pool } },
    })
}
