//! Addresses with two ids: the second has to belong to the first, else there is no such page.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::browser::Browser;
use crate::in_process::{InProcess, register};
use crate::store::webhook_delivery as delivery;

#[tokio::test]
async fn a_thing_of_another_owner_is_not_found_and_stays_as_it_is() {
    let server = InProcess::new().await;
    let browser = Browser::new(&server).await;
    let first = async |path: &str| {
        let listed = server.api(Method::GET, path, Value::Null).await;
        listed["data"][0].clone()
    };
    let id = |resource: &Value| resource["id"].as_str().unwrap().to_owned();
    let environment = first("/environments").await;
    let environment_name = environment["attributes"]["name"].as_str().unwrap().to_owned();
    let environment = id(&environment);
    let account = id(&first("/accounts").await);
    let pool = id(&first("/agent-pools").await);
    let workspace = server.workspace.clone();
    server.tell("register", &server.pool_token, &register()).await;
    let token = id(&first(&format!("/agent-pools/{pool}/access-tokens")).await);
    let other_pool = server.create("/agent-pools", json!({ "name": "other" }), &[]).await;
    let (other_workspace, run) = server.run().await;
    let other_environment = server.create("/environments", json!({ "name": "other" }), &[]).await;

    let variable = async |owner: (&str, &str)| {
        let attributes = json!({ "key": "k", "value": "old", "category": "terraform" });
        server.create("/vars", attributes, &[owner]).await
    };
    let of_workspace = variable(("workspace", &workspace)).await;
    let of_environment = variable(("environment", &environment)).await;
    let of_account = variable(("account", &account)).await;
    let state = r#"{"version":4,"serial":1,"lineage":"l","outputs":{},"resources":[]}"#;
    let state = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, state);
    let related = [("workspace", workspace.as_str())];
    let state = server.create("/state-versions", json!({ "state": state }), &related).await;
    let hook = async |name: &str| {
        let hook = json!({ "name": name, "interpreter": "sh", "script": "true" });
        server.create("/hooks", hook, &[]).await
    };
    let (hook, other_hook) = (hook("one").await, hook("other").await);
    let related = [("hook", hook.as_str()), ("environment", environment.as_str())];
    let events = json!({ "events": ["pre-plan"] });
    let link = server.create("/hook-environment-links", events, &related).await;
    let webhook = async |name: &str| {
        let document = json!({ "data": {
            "attributes": { "name": name, "url": "https://example.com/", "is-shared": true },
            "relationships": { "events": { "data": [
                { "type": "event-definitions", "id": "run:errored" },
            ] } },
        } });
        id(&server.api(Method::POST, "/webhook-integrations", document).await["data"])
    };
    let webhook_id = webhook("one").await;
    let (_, failed) = server.run().await;
    server.api(Method::POST, &format!("/runs/{failed}/actions/cancel"), json!({})).await;
    let other_webhook = webhook("other").await;
    let call = {
        let mut db = server.app.scheduler.store.read().await.unwrap();
        delivery::newest(&mut db, &[&webhook_id]).await.unwrap().remove(0).id
    };

    let variables = |owner: &str, variable: &str| format!("{owner}/variables/{variable}");
    let environments = format!("/environments/{environment}");
    let workspaces = format!("/workspaces/{workspace}");
    let mut changes = Vec::new();
    for address in [
        variables("/account", &of_workspace),
        variables("/account", &of_environment),
        variables(&environments, &of_workspace),
        variables(&environments, &of_account),
        variables(&format!("/environments/{other_environment}"), &of_environment),
        variables(&workspaces, &of_environment),
        variables(&workspaces, &of_account),
        variables(&format!("/workspaces/{other_workspace}"), &of_workspace),
    ] {
        changes.push(address.clone());
        changes.push(format!("{address}/delete"));
    }
    let rollback = format!("/workspaces/{other_workspace}/states/{state}/rollback");
    let revocation = format!("/pools/{other_pool}/tokens/{token}/revoke");
    let other_link = format!("/hooks/{other_hook}/links/{link}");
    changes.extend([
        rollback.clone(),
        revocation.clone(),
        other_link.clone(),
        format!("{other_link}/delete"),
        format!("/pools/{other_pool}/workspaces/{workspace}/unlink"),
        format!("/webhooks/{other_webhook}/deliveries/{call}/redeliver"),
    ]);
    let pages = [
        variables("/account", &of_workspace) + "/delete",
        rollback,
        revocation,
        other_link,
        format!("/workspaces/{other_workspace}/states/{state}/download"),
        format!("/workspaces/{other_workspace}/states?before={state}&after={state}"),
        format!("/pools/{other_pool}/registrations/{token}"),
        format!("/pools/{other_pool}/tokens/new?replaces={token}"),
        format!("/app/{environment_name}/main/runs/{run}"),
        format!("/app/other/{other_workspace}/runs/{run}"),
    ];
    let read = async || {
        let mut all = Vec::new();
        for path in [
            format!("/vars/{of_workspace}"),
            format!("/vars/{of_environment}"),
            format!("/vars/{of_account}"),
            format!("/hook-environment-links/{link}"),
            format!("/access-tokens/{token}"),
            format!("/workspaces/{workspace}"),
            "/webhook-deliveries".to_owned(),
            "/state-versions".to_owned(),
        ] {
            all.push(server.api(Method::GET, &path, Value::Null).await);
        }
        all
    };
    let before = read().await;
    for path in pages {
        let (status, page) = browser.get(&path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {page}");
    }
    for path in changes {
        let fields = [("key", "stolen"), ("value", "new"), ("event", "post-plan")];
        let (status, page) = browser.post(&path, &fields).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {page}");
    }
    assert_eq!(read().await, before);
}
