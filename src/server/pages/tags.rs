//! The tags of a workspace or of an environment, as a form has them: names, with commas between
//! them. A name that no tag has yet becomes a new one.

use axum::http::Method;
use serde_json::{Value, json};

use super::error::PageError;
use super::form::Fields;
use super::session::Session;
use crate::api::pools::call;
use crate::app::App;
use crate::store::{Connection, tag};
use protocol::limits::MAX_NAME;

/// How many a workspace or an environment can have.
const MOST: usize = 1_000;

/// Names of tags.
pub(super) struct Tags(Vec<String>);

impl Tags {
    /// As somebody wrote them into the field `tags`.
    pub(super) fn of(fields: &Fields) -> Self {
        let names = fields.get("tags").split(',').map(str::trim);
        let mut names: Vec<_> = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Those of `owner`, a workspace or an environment as the API shows it.
    pub(super) async fn of_resource(db: &mut Connection, owner: &Value) -> Result<Self, PageError> {
        let linked = owner["relationships"]["tags"]["data"].as_array();
        let ids: Vec<&str> =
            linked.into_iter().flatten().filter_map(|tag| tag["id"].as_str()).collect();
        let tags = tag::with_ids(db, &ids).await?;
        let mut names: Vec<_> = tags.into_iter().map(|tag| tag.name).collect();
        names.sort();
        Ok(Self(names))
    }

    /// As the field has them.
    pub(super) fn text(&self) -> String {
        self.0.join(", ")
    }

    /// Why they can't be saved.
    pub(super) fn refusal(&self) -> Option<String> {
        if self.0.len() > MOST {
            return Some(format!(
                "tags: These are {} tags, and there may be {MOST}.",
                self.0.len()
            ));
        }
        let is_bad = |name: &&String| {
            name.chars().nth(MAX_NAME).is_some() || name.chars().any(char::is_control)
        };
        let bad = self.0.iter().find(is_bad)?;
        let start: String = bad.chars().filter(|c| !c.is_control()).take(20).collect();
        Some(format!("tags: A tag has at most {MAX_NAME} printable characters: {start}"))
    }

    /// Makes them the tags of what the API has at `path`.
    ///
    /// # Errors
    /// The server failed, or the API refuses what [`Tags::refusal`] does not know of.
    pub(super) async fn save(
        &self,
        app: &App,
        session: &Session,
        path: &str,
    ) -> Result<(), PageError> {
        let mut known = {
            let mut db = app.scheduler.store.read().await?;
            tag::names(&mut db).await?
        };
        let mut linked = Vec::new();
        for name in &self.0 {
            if !known.iter().any(|(_, known)| known == name) {
                let document = json!({ "data": { "attributes": { "name": name } } }).to_string();
                let made = call(app, session.actor(), Method::POST, "/tags", document).await?;
                let id = made["data"]["id"].as_str().unwrap_or_default();
                known.push((id.to_owned(), name.clone()));
            }
            let found = known.iter().filter(|(_, known)| known == name);
            linked.extend(found.map(|(id, _)| json!({ "type": "tags", "id": id })));
        }
        let path = format!("{path}/relationships/tags");
        let document = json!({ "data": linked }).to_string();
        call(app, session.actor(), Method::PATCH, &path, document).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn a_form_makes_removes_and_refuses_tags() {
        let server = InProcess::new().await;
        let browser = Browser::new(&server).await;
        let environments = server.api(Method::GET, "/environments", Value::Null).await;
        let environment = environments["data"][0]["id"].as_str().unwrap();
        for path in [
            format!("/workspaces/{}/settings", server.workspace),
            format!("/environments/{environment}"),
        ] {
            let save =
                async |tags: &str| browser.post(&path, &[("name", "one"), ("tags", tags)]).await;
            assert_eq!(save(" prod,network , prod,").await.0, StatusCode::SEE_OTHER);
            let shown = browser.page(&path).await;
            assert!(shown.contains("value=\"network, prod\""), "{shown}");
            let long = "x".repeat(MAX_NAME + 1);
            let many: Vec<_> = (0..=MOST).map(|number| number.to_string()).collect();
            for (bad, why) in [(long, "at most 255"), (many.join(","), "there may be 1000")] {
                let (status, page) = save(&bad).await;
                assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
                assert!(page.contains(why), "{page}");
                assert!(browser.page(&path).await.contains("value=\"network, prod\""));
            }
            assert_eq!(save("prod").await.0, StatusCode::SEE_OTHER);
            assert!(browser.page(&path).await.contains("value=\"prod\""));
        }
        let tags = server.api(Method::GET, "/tags", Value::Null).await;
        assert_eq!(tags["data"].as_array().unwrap().len(), 2, "{tags}");
    }
}
