//! `/webhooks/ID`: a webhook with its deliveries, and its deletion.

use std::collections::HashMap;

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::address::{Path, Query};
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::list::{self, Pages};
use super::refusal::Refusal;
use super::session::{self, Session};
use super::webhook_headers::{self, ShownHeader};
use super::webhooks::{self, Scope, Shown};
use crate::api::pools::webhook_integrations;
use crate::app::App;
use crate::clock::Millis;
use crate::store::webhook_delivery::{self as delivery, Subject, WebhookDelivery};
use crate::store::webhook_integration::{self as integration, Event, WebhookIntegration};
use crate::store::{Connection, agent, run};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/webhooks/{id}", get(show))
        .route("/webhooks/{id}/delete", get(ask_to_delete).post(delete))
        .route("/webhooks/{id}/deliveries/{delivery}/redeliver", post(redeliver))
}

/// The webhook with this id.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<WebhookIntegration, PageError> {
    integration::find(db, id).await?.ok_or(PageError::NotFound("webhook"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    page: Option<i64>,
}

#[derive(Serialize)]
struct WebhookPage {
    id: String,
    name: String,
    enabled: bool,
    scope: Scope,
    site: String,
    events: Vec<&'static str>,
    headers: Vec<ShownHeader>,
    is_signed: bool,
    /// In seconds.
    timeout: i64,
    max_attempts: i64,
    last_triggered_at: Option<Millis>,
    deliveries: Vec<Row>,
    pages: Pages,
    refusal: Refusal,
}

/// A delivery in the list.
#[derive(Serialize)]
struct Row {
    id: String,
    event: String,
    /// The run or the agent that it is about.
    about: String,
    /// None: an agent that is forgotten.
    link: Option<String>,
    status: Shown,
    created_at: Millis,
    attempts: i64,
    next_at: Option<Millis>,
    duration: Option<i64>,
    answer_status: Option<i64>,
    /// What is wrong: the beginning of an answer that is no success, or why there was none.
    error: Option<String>,
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    render(&app, &session, &id, asked.page, Refusal::default()).await
}

async fn render(
    app: &App,
    session: &Session,
    id: &str,
    number: Option<i64>,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let webhook = find(&mut db, id).await?;
    let scope = webhooks::scopes(&mut db, std::slice::from_ref(&webhook)).await?.remove(0);
    let part = list::page(number)?;
    let filter = delivery::Filter { integration: Some(id), ..delivery::Filter::default() };
    let listed = delivery::list(&mut db, filter, part).await?;
    let status = if refusal.text.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    let content = WebhookPage {
        scope,
        site: webhooks::site(&webhook.webhook).unwrap_or_default(),
        events: webhook.events.0.iter().copied().map(Event::name).collect(),
        headers: webhook_headers::shown(&webhook.webhook.headers),
        is_signed: webhook.webhook.secret_key.is_some(),
        deliveries: rows(&mut db, listed.rows).await?,
        pages: Pages::of(&format!("/webhooks/{id}"), &[], part, listed.total)?,
        id: webhook.id,
        name: webhook.name,
        enabled: webhook.enabled,
        timeout: webhook.timeout,
        max_attempts: webhook.max_attempts,
        last_triggered_at: webhook.last_triggered_at,
        refusal,
    };
    let page = Page {
        template: "webhook.html",
        title: &content.name,
        section: "account",
        topics: &[&format!("webhook:{id}"), "environments"],
    };
    page.show_with(status, app, session, &content)
}

async fn rows(
    db: &mut Connection,
    deliveries: Vec<WebhookDelivery>,
) -> Result<Vec<Row>, PageError> {
    let (mut runs, mut agents) = (Vec::new(), Vec::new());
    for delivery in &deliveries {
        match &delivery.subject {
            Subject::Run { id, .. } => runs.push(id.as_str()),
            Subject::Agent(agent) => agents.push(agent.id.as_str()),
        }
    }
    let runs = run::with_ids(db, &runs).await?.into_iter();
    let messages: HashMap<_, _> = runs.filter_map(|run| Some((run.id, run.message?))).collect();
    let agents = agent::with_ids(db, &agents).await?;
    let row = |delivery: WebhookDelivery| {
        let status = Shown::of(&delivery);
        let (about, link) = match delivery.subject {
            Subject::Run { id, .. } => {
                (messages.get(&id).unwrap_or(&id).clone(), Some(format!("/runs/{id}")))
            }
            Subject::Agent(then) => {
                let is_known = agents.iter().any(|agent| agent.id == then.id);
                (then.name, is_known.then(|| format!("/agents/{}", then.id)))
            }
        };
        Row {
            about,
            link,
            status,
            id: delivery.id,
            event: delivery.event,
            created_at: delivery.created_at,
            attempts: delivery.attempts,
            next_at: delivery.next_at,
            duration: delivery.duration,
            answer_status: delivery.answer_status,
            error: delivery
                .answer
                .filter(|answer| !delivery.delivered && !answer.trim().is_empty()),
        }
    };
    Ok(deliveries.into_iter().map(row).collect())
}

async fn redeliver(
    State(app): State<App>,
    Path((id, delivery)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    {
        let mut db = app.scheduler.store.read().await?;
        let found = delivery::find(&mut db, &delivery).await?;
        found.filter(|found| found.integration_id == id).ok_or(PageError::NotFound("delivery"))?;
    }
    match webhook_integrations::redeliver(State(App::clone(&app)), extract::Path(delivery)).await {
        Ok(_) => {
            let message = session::message("The same call is made once more.", &app);
            Ok(frame::redirect(&format!("/webhooks/{id}"), message))
        }
        Err(error) => render(&app, &form.session, &id, None, Refusal::of(error)?).await,
    }
}

#[derive(Serialize)]
struct Deletion {
    id: String,
    name: String,
    deliveries: i64,
    /// How many of them are still to be made.
    pending: i64,
    refusal: Refusal,
}

async fn ask_to_delete(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    confirm(&app, &session, &id, Refusal::default()).await
}

async fn confirm(
    app: &App,
    session: &Session,
    id: &str,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let webhook = find(&mut db, id).await?;
    let (deliveries, pending) = delivery::count(&mut db, id).await?;
    let status = if refusal.text.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    let title = format!("Delete {}", webhook.name);
    let content = Deletion { id: webhook.id, name: webhook.name, deliveries, pending, refusal };
    let page =
        Page { template: "webhook-delete.html", title: &title, section: "account", topics: &[] };
    page.show_with(status, app, session, &content)
}

async fn delete(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let name = {
        let mut db = app.scheduler.store.read().await?;
        find(&mut db, &id).await?.name
    };
    match webhook_integrations::delete(State(App::clone(&app)), extract::Path(id.clone())).await {
        Ok(_) => {
            let message = session::message(&format!("Deleted the webhook {name}."), &app);
            Ok(frame::redirect("/webhooks", message))
        }
        Err(error) => confirm(&app, &form.session, &id, Refusal::of(error)?).await,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;
    use crate::store::webhook_delivery::AgentThen;

    async fn made(server: &InProcess) -> String {
        let document = json!({ "data": {
            "attributes": {
                "name": "chat", "url": "https://chat.example.com/hook", "is-shared": true,
            },
            "relationships": { "events": { "data": [
                { "type": "event-definitions", "id": "run:errored" },
            ] } },
        } });
        let made = server.api(Method::POST, "/webhook-integrations", document).await;
        made["data"]["id"].as_str().unwrap().to_owned()
    }

    /// A run that is canceled; its id.
    async fn failed_run(server: &InProcess) -> String {
        let (_, run) = server.run().await;
        server.api(Method::POST, &format!("/runs/{run}/actions/cancel"), json!({})).await;
        run
    }

    async fn newest(server: &InProcess, webhook: &str) -> WebhookDelivery {
        let mut db = server.app.scheduler.store.read().await.unwrap();
        delivery::newest(&mut db, &[webhook]).await.unwrap().remove(0)
    }

    async fn record(server: &InProcess, tried: &WebhookDelivery) {
        let mut tx = server.app.scheduler.store.write().await.unwrap();
        delivery::record(&mut tx, tried).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn a_webhooks_page_says_what_became_of_its_calls_and_makes_one_again() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let webhook = made(&server).await;
        let path = format!("/webhooks/{webhook}");
        assert!(browser.page(&path).await.contains("Nothing was delivered yet"));
        assert!(browser.page("/webhooks").await.contains(">none yet<"));

        let run = failed_run(&server).await;
        let mut tried = newest(&server, &webhook).await;
        assert!(browser.page("/webhooks").await.contains("</svg>Pending<"));
        tried.attempts = 2;
        tried.answer = Some("error sending request: <b>connection refused".to_owned());
        record(&server, &tried).await;
        let page = browser.page(&path).await;
        for part in [
            &format!("href=\"/runs/{run}\""),
            "<code>run:errored</code>",
            "</svg>Retrying<",
            ">2 of 3<",
            "class=\"number\">none<",
            "&lt;b&gt;connection refused",
            "<td data-label=\"Next attempt\"><time",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(browser.page("/webhooks").await.contains("</svg>Retrying<"));

        tried.attempts = 3;
        tried.next_at = None;
        tried.answer_status = Some(502);
        record(&server, &tried).await;
        let page = browser.page(&path).await;
        assert!(page.contains("</svg>Failed<") && page.contains("class=\"number\">502<"), "{page}");

        let again = format!("{path}/deliveries/{}/redeliver", tried.id);
        let (status, location) = browser.post_for_location(&again, &[]).await;
        assert_eq!((status, location), (StatusCode::SEE_OTHER, Some(path.clone())));
        let mut second = newest(&server, &webhook).await;
        assert_ne!(second.id, tried.id);
        assert!(matches!(&second.subject, Subject::Run { id, .. } if *id == run));
        assert_eq!(second.attempts, 0);
        second.attempts = 1;
        second.next_at = None;
        second.delivered = true;
        second.answer = Some("thanks".to_owned());
        record(&server, &second).await;
        let page = browser.page(&path).await;
        assert!(page.contains("</svg>Delivered<") && !page.contains("thanks"), "{page}");
        assert!(browser.page("/webhooks").await.contains("</svg>Delivered<"));

        let gone = format!("{path}/deliveries/wd-none/redeliver");
        assert_eq!(browser.post(&gone, &[]).await.0, StatusCode::NOT_FOUND);
        assert_eq!(browser.get("/webhooks/wh-none").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_webhook_is_deleted_after_its_page_has_named_what_goes_with_it() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let webhook = made(&server).await;
        failed_run(&server).await;
        let path = format!("/webhooks/{webhook}/delete");
        let page = browser.page(&path).await;
        assert!(page.contains("Delete the webhook chat?"), "{page}");
        assert!(page.contains("1 delivery, 1 of them still to be made"), "{page}");

        let (status, _) = browser.send(Method::POST, &path, String::new()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "without the form's token");
        let (status, location) = browser.post_for_location(&path, &[]).await;
        assert_eq!((status, location.as_deref()), (StatusCode::SEE_OTHER, Some("/webhooks")));
        assert_eq!(browser.get(&path).await.0, StatusCode::NOT_FOUND);
        let left = server.api(Method::GET, "/webhook-deliveries", Value::Null).await;
        assert_eq!(left["data"], json!([]));
    }

    #[tokio::test]
    async fn a_disabled_webhook_says_that_due_calls_wait() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let webhook = made(&server).await;
        failed_run(&server).await;
        let document = json!({ "data": { "attributes": { "enabled": false } } });
        let path = format!("/webhook-integrations/{webhook}");
        server.api(Method::PATCH, &path, document).await;
        let page = browser.page(&format!("/webhooks/{webhook}")).await;
        assert!(page.contains("This webhook is disabled"), "{page}");
        assert!(page.contains(">when it is enabled<"), "{page}");
    }

    #[tokio::test]
    async fn an_agent_that_is_forgotten_keeps_its_name_in_the_list() {
        let server = InProcess::new().await;
        let webhook = made(&server).await;
        let agent = AgentThen {
            id: "agent-1".to_owned(),
            name: "build-1".to_owned(),
            health: agent::Health::Offline,
            left: false,
            error: None,
            last_seen_at: 0,
            pool_id: "apool-1".to_owned(),
            pool_name: "production".to_owned(),
        };
        let subject = Subject::Agent(agent);
        let call = WebhookDelivery::new("wd-1".to_owned(), &webhook, subject, "agent:offline", 0);
        let mut tx = server.app.scheduler.store.write().await.unwrap();
        delivery::insert(&mut tx, &call).await.unwrap();
        tx.commit().await.unwrap();
        let page = Browser::new(&server).await.page(&format!("/webhooks/{webhook}")).await;
        assert!(page.contains("build-1 <span class=\"tag\">forgotten</span>"), "{page}");
        assert!(!page.contains("/agents/agent-1"), "{page}");
    }

    #[tokio::test]
    async fn an_open_page_follows_the_deliveries_of_its_webhook() {
        let server = InProcess::new().await;
        let webhook = made(&server).await;
        let mut watcher = server.app.scheduler.store.changes.watch();
        failed_run(&server).await;
        let topic = format!("webhook:{webhook}");
        let mut topics = std::collections::BTreeSet::new();
        while let Ok(changed) = watcher.try_recv() {
            topics.extend(changed.iter().cloned());
        }
        assert!(topics.contains(&topic) && topics.contains("webhook_deliveries"), "{topics:?}");
    }
}
