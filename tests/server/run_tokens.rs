//! The token of a run: what its run may read, while it goes on, and nothing else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Outcome;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, Site, error, id, related, resource, state};

/// Reads with a run's token.
async fn read(server: &Server, token: &str, path: &str) -> (StatusCode, Value) {
    server.call_with(token, Method::GET, path, Value::Null).await
}

/// A workspace with a state that has the output `name`; their ids.
async fn workspace_with_state(server: &Server, environment: &str, name: &str) -> (String, String) {
    let links = [("environment", environment)];
    let workspace = id(&server.create("/workspaces", json!({ "name": name }), &links).await);
    (workspace.clone(), upload_state(server, &workspace, 1, name).await)
}

async fn upload_state(server: &Server, workspace: &str, serial: u32, name: &str) -> String {
    let outputs = json!({ name: { "value": format!("of {name}"), "type": "string" } });
    let content = json!({ "state": STANDARD.encode(state(serial, outputs)) });
    id(&server.create("/state-versions", content, &[("workspace", workspace)]).await)
}

#[tokio::test]
async fn a_run_reads_its_own_and_its_environments_workspaces() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let (network, network_state) =
        workspace_with_state(&server, &site.environment, "network").await;
    let agent = server.agent(&site, "one").await;
    let run = server.run(&site).await;
    let plan = agent.claim().await;
    let token = plan.run_token.as_str();

    let configuration = related(&run, "configuration-version");
    for path in [
        format!("/runs/{}", id(&run)),
        format!("/configuration-versions/{configuration}"),
        format!("/environments/{}", site.environment),
        format!("/workspaces/{}", site.workspace),
        format!("/workspaces/{}/outputs", site.workspace),
        format!("/workspaces/{network}"),
        format!("/workspaces/{network}/current-state-version"),
        format!("/state-versions/{network_state}"),
    ] {
        let (status, mut document) = read(&server, token, &path).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {document}");
        let mut of_admin = server.get(&path).await;
        for document in [&mut document, &mut of_admin] {
            if let Some(own) = document.pointer_mut("/data/attributes/permissions") {
                own.take();
            }
        }
        assert_eq!(document, of_admin, "GET {path}: what an admin reads");
    }
    let (_, outputs) = read(&server, token, &format!("/workspaces/{network}/outputs")).await;
    assert_eq!(outputs["data"][0]["value"], "of network");
    let (_, content) =
        read(&server, token, &format!("/state-versions/{network_state}/download")).await;
    assert_eq!(content["outputs"]["network"]["value"], "of network");
    let named =
        format!("/workspaces?filter[environment]={}&filter[name]=network", site.environment);
    let (_, found) = read(&server, token, &named).await;
    assert_eq!(id(&found["data"][0]), network);

    // A state that is not the current one any more may hold what was changed since.
    let newer = upload_state(&server, &network, 2, "network").await;
    for (version, status) in [(&network_state, StatusCode::NOT_FOUND), (&newer, StatusCode::OK)] {
        let path = format!("/state-versions/{version}/download");
        assert_eq!(read(&server, token, &path).await.0, status, "{path}");
    }
}

#[tokio::test]
async fn a_run_does_not_find_what_is_others() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let apart = id(&server.create("/environments", json!({ "name": "apart" }), &[]).await);
    let (vault, vault_state) = workspace_with_state(&server, &apart, "vault").await;
    let (network, _) = workspace_with_state(&server, &site.environment, "network").await;
    server.upload_configuration(&network).await;
    let network_site = Site { workspace: network.clone(), ..site.clone() };
    let agent = server.agent(&site, "one").await;
    server.run(&site).await;
    let plan = agent.claim().await;
    let pool = [("agent-pool", site.pool.as_str())];
    let body = resource(json!({}), &pool);
    let (status, _) = server.call(Method::PATCH, &format!("/workspaces/{network}"), body).await;
    assert_eq!(status, StatusCode::OK);
    let other_run = server.run(&network_site).await;
    let other_configuration = related(&other_run, "configuration-version");

    for (kind, path) in [
        ("Run", format!("/runs/{}", id(&other_run))),
        ("Run", "/runs/run-1".to_owned()),
        ("ConfigurationVersion", format!("/configuration-versions/{other_configuration}")),
        ("Environment", format!("/environments/{apart}")),
        ("Workspace", format!("/workspaces/{vault}")),
        ("Workspace", format!("/workspaces/{vault}/outputs")),
        ("Workspace", format!("/workspaces/{vault}/current-state-version")),
        ("StateVersion", format!("/state-versions/{vault_state}")),
        ("StateVersion", format!("/state-versions/{vault_state}/download")),
    ] {
        let (status, document) = read(&server, &plan.run_token, &path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "GET {path}: {document}");
        let wanted = path.split('/').nth(2).unwrap();
        let title = format!("{kind} with ID '{wanted}' not found or user unauthorized.");
        assert_eq!(error(&document).0, title, "{path}");
    }
}

#[tokio::test]
async fn a_run_writes_nothing_and_reaches_no_other_call() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let apart = id(&server.create("/environments", json!({ "name": "apart" }), &[]).await);
    let workspace = [("workspace", site.workspace.as_str())];
    let variable =
        json!({ "key": "TOKEN", "value": "s3cret", "category": "env", "sensitive": false });
    let variable = id(&server.create("/vars", variable, &workspace).await);
    let agent = server.agent(&site, "one").await;
    let run = server.run(&site).await;
    let plan = agent.claim().await;

    let account = id(&server.get("/accounts").await["data"][0]);
    let found = server.get(&format!("/agents?filter[agent-pool]={}", site.pool)).await;
    let agent_id = id(&found["data"][0]);
    for path in [
        "/accounts".to_owned(),
        format!("/accounts/{account}"),
        "/agent-pools".to_owned(),
        format!("/agent-pools/{}", site.pool),
        format!("/agent-pools/{}/access-tokens", site.pool),
        format!("/access-tokens/{}", site.token_id),
        "/agents".to_owned(),
        format!("/agents/{agent_id}"),
        "/configuration-versions".to_owned(),
        "/environments".to_owned(),
        format!("/plans/{}", related(&run, "plan")),
        format!("/plans/{}/output", related(&run, "plan")),
        format!("/applies/{}", related(&run, "apply")),
        "/runs".to_owned(),
        format!("/runs?filter[run]={}", id(&run)),
        "/state-versions".to_owned(),
        format!("/state-versions?filter[workspace]={}", site.workspace),
        "/vars".to_owned(),
        format!("/vars?filter[workspace]={}", site.workspace),
        format!("/vars/{variable}"),
        "/workspaces".to_owned(),
        format!("/workspaces?filter[environment]={apart}"),
        format!("/workspaces/{}?include=agent-pool", site.workspace),
        format!("/workspaces/{}?include=environment.account", site.workspace),
        "/nonsense".to_owned(),
    ] {
        let (status, document) = read(&server, &plan.run_token, &path).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "GET {path}: {document}");
        assert_eq!(error(&document).0, "Forbidden", "GET {path}: {document}");
    }

    let twice =
        format!("/workspaces?filter[environment]={}&filter[environment]={apart}", site.environment);
    let (status, document) = read(&server, &plan.run_token, &twice).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{document}");
    let own = format!("/workspaces/{}?include=environment,created-by", site.workspace);
    let (status, document) = read(&server, &plan.run_token, &own).await;
    assert_eq!(status, StatusCode::OK, "{document}");
    assert_eq!(id(&document["included"][0]), site.environment, "{document}");
    let permissions = &document["data"]["attributes"]["permissions"];
    assert_eq!(permissions["can-read-settings"], true, "{document}");
    assert_eq!(permissions["can-queue-run"], false, "{document}");

    let (run, ws) = (id(&run), &site.workspace);
    let named = resource(json!({ "name": "x" }), &[("environment", &site.environment)]);
    for (method, path, body) in [
        (Method::POST, format!("/runs/{run}/actions/apply"), Value::Null),
        (Method::POST, format!("/runs/{run}/actions/cancel"), Value::Null),
        (Method::POST, "/runs".to_owned(), resource(json!({}), &workspace)),
        (Method::POST, "/workspaces".to_owned(), named.clone()),
        (Method::PATCH, format!("/workspaces/{ws}"), resource(json!({ "image": "x" }), &[])),
        (Method::DELETE, format!("/workspaces/{ws}"), Value::Null),
        (Method::POST, "/state-versions".to_owned(), resource(json!({}), &workspace)),
        (Method::POST, "/configuration-versions".to_owned(), resource(json!({}), &workspace)),
        (Method::POST, "/vars".to_owned(), resource(json!({}), &workspace)),
        (Method::PATCH, format!("/environments/{}", site.environment), named),
        (Method::POST, format!("/agent-pools/{}/access-tokens", site.pool), Value::Null),
        (Method::OPTIONS, format!("/workspaces/{ws}"), Value::Null),
    ] {
        let (status, document) =
            server.call_with(&plan.run_token, method.clone(), &path, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {document}");
        assert_eq!(error(&document).1, "A run's token is good for reading only.", "{path}");
    }
    assert_eq!(server.run_status(&run).await, "plan_queued", "nothing was done");
}

#[tokio::test]
async fn it_lasts_as_long_as_its_attempt_and_no_longer() {
    let mut server = Server::start_with(&["--lease", "4"]).await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = server.run(&site).await;
    let path = format!("/runs/{}", id(&run));
    let status = async |server: &Server, token: &str| read(server, token, &path).await.0;

    let lost = agent.take().await;
    assert_eq!(status(&server, &lost.run_token).await, StatusCode::OK);
    let forged = format!("{}0", lost.run_token);
    assert_eq!(status(&server, &forged).await, StatusCode::UNAUTHORIZED);
    let as_agents = lost.run_token.trim_start_matches("run.");
    assert_eq!(status(&server, as_agents).await, StatusCode::UNAUTHORIZED);
    let agents_as_runs = format!("run.{}", lost.agent.token);
    assert_eq!(status(&server, &agents_as_runs).await, StatusCode::UNAUTHORIZED);

    // The lease ends, and with it the attempt.
    server.wait_for(&format!("/plans/{}", related(&run, "plan")), "status", "queued").await;
    assert_eq!(status(&server, &lost.run_token).await, StatusCode::UNAUTHORIZED);
    let plan = agent.take().await;
    assert_eq!(plan.task.attempt, 2);
    assert_eq!(status(&server, &plan.run_token).await, StatusCode::OK);
    assert_eq!(status(&server, &lost.run_token).await, StatusCode::UNAUTHORIZED);

    // It is kept, as a hash only.
    server.crash_and_restart().await;
    assert_eq!(status(&server, &plan.run_token).await, StatusCode::OK);
    let secret = plan.run_token.rsplit('.').next().unwrap();
    for file in std::fs::read_dir(&server.data).unwrap().map(|file| file.unwrap().path()) {
        if file.is_file() {
            let content = std::fs::read(&file).unwrap();
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "it is in {}", file.display());
        }
    }

    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
    assert_eq!(status(&server, &plan.run_token).await, StatusCode::UNAUTHORIZED);
    assert_eq!(server.action(&id(&run), "apply").await, StatusCode::ACCEPTED);
    let apply = agent.take().await;
    assert_eq!(status(&server, &plan.run_token).await, StatusCode::UNAUTHORIZED);

    // An apply may go on where nobody hears of it, and reads what it needs.
    server.wait_for(&format!("/applies/{}", related(&run, "apply")), "status", "unreachable").await;
    assert_eq!(status(&server, &apply.run_token).await, StatusCode::OK);
    assert_eq!(server.action(&id(&run), "cancel").await, StatusCode::ACCEPTED);
    assert_eq!(status(&server, &apply.run_token).await, StatusCode::UNAUTHORIZED);
}
