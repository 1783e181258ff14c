//! The tags of a workspace or of an environment, as a form has them: names, with commas between
//! them. A name that no tag has yet becomes a new one.

use serde_json::Value;

use super::error::PageError;
use super::form::Fields;
use crate::store::{Connection, tag};

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

    /// As the API saves them with what has them.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};

    use super::*;
    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;
    use protocol::limits::MAX_NAME;

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
            // The first one would be new, and is not left.
            let long = format!("a-first,{}", "x".repeat(MAX_NAME + 1));
            let many: Vec<_> = (0..=1_000).map(|number| number.to_string()).collect();
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
