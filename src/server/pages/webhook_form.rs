//! The form for a new webhook, and for a webhook that is changed. Its secret key can be replaced or
//! removed, never seen.

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::{Value, json};

use super::address::Path;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::{self, Page};
use super::refusal::{Refusal, payload};
use super::session::{self, Session};
use super::webhook;
use super::webhook_headers::{self, HeaderRow};
use crate::api::json_api::ApiError;
use crate::api::pools::{Payload, webhook_integrations};
use crate::app::App;
use crate::store::webhook_integration::{self as integration, Event};
use crate::store::{Connection, environment};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/webhooks/new", get(ask).post(create))
        .route("/webhooks/{id}/edit", get(ask_to_change).post(change))
}

#[derive(Serialize)]
struct WebhookForm {
    /// The webhook's id; none: it is a new one.
    id: Option<String>,
    /// What the webhook is called now, not what it is to be called.
    heading: String,
    name: String,
    url: String,
    enabled: bool,
    events: Vec<EventChoice>,
    is_shared: bool,
    environments: Vec<EnvironmentChoice>,
    headers: Vec<HeaderRow>,
    /// Whether it has a secret key.
    has_key: bool,
    removes_key: bool,
    /// Whether the key has to be typed again, because the form was refused.
    key_again: bool,
    timeout: String,
    max_attempts: String,
    refusal: Refusal,
}

#[derive(Serialize)]
struct EventChoice {
    name: &'static str,
    meaning: &'static str,
    is_chosen: bool,
}

#[derive(Serialize)]
struct EnvironmentChoice {
    id: String,
    name: String,
    is_chosen: bool,
}

fn meaning(event: Event) -> &'static str {
    match event {
        Event::NeedsAttention => "a plan waits for an approval",
        Event::Errored => "a run failed or was canceled",
        Event::Completed => "a run was applied, or changes nothing",
        Event::AgentOffline => "an agent has left, or misses its heartbeats",
        Event::AgentErrored => "an agent can run nothing",
        Event::AgentOnline => "an agent is back from either",
    }
}

fn events(is_chosen: impl Fn(Event) -> bool) -> Vec<EventChoice> {
    let choice = |event: Event| EventChoice {
        name: event.name(),
        meaning: meaning(event),
        is_chosen: is_chosen(event),
    };
    Event::ALL.map(choice).into()
}

async fn environments(
    db: &mut Connection,
    is_chosen: impl Fn(&str) -> bool,
) -> Result<Vec<EnvironmentChoice>, PageError> {
    let choice =
        |(id, name): (String, String)| EnvironmentChoice { is_chosen: is_chosen(&id), id, name };
    Ok(environment::names(db).await?.into_iter().map(choice).collect())
}

impl WebhookForm {
    /// As somebody filled it in.
    async fn of(db: &mut Connection, fields: &Fields, refusal: Refusal) -> Result<Self, PageError> {
        Ok(Self {
            id: None,
            heading: "New webhook".to_owned(),
            name: fields.get("name").to_owned(),
            url: fields.get("url").to_owned(),
            enabled: fields.has("enabled"),
            events: events(|event| fields.all("event").any(|name| name == event.name())),
            is_shared: fields.get("sharing") != "named",
            environments: environments(db, |id| fields.all("environment").any(|one| one == id))
                .await?,
            headers: webhook_headers::rows_of(fields),
            has_key: false,
            removes_key: fields.has("remove-key"),
            key_again: !fields.raw("secret-key").is_empty(),
            timeout: fields.get("timeout").to_owned(),
            max_attempts: fields.get("max-attempts").to_owned(),
            refusal,
        })
    }

    fn show(
        &self,
        status: StatusCode,
        app: &App,
        session: &Session,
    ) -> Result<Response, PageError> {
        let page = Page {
            template: "webhook-form.html",
            title: &self.heading,
            section: "account",
            topics: &[],
        };
        page.show_with(status, app, session, self)
    }
}

async fn ask(State(app): State<App>, session: Session) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let form = WebhookForm {
        enabled: true,
        timeout: webhook_integrations::TIMEOUT.to_string(),
        max_attempts: webhook_integrations::MAX_ATTEMPTS.to_string(),
        ..WebhookForm::of(&mut db, &Fields::default(), Refusal::default()).await?
    };
    form.show(StatusCode::OK, &app, &session)
}

async fn create(State(app): State<App>, form: Form) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let made =
        async { webhook_integrations::create(State(App::clone(&app)), resource(&fields)?).await };
    match made.await {
        Ok(made) => {
            let id = made.resource()["id"].as_str().unwrap_or_default();
            let text = format!("Created the webhook {}.", fields.get("name"));
            Ok(frame::redirect(&format!("/webhooks/{id}"), session::message(&text, &app)))
        }
        Err(error) => {
            let mut db = app.scheduler.store.read().await?;
            let form = WebhookForm::of(&mut db, &fields, Refusal::of(error)?).await?;
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
    let found = webhook::find(&mut db, &id).await?;
    let own = integration::environments_of(&mut db, &[&id]).await?;
    let url = found.webhook.url.as_ref().map(|url| url.expose().to_owned());
    let form = WebhookForm {
        heading: format!("Edit {}", found.name),
        name: found.name,
        url: url.unwrap_or_default(),
        enabled: found.enabled,
        events: events(|event| found.events.0.contains(&event)),
        is_shared: found.is_shared,
        environments: environments(&mut db, |id| own.iter().any(|(_, own)| own == id)).await?,
        headers: webhook_headers::rows(&found.webhook.headers),
        has_key: found.webhook.secret_key.is_some(),
        removes_key: false,
        key_again: false,
        timeout: found.timeout.to_string(),
        max_attempts: found.max_attempts.to_string(),
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
        webhook::find(&mut db, &id).await?
    };
    let changed = async {
        let path = extract::Path(id.clone());
        webhook_integrations::update(State(App::clone(&app)), path, resource(&fields)?).await
    };
    match changed.await {
        Ok(_) => {
            let message = session::message("Saved.", &app);
            Ok(frame::redirect(&format!("/webhooks/{id}"), message))
        }
        Err(error) => {
            let mut db = app.scheduler.store.read().await?;
            let form = WebhookForm {
                id: Some(id),
                heading: format!("Edit {}", found.name),
                has_key: found.webhook.secret_key.is_some(),
                ..WebhookForm::of(&mut db, &fields, Refusal::of(error)?).await?
            };
            form.show(StatusCode::UNPROCESSABLE_ENTITY, &app, &session)
        }
    }
}

/// The webhook as the API takes it.
fn resource(fields: &Fields) -> Result<Payload, ApiError> {
    let is_shared = fields.get("sharing") != "named";
    let link = |kind: &'static str| move |id: &str| json!({ "type": kind, "id": id });
    let named: Vec<_> = match is_shared {
        true => Vec::new(),
        false => fields.all("environment").map(link("environments")).collect(),
    };
    let events: Vec<_> = fields.all("event").map(link("event-definitions")).collect();
    let mut attributes = json!({
        "name": fields.get("name"),
        "url": fields.get("url"),
        "enabled": fields.has("enabled"),
        "is-shared": is_shared,
        "headers": webhook_headers::attribute(fields),
        "timeout": fields.number("timeout"),
        "max-attempts": fields.number("max-attempts"),
    });
    // The form of a webhook never has its key: an empty field leaves it as it is.
    let key = fields.raw("secret-key");
    if !key.is_empty() {
        attributes["secret-key"] = key.into();
    } else if fields.has("remove-key") {
        attributes["secret-key"] = Value::Null;
    }
    let relationships = json!({
        "events": { "data": events },
        "environments": { "data": named },
    });
    payload("webhook-integrations", attributes, relationships)
}

#[cfg(test)]
mod tests {
    use axum::http::Method;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;
    use crate::store::webhook_integration::WebhookIntegration;

    const FIELDS: [(&str, &str); 13] = [
        ("name", "<b>chat"),
        ("url", "https://chat.example.com/hook?key=hunter1"),
        ("enabled", "on"),
        ("event", "run:errored"),
        ("sharing", "all"),
        ("secret-key", "hunter2"),
        ("header-name-0", "Authorization"),
        ("header-value-0", "Bearer hunter3"),
        ("header-sensitive-0", "on"),
        ("header-name-1", "X-Team"),
        ("header-value-1", "<b>platform"),
        ("timeout", "20"),
        ("max-attempts", "5"),
    ];

    /// The fields with some of them changed; an empty value leaves a field out.
    fn with<'a>(changed: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let is_changed = |name| changed.iter().any(|(other, _)| *other == name);
        let mut fields: Vec<_> =
            FIELDS.into_iter().filter(|(name, _)| !is_changed(*name)).collect();
        fields.extend(changed.iter().filter(|(_, value)| !value.is_empty()));
        fields
    }

    async fn stored(server: &InProcess) -> WebhookIntegration {
        let mut db = server.app.scheduler.store.read().await.unwrap();
        let filter = integration::Filter::default();
        let page = crate::store::Page::default();
        integration::list(&mut db, filter, page).await.unwrap().rows.remove(0)
    }

    #[tokio::test]
    async fn a_webhook_is_made_and_changed_and_its_secrets_are_kept_but_never_shown() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let page = browser.page("/webhooks/new").await;
        assert!(
            page.contains("value=\"15\"") && page.contains("<code>run:errored</code>"),
            "{page}"
        );
        let (status, location) = browser.post_for_location("/webhooks/new", &FIELDS).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let path = location.unwrap();
        let made = stored(&server).await;
        assert_eq!((made.timeout, made.max_attempts, made.is_shared), (20, 5, true));
        assert_eq!(made.webhook.headers[1].value.expose(), "<b>platform");

        let edit = format!("{path}/edit");
        for path in [&path, &edit, "/webhooks"] {
            let page = browser.page(path).await;
            assert!(page.contains("&lt;b&gt;chat"), "{page}");
            assert!(!page.contains("hunter2") && !page.contains("hunter3"), "{page}");
        }
        // The address is in the form alone: it may have a secret in it.
        assert!(browser.page(&edit).await.contains("key=hunter1"));
        let page = browser.page(&path).await;
        assert!(page.contains(">https://chat.example.com<") && !page.contains("hunter1"), "{page}");
        assert!(page.contains("X-Team: &lt;b&gt;platform") && page.contains("sensitive"), "{page}");

        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environments["data"][0]["id"].as_str().unwrap();
        let named = with(&[
            ("name", "pager"),
            ("secret-key", ""),
            ("header-value-0", ""),
            ("header-value-1", ""),
            ("header-name-1", ""),
            ("enabled", ""),
            ("sharing", "named"),
            ("environment", environment),
        ]);
        let (status, answer) = browser.post(&edit, &named).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        let kept = stored(&server).await;
        assert_eq!((kept.name.as_str(), kept.enabled, kept.is_shared), ("pager", false, false));
        assert_eq!(kept.webhook.secret_key.as_ref().unwrap().expose(), "hunter2");
        let headers = &kept.webhook.headers;
        assert_eq!((headers.len(), headers[0].value.expose()), (1, "Bearer hunter3"));
        let page = browser.page(&edit).await;
        assert!(page.contains(&format!("value=\"{environment}\" checked")), "{page}");
        let list = browser.page("/webhooks").await;
        assert!(list.contains(">disabled<") && list.contains(">default<"), "{list}");

        let removal = with(&[("secret-key", ""), ("remove-key", "on"), ("sharing", "named")]);
        assert_eq!(browser.post(&edit, &removal).await.0, StatusCode::SEE_OTHER);
        assert!(stored(&server).await.webhook.secret_key.is_none());
        assert!(browser.page("/webhooks").await.contains("none: it is never called"));
    }

    #[tokio::test]
    async fn what_the_api_refuses_is_said_at_its_field_and_changes_nothing() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        for (changed, text) in [
            (("name", ""), "printable characters"),
            (("url", "http://chat.example.com"), "https://"),
            (("event", ""), "at least one event"),
            (("event", "run:begun"), "There is no event run:begun"),
            (("timeout", "soon"), "from 1 to 60"),
            (("max-attempts", "11"), "from 1 to 10"),
            (("header-name-1", "two words"), "is not the name of an HTTP header"),
        ] {
            let (status, page) = browser.post("/webhooks/new", &with(&[changed])).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{changed:?}: {page}");
            let (_, wrong) = page.split_once(" wrong\"").or(page.split_once("\"wrong\"")).unwrap();
            let (wrong, _) = wrong.split_once("</p>").unwrap();
            assert!(wrong.contains(text), "{changed:?}: {wrong}");
            // What was typed stays, but for secrets, which the browser asks for again.
            assert!(page.contains("value=\"X-Team\"") || changed.0 == "header-name-1", "{page}");
            assert!(!page.contains("hunter2") && !page.contains("hunter3"), "{page}");
            assert_eq!(page.matches("ype it again").count(), 2, "{page}");
        }
        let mine = with(&[("environment", "env-none"), ("sharing", "named")]);
        let (status, page) = browser.post("/webhooks/new", &mine).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(page.contains("id=\"environments-note\""), "{page}");
        assert!(browser.page("/webhooks").await.contains("No webhooks yet"));
    }
}
