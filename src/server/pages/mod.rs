//! The pages for people: HTML that the server renders from `templates/pages`.
//!
//! Every page works without scripts. With them, the parts of a page that are marked with
//! `data-live` follow what is committed to the database.
//!
//! | part | what it does |
//! |---|---|
//! | [`frame`] | renders a page in the frame that all share |
//! | [`session`] | who is signed in; an extractor |
//! | [`form`] | a form that was sent, with its token checked; an extractor |
//! | [`address`] | what stands in an address; extractors |
//! | [`kept_form`] | the form that was sent after its session had ended |
//! | [`error`] | the pages for what did not work |
//! | [`refusal`] | what the pool API does not accept, at the fields of a form |
//! | [`pools`], [`pool`], [`pool_form`], [`pool_token`] | the agent pools, and one of them |
//! | [`hooks`], [`hook`], [`hook_form`], [`hook_link_form`] | the account's hooks, and one of them |
//! | [`webhooks`], [`webhook`], [`webhook_form`] | the account's webhooks, and one of them |
//! | [`agent`], [`register`] | an agent, and how a machine becomes one |
//! | [`events`] | tells open pages what was changed |
//! | [`assets`], [`headers`] | stylesheet and scripts, and what browsers may do with the pages |
//! | [`sign_in`], [`account`] | how sessions begin and end |
//! | [`api_reference`] | every call of the APIs |
//! | [`login_consent`] | whether `terraform login` gets a token |

mod account;
mod address;
mod agent;
mod api_reference;
mod assets;
#[cfg(test)]
mod browser;
mod cookie;
mod duration;
mod environments;
mod error;
mod events;
mod form;
mod frame;
mod headers;
mod hook;
mod hook_form;
mod hook_link_form;
mod hooks;
mod kept_form;
mod list;
mod log;
mod login_consent;
#[cfg(test)]
mod nested_addresses;
#[cfg(test)]
mod odd_addresses;
mod palette;
mod plan_changes;
mod plan_summary;
mod pool;
mod pool_chart;
mod pool_form;
mod pool_token;
mod pool_users;
mod pools;
mod refusal;
#[cfg(test)]
mod refused_forms;
mod register;
mod run;
mod run_chart;
mod run_form;
mod run_status;
mod runs;
mod session;
mod sign_in;
mod state_diff;
mod states;
mod tags;
mod time;
mod timeline;
mod trouble;
mod value_change;
mod variable_owner;
mod variables;
mod webhook;
mod webhook_form;
mod webhook_headers;
mod webhooks;
mod weight;
mod workspace;
mod workspace_form;
mod workspace_settings;
mod workspaces;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::Method;
use axum::middleware::from_fn;
use axum::response::Redirect;
use axum::routing::get;
use tower_http::timeout::RequestBodyDeadlineLayer;

use crate::app::App;
use error::PageError;
use session::Session;

pub(crate) use pools::loads as pool_loads;
pub(crate) use sign_in::{local_routes, new_link};

/// The largest form, in bytes, and how long it may take.
const MAX_FORM: usize = 1024 * 1024;
const FORM_TIME: std::time::Duration = std::time::Duration::from_secs(30);

/// The pages, and what they are made of.
pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/", get(start))
        .merge(account::routes())
        .merge(environments::routes())
        .merge(events::routes())
        .merge(hook::routes())
        .merge(hook_form::routes())
        .merge(hook_link_form::routes())
        .merge(hooks::routes())
        .merge(agent::routes())
        .merge(api_reference::routes())
        .merge(pool::routes())
        .merge(pool_form::routes())
        .merge(pool_token::routes())
        .merge(pools::routes())
        .merge(kept_form::routes())
        .merge(log::routes())
        .merge(login_consent::routes())
        .merge(register::routes())
        .merge(run::routes())
        .merge(runs::routes())
        .merge(sign_in::routes())
        .merge(states::routes())
        .merge(variables::routes())
        .merge(webhook::routes())
        .merge(webhook_form::routes())
        .merge(webhooks::routes())
        .merge(workspace::routes())
        .merge(workspace_form::routes())
        .merge(workspace_settings::routes())
        .merge(workspaces::routes())
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_method)
        .layer((DefaultBodyLimit::max(MAX_FORM), RequestBodyDeadlineLayer::new(FORM_TIME)))
        .merge(workspace::upload_route())
        .layer(from_fn(headers::add))
        .merge(assets::routes())
}

async fn no_such_page() -> PageError {
    PageError::NotFound("page")
}

async fn no_such_method(method: Method) -> PageError {
    match method {
        Method::GET | Method::HEAD => PageError::OnlyForms,
        _ => PageError::OnlyPages,
    }
}

async fn start(_session: Session) -> Redirect {
    Redirect::to("/pools")
}
