//! What a run is started with: an apply gets what its plan had.

use std::collections::BTreeMap;

use protocol::{Finish, Hook, Kind, Outcome, RanImage, Task};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, Site, error, id, resource};

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

#[tokio::test]
async fn an_apply_goes_to_the_pool_of_its_plan_with_its_image_whatever_is_changed_meanwhile() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let other = server.pool_and_workspace_named("other", "elsewhere").await;
    let agent = server.agent(&site, "one").await;
    let (pool, workspace) =
        (format!("/agent-pools/{}", site.pool), format!("/workspaces/{}", site.workspace));
    let link =
        |pool: Value| json!({ "data": { "relationships": { "agent-pool": { "data": pool } } } });
    let linked = |pool: &str| link(json!({ "type": "agent-pools", "id": pool }));
    let elsewhere = json!({ "name": "elsewhere" });
    let elsewhere = id(&server.create("/environments", elsewhere, &[]).await);
    let restricted = json!({ "data": {
        "attributes": { "is-shared": false },
        "relationships": {
            "environments": { "data": [{ "type": "environments", "id": elsewhere }] } },
    } });
    let changes = [
        ("another image", vec![(&pool, resource(json!({ "image": "pool:2" }), &[]))]),
        ("another pool", vec![(&workspace, linked(&other.pool))]),
        ("no pool", vec![(&workspace, link(Value::Null))]),
        ("other environments", vec![(&workspace, link(Value::Null)), (&pool, restricted)]),
    ];
    for (what, changes) in changes {
        let before = resource(json!({ "image": "pool:1", "is-shared": true }), &[]);
        assert_eq!(server.call(Method::PATCH, &pool, before).await.0, StatusCode::OK);
        let before = linked(&site.pool);
        assert_eq!(server.call(Method::PATCH, &workspace, before).await.0, StatusCode::OK);
        let run = id(&server.run(&site).await);
        let plan = agent.take().await;
        assert_eq!(plan.task.image.as_deref(), Some("pool:1"), "{what}");
        assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
        for (path, change) in changes {
            let (status, document) = server.call(Method::PATCH, path, change).await;
            assert_eq!(status, StatusCode::OK, "{what}: {document}");
        }
        assert_eq!(server.action(&run, "apply").await, StatusCode::ACCEPTED, "{what}");
        let apply = agent.take().await;
        assert_eq!((&apply.task.run_id, apply.task.kind), (&run, Kind::Apply), "{what}");
        assert_eq!(apply.task.image.as_deref(), Some("pool:1"), "{what}");
        assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK, "{what}");
    }
}

#[tokio::test]
async fn a_pool_is_not_deleted_while_a_plan_of_it_waits_for_approval() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    let link = json!({ "data": { "relationships": { "agent-pool": { "data": null } } } });
    let workspace = format!("/workspaces/{}", site.workspace);
    assert_eq!(server.call(Method::PATCH, &workspace, link).await.0, StatusCode::OK);
    let pool = format!("/agent-pools/{}", site.pool);
    let refused = async |when: &str| {
        let (status, document) = server.call(Method::DELETE, &pool, Value::Null).await;
        assert_eq!(status, StatusCode::CONFLICT, "{when}");
        assert!(error(&document).1.contains(&run), "{when}: {document}");
    };
    refused("queued").await;
    let plan = agent.take().await;
    refused("planning").await;
    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
    refused("planned").await;
    assert_eq!(server.action(&run, "discard").await, StatusCode::ACCEPTED);
    let (status, document) = server.call(Method::DELETE, &pool, Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{document}");
}
