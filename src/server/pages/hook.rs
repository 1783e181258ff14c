//! `/hooks/ID`: a hook with the environments that it is linked to, and its deletion.

use axum::Router;
use axum::extract::{self, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use super::address::Path;
use super::error::PageError;
use super::form::Form;
use super::frame::{self, Page};
use super::refusal::Refusal;
use super::session::{self, Session};
use crate::api::pools::{hook_links, hooks};
use crate::app::App;
use crate::store::account_hook::{self, AccountHook};
use crate::store::hook_link::{self, NamedLink};
use crate::store::{Connection, environment};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/hooks/{id}", get(show))
        .route("/hooks/{id}/delete", get(ask_to_delete).post(delete))
        .route("/hooks/{id}/links/{link}/delete", post(unlink))
}

/// The hook with this id.
pub(super) async fn find(db: &mut Connection, id: &str) -> Result<AccountHook, PageError> {
    account_hook::find(db, id).await?.ok_or(PageError::NotFound("hook"))
}

#[derive(Serialize)]
struct HookPage {
    id: String,
    name: String,
    description: Option<String>,
    interpreter: String,
    script: String,
    links: Vec<Link>,
    /// Whether there is an environment that it is not linked to.
    can_be_linked: bool,
}

#[derive(Serialize)]
struct Link {
    id: String,
    environment: String,
    events: Vec<&'static str>,
}

impl From<NamedLink> for Link {
    fn from(link: NamedLink) -> Self {
        Self { events: link.events.names(), id: link.id, environment: link.environment }
    }
}

async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let mut db = app.scheduler.store.read().await?;
    let hook = find(&mut db, &id).await?;
    let links = hook_link::of_hooks(&mut db, &[&id]).await?;
    let content = HookPage {
        can_be_linked: environment::names(&mut db).await?.len() > links.len(),
        links: links.into_iter().map(Link::from).collect(),
        id: hook.id,
        name: hook.name,
        description: hook.description,
        interpreter: hook.interpreter,
        script: hook.script,
    };
    let page = Page {
        template: "hook.html",
        title: &content.name,
        section: "account",
        topics: &[&format!("hook:{id}"), "hook_environment_links", "environments"],
    };
    page.show(&app, &session, &content)
}

async fn unlink(
    State(app): State<App>,
    Path((id, link)): Path<(String, String)>,
    _: Form,
) -> Result<Response, PageError> {
    {
        let mut db = app.scheduler.store.read().await?;
        let found = hook_link::find(&mut db, &link).await?;
        found.filter(|found| found.hook_id == id).ok_or(PageError::NotFound("link"))?;
    }
    let message = match hook_links::delete(State(App::clone(&app)), extract::Path(link)).await {
        Ok(_) => "Unlinked. Runs whose plans have begun still execute the hook.".to_owned(),
        Err(error) => Refusal::of(error)?.whole(),
    };
    Ok(frame::redirect(&format!("/hooks/{id}"), session::message(&message, &app)))
}

#[derive(Serialize)]
struct Deletion {
    id: String,
    name: String,
    /// The environments that it is linked to, which have to be unlinked first.
    environments: Vec<String>,
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
    let hook = find(&mut db, id).await?;
    let links = hook_link::of_hooks(&mut db, &[id]).await?;
    let environments = links.into_iter().map(|link| link.environment).collect();
    let status = if refusal.text.is_some() { StatusCode::CONFLICT } else { StatusCode::OK };
    let title = format!("Delete {}", hook.name);
    let content = Deletion { id: hook.id, name: hook.name, environments, refusal };
    let page =
        Page { template: "hook-delete.html", title: &title, section: "account", topics: &[] };
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
    match hooks::delete(State(App::clone(&app)), extract::Path(id.clone())).await {
        Ok(_) => {
            let message = session::message(&format!("Deleted the hook {name}."), &app);
            Ok(frame::redirect("/hooks", message))
        }
        Err(error) => confirm(&app, &form.session, &id, Refusal::of(error)?).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_hook_is_made_linked_unlinked_and_deleted_in_the_browser() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        assert!(browser.page("/hooks").await.contains("No hooks yet"));
        let script = "echo '<b>'\r\nexit 0\r\n";
        let fields =
            [("name", "policy"), ("description", ""), ("interpreter", "sh"), ("script", script)];
        let (status, path) = browser.post_for_location("/hooks/new", &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let path = path.unwrap();
        let list = browser.page("/hooks").await;
        assert!(list.contains("no environment: no run executes it"), "{list}");
        let page = browser.page(&path).await;
        assert!(page.contains("&lt;b&gt;"), "{page}");

        let new_link = format!("{path}/links/new");
        let environment = {
            let mut db = server.app.scheduler.store.read().await.unwrap();
            environment::names(&mut db).await.unwrap().remove(0).0
        };
        let none = browser.post(&new_link, &[("environment", &environment)]).await;
        assert_eq!(none.0, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(none.1.contains("at least one event"), "{}", none.1);
        let fields =
            [("environment", environment.as_str()), ("event", "pre-plan"), ("event", "post-plan")];
        let (status, answer) = browser.post(&new_link, &fields).await;
        assert_eq!(status, StatusCode::SEE_OTHER, "{answer}");
        let page = browser.page(&path).await;
        assert!(page.contains("pre-plan, post-plan"), "{page}");

        let delete = format!("{path}/delete");
        assert!(browser.page(&delete).await.contains("linked to default"));
        let (status, page) = browser.post(&delete, &[]).await;
        assert_eq!(status, StatusCode::CONFLICT, "{page}");
        let page = browser.page(&path).await;
        let (_, link) = page.split_once(&format!("href=\"{path}/links/hel-")).unwrap();
        let link = format!("{path}/links/hel-{}", link.split('"').next().unwrap());
        assert!(browser.page(&link).await.contains("value=\"pre-plan\" checked"));
        let fields = [("event", "pre-apply")];
        assert_eq!(browser.post(&link, &fields).await.0, StatusCode::SEE_OTHER);
        assert!(browser.page(&path).await.contains("pre-apply"));
        let unlinked = browser.post(&format!("{link}/delete"), &[]).await;
        assert_eq!(unlinked.0, StatusCode::SEE_OTHER);
        assert_eq!(browser.post(&delete, &[]).await.0, StatusCode::SEE_OTHER);
        assert!(browser.page("/hooks").await.contains("No hooks yet"));
    }

    #[tokio::test]
    async fn what_the_api_refuses_of_a_hook_is_said_at_its_field() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        for (field, value, text) in [
            ("name", "", "printable characters"),
            ("interpreter", "sh -e", "without arguments"),
            ("script", "", "a script of 1"),
        ] {
            let mut fields = vec![("name", "policy"), ("interpreter", "sh"), ("script", "exit")];
            fields.retain(|(name, _)| *name != field);
            fields.push((field, value));
            let (status, page) = browser.post("/hooks/new", &fields).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{field}: {page}");
            let (_, wrong) = page.split_once(" wrong\"").unwrap();
            let (wrong, _) = wrong.split_once("</p>").unwrap();
            assert!(wrong.contains(text), "{field}: {wrong}");
        }
        assert!(browser.page("/hooks").await.contains("No hooks yet"));
    }
}
