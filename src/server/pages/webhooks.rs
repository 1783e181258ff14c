//! `/webhooks`: the webhooks of the account, and whether they work.

use std::collections::HashMap;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use super::address::Query;
use super::error::PageError;
use super::frame::Page;
use super::list::{self, Pages};
use super::session::Session;
use crate::app::App;
use crate::clock::Millis;
use crate::store::webhook::Webhook;
use crate::store::webhook_delivery::{self, WebhookDelivery};
use crate::store::webhook_integration::{self as integration, Event, WebhookIntegration};
use crate::store::{Connection, environment};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/webhooks", get(show))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    page: Option<i64>,
}

/// A webhook in the list.
#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    enabled: bool,
    events: Vec<&'static str>,
    scope: Scope,
    site: String,
    /// None: it was not called yet.
    last: Option<LastDelivery>,
}

#[derive(Serialize)]
struct LastDelivery {
    status: Shown,
    created_at: Millis,
}

/// The environments that a webhook is for.
#[derive(Serialize)]
pub(super) struct Scope {
    is_shared: bool,
    /// The names of the environments, if it is not for all of them.
    environments: Vec<String>,
}

/// What became of a delivery, for people.
#[derive(Serialize)]
pub(super) struct Shown {
    label: &'static str,
    /// The colour: see the component `status`.
    kind: &'static str,
}

impl Shown {
    pub(super) fn of(delivery: &WebhookDelivery) -> Self {
        let (label, kind) = match delivery.state() {
            "delivered" => ("Delivered", "good"),
            "failed" => ("Failed", "bad"),
            _ if delivery.attempts > 0 => ("Retrying", "waiting"),
            _ => ("Pending", "waiting"),
        };
        Self { label, kind }
    }
}

/// The site of a webhook, without what may be secret in its URL.
pub(super) fn site(webhook: &Webhook) -> Option<String> {
    let url = Url::parse(webhook.url.as_ref()?.expose()).ok()?;
    Some(url.origin().ascii_serialization())
}

/// The scopes of these webhooks, in their order.
pub(super) async fn scopes(
    db: &mut Connection,
    webhooks: &[WebhookIntegration],
) -> sqlx::Result<Vec<Scope>> {
    let ids: Vec<&str> = webhooks.iter().map(|webhook| webhook.id.as_str()).collect();
    let of = integration::environments_of(db, &ids).await?;
    let names: HashMap<_, _> = environment::names(db).await?.into_iter().collect();
    let scope = |webhook: &WebhookIntegration| {
        let own = of.iter().filter(|(id, _)| *id == webhook.id);
        Scope {
            is_shared: webhook.is_shared,
            environments: own.filter_map(|(_, id)| names.get(id).cloned()).collect(),
        }
    };
    Ok(webhooks.iter().map(scope).collect())
}

async fn show(
    State(app): State<App>,
    session: Session,
    Query(asked): Query<Asked>,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let page = list::page(asked.page)?;
    let listed = integration::list(&mut db, integration::Filter::default(), page).await?;
    let scopes = scopes(&mut db, &listed.rows).await?;
    let ids: Vec<&str> = listed.rows.iter().map(|webhook| webhook.id.as_str()).collect();
    let newest = webhook_delivery::newest(&mut db, &ids).await?;
    let row = |(webhook, scope): (WebhookIntegration, Scope)| {
        let last = newest.iter().find(|delivery| delivery.integration_id == webhook.id);
        Row {
            last: last.map(|delivery| LastDelivery {
                status: Shown::of(delivery),
                created_at: delivery.created_at,
            }),
            site: site(&webhook.webhook).unwrap_or_default(),
            events: webhook.events.0.iter().copied().map(Event::name).collect(),
            id: webhook.id,
            name: webhook.name,
            enabled: webhook.enabled,
            scope,
        }
    };
    let total = listed.total;
    let rows: Vec<Row> = std::iter::zip(listed.rows.clone(), scopes).map(row).collect();
    let content = json!({ "webhooks": rows, "pages": Pages::of("/webhooks", &[], page, total)? });
    let page = Page {
        template: "webhooks.html",
        title: "Webhooks",
        section: "account",
        topics: &["webhook_integrations", "webhook_deliveries", "environments"],
    };
    page.show(&app, &session, &content)
}
