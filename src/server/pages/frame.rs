//! Renders a page in the frame that all pages share.

use std::sync::LazyLock;

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{Html, IntoResponse as _, Response};
use serde::Serialize;
use tera::{Context, Tera};

use super::cookie::Cookie;
use super::duration::Duration;
use super::error::PageError;
use super::session::Session;
use super::{assets, time};
use crate::app::App;

const TEMPLATES: &[(&str, &str)] = &[
    ("account.html", include_str!("../../../templates/pages/account.html")),
    ("agent.html", include_str!("../../../templates/pages/agent.html")),
    ("agent-remove.html", include_str!("../../../templates/pages/agent-remove.html")),
    ("api-calls.html", include_str!("../../../templates/pages/api-calls.html")),
    ("api-reference.html", include_str!("../../../templates/pages/api-reference.html")),
    ("arrival.html", include_str!("../../../templates/pages/arrival.html")),
    ("base.html", include_str!("../../../templates/pages/base.html")),
    ("components.html", include_str!("../../../templates/pages/components.html")),
    ("environment-delete.html", include_str!("../../../templates/pages/environment-delete.html")),
    ("environment-form.html", include_str!("../../../templates/pages/environment-form.html")),
    ("environments.html", include_str!("../../../templates/pages/environments.html")),
    ("error.html", include_str!("../../../templates/pages/error.html")),
    ("hook-delete.html", include_str!("../../../templates/pages/hook-delete.html")),
    ("hook-form.html", include_str!("../../../templates/pages/hook-form.html")),
    ("hook-link-form.html", include_str!("../../../templates/pages/hook-link-form.html")),
    ("hook.html", include_str!("../../../templates/pages/hook.html")),
    ("hooks.html", include_str!("../../../templates/pages/hooks.html")),
    ("list-pages.html", include_str!("../../../templates/pages/list-pages.html")),
    ("login-consent.html", include_str!("../../../templates/pages/login-consent.html")),
    ("plan-changes.html", include_str!("../../../templates/pages/plan-changes.html")),
    ("plan-summary.html", include_str!("../../../templates/pages/plan-summary.html")),
    ("pool-chart.html", include_str!("../../../templates/pages/pool-chart.html")),
    ("pool-delete.html", include_str!("../../../templates/pages/pool-delete.html")),
    ("pool-form.html", include_str!("../../../templates/pages/pool-form.html")),
    ("pool-users.html", include_str!("../../../templates/pages/pool-users.html")),
    ("pool.html", include_str!("../../../templates/pages/pool.html")),
    ("pools.html", include_str!("../../../templates/pages/pools.html")),
    ("register.html", include_str!("../../../templates/pages/register.html")),
    ("registration.html", include_str!("../../../templates/pages/registration.html")),
    ("run-chart.html", include_str!("../../../templates/pages/run-chart.html")),
    ("run-table.html", include_str!("../../../templates/pages/run-table.html")),
    ("run.html", include_str!("../../../templates/pages/run.html")),
    ("runs.html", include_str!("../../../templates/pages/runs.html")),
    ("sign-in-link.html", include_str!("../../../templates/pages/sign-in-link.html")),
    ("sign-in.html", include_str!("../../../templates/pages/sign-in.html")),
    ("state-change.html", include_str!("../../../templates/pages/state-change.html")),
    ("state-rollback.html", include_str!("../../../templates/pages/state-rollback.html")),
    ("states.html", include_str!("../../../templates/pages/states.html")),
    ("token-form.html", include_str!("../../../templates/pages/token-form.html")),
    ("token-new.html", include_str!("../../../templates/pages/token-new.html")),
    ("token-revoke.html", include_str!("../../../templates/pages/token-revoke.html")),
    ("variables.html", include_str!("../../../templates/pages/variables.html")),
    ("variable-delete.html", include_str!("../../../templates/pages/variable-delete.html")),
    ("webhook-delete.html", include_str!("../../../templates/pages/webhook-delete.html")),
    ("webhook-form.html", include_str!("../../../templates/pages/webhook-form.html")),
    ("webhook-headers.html", include_str!("../../../templates/pages/webhook-headers.html")),
    ("webhook.html", include_str!("../../../templates/pages/webhook.html")),
    ("webhooks.html", include_str!("../../../templates/pages/webhooks.html")),
    ("work.html", include_str!("../../../templates/pages/work.html")),
    ("workspace-delete.html", include_str!("../../../templates/pages/workspace-delete.html")),
    ("workspace-form.html", include_str!("../../../templates/pages/workspace-form.html")),
    ("workspace-settings.html", include_str!("../../../templates/pages/workspace-settings.html")),
    ("workspace-top.html", include_str!("../../../templates/pages/workspace-top.html")),
    ("workspace.html", include_str!("../../../templates/pages/workspace.html")),
    ("workspaces.html", include_str!("../../../templates/pages/workspaces.html")),
];

static TERA: LazyLock<Tera> = LazyLock::new(|| {
    let mut tera = Tera::default();
    tera.register_filter("time", time::Relative);
    tera.register_filter("clock", time::TimeOfDay);
    tera.register_filter("duration", Duration);
    tera.register_function("asset", assets::Address);
    tera.add_raw_templates(TEMPLATES.iter().copied()).expect("a template is no good");
    tera
});

/// A page of somebody who is signed in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page<'a> {
    /// The file below `templates/pages`.
    pub template: &'static str,
    /// What the browser's tab says first.
    pub title: &'a str,
    /// The entry of the navigation that it belongs to: `pools`, `workspaces`, `runs`, `account`.
    pub section: &'static str,
    /// What its `data-live` parts follow; see [`crate::store::changes`].
    pub topics: &'a [&'a str],
}

impl Page<'_> {
    /// Renders it with `content`, a struct or a map.
    pub(super) fn show(
        self,
        app: &App,
        session: &Session,
        content: &impl Serialize,
    ) -> Result<Response, PageError> {
        self.show_with(StatusCode::OK, app, session, content)
    }

    /// The same with another status: a form that has an error, for example.
    pub(super) fn show_with(
        self,
        status: StatusCode,
        app: &App,
        session: &Session,
        content: &impl Serialize,
    ) -> Result<Response, PageError> {
        let mut context = Context::from_serialize(content)?;
        context.insert("title", self.title);
        context.insert("section", self.section);
        context.insert("topics", &self.topics.join(" "));
        context.insert("signed_in_as", &session.name);
        context.insert("form_token", &session.form_token);
        context.insert("message", &session.message);
        let html = Html(TERA.render(self.template, &context)?);
        let mut answer = (status, html).into_response();
        if session.message.is_some() {
            answer.headers_mut().append(SET_COOKIE, Cookie::Message.remove(&app.url));
        }
        Ok(answer)
    }
}

/// A page for somebody who is not signed in, with a form that is tied to `visitor`.
pub(super) fn show_to_visitor(
    template: &'static str,
    title: &str,
    form_token: &str,
    content: &impl Serialize,
) -> Result<String, PageError> {
    let mut context = Context::from_serialize(content)?;
    context.insert("title", title);
    context.insert("form_token", form_token);
    Ok(TERA.render(template, &context)?)
}

/// A page that says one thing, to anybody.
pub(super) fn plain(status: StatusCode, title: &str, text: &str) -> Response {
    let mut context = Context::new();
    context.insert("title", title);
    context.insert("status", &status.as_u16());
    context.insert("text", text);
    match TERA.render("error.html", &context) {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!("cannot render the page of an error: {error}");
            (status, text.to_owned()).into_response()
        }
    }
}

/// Sends the browser to `path`, where `message` is shown.
pub(super) fn redirect(path: &str, message: HeaderValue) -> Response {
    let mut answer = axum::response::Redirect::to(path).into_response();
    answer.headers_mut().append(SET_COOKIE, message);
    answer
}
