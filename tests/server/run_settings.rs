//! What a run is started with: an apply gets what its plan had.

use std::collections::BTreeMap;

use protocol::{Finish, Hook, Outcome, RanImage, Task};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Server, Site, id, resource};

/// Changes a resource of the pool API.
async fn patch(server: &Server, path: &str, attributes: serde_json::Value) {
    let (status, document) = server.call(Method::PATCH, path, resource(attributes, &[])).await;
    assert_eq!(status, StatusCode::OK, "PATCH {path}: {document}");
}

async fn variable(server: &Server, site: &Site, key: &str, category: &str) -> String {
    let attributes = json!({ "key": key, "value": "planned", "category": category });
    id(&server.create("/vars", attributes, &[("workspace", &site.workspace)]).await)
}

fn variables(task: &Task) -> BTreeMap<&str, &str> {
    let variables = task.variables.iter();
    variables.map(|variable| (variable.key.as_str(), variable.value.expose())).collect()
}

#[tokio::test]
async fn an_apply_gets_what_its_plan_had_and_the_environment_of_now() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let workspace = format!("/workspaces/{}", site.workspace);
    let planned = json!({ "image": "run:1", "working-directory": "live/eu",
        "terraform-version": "1.9.8", "allow-other-terraform-version": true,
        "hooks": { "pre-apply": "planned" } });
    patch(&server, &workspace, planned).await;
    let size = variable(&server, &site, "size", "terraform").await;
    let key = variable(&server, &site, "AWS_ACCESS_KEY_ID", "shell").await;

    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    assert_eq!((plan.task.image.as_deref(), &plan.task.image_id), (Some("run:1"), &None));
    let changed = json!({ "image": "run:2", "working-directory": "live/us",
        "terraform-version": "1.10.0", "allow-other-terraform-version": false,
        "hooks": { "pre-apply": "changed", "post-apply": "new" } });
    patch(&server, &workspace, changed).await;
    for variable in [size, key] {
        patch(&server, &format!("/vars/{variable}"), json!({ "value": "changed" })).await;
    }
    variable(&server, &site, "new", "terraform").await;
    let image = RanImage {
        name: "run:1".to_owned(),
        id: format!("sha256:{}", "a".repeat(64)),
        digest: Some(format!("run@sha256:{}", "b".repeat(64))),
        content: Some("c".repeat(64)),
    };
    let finish =
        Finish { image: Some(image.clone()), ..plan.ended(Outcome::Finished, Some(true), "") };
    assert_eq!(plan.say_finish(&finish).await.0, StatusCode::OK);
    assert_eq!(server.action(&run, "apply").await, StatusCode::ACCEPTED);

    let apply = agent.take().await;
    assert_eq!((&apply.task.image, apply.task.image_id.as_ref()), (&image.digest, Some(&image.id)));
    assert_eq!(apply.task.image_content, image.content);
    assert_eq!(apply.task.working_directory, plan.task.working_directory);
    assert_eq!(apply.task.terraform_version.as_deref(), Some("1.9.8"));
    assert!(apply.task.allow_other_terraform_version);
    assert_eq!(apply.task.hooks, BTreeMap::from([(Hook::PreApply, "planned".to_owned())]));
    let expected = BTreeMap::from([("size", "planned"), ("AWS_ACCESS_KEY_ID", "changed")]);
    assert_eq!(variables(&apply.task), expected);

    // The next plan has what the workspace has now.
    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);
    server.run(&site).await;
    let next = agent.take().await;
    assert_eq!(next.task.image.as_deref(), Some("run:2"));
    assert_eq!(variables(&next.task)["size"], "changed");
}

#[tokio::test]
async fn an_image_that_no_registry_has_is_asked_for_by_its_id() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    let image = RanImage {
        name: "the-agents-own:1".to_owned(),
        id: format!("sha256:{}", "a".repeat(64)),
        digest: None,
        content: None,
    };
    let finish =
        Finish { image: Some(image.clone()), ..plan.ended(Outcome::Finished, Some(true), "") };
    assert_eq!(plan.say_finish(&finish).await.0, StatusCode::OK);
    assert_eq!(server.action(&run, "apply").await, StatusCode::ACCEPTED);
    let apply = agent.take().await;
    assert_eq!((apply.task.image, apply.task.image_id), (Some(image.name), Some(image.id)));
}
