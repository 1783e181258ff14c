//! What runs read of other workspaces: `terraform_remote_state` with the `remote` backend.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use protocol::Outcome;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::cli::{Cli, server};
use super::{agent, remote};
use crate::harness::{Server, id, state};

/// A workspace with a state; its id, and the state's.
async fn with_state(server: &Server, environment: &str, name: &str) -> (String, String) {
    let links = [("environment", environment)];
    let workspace = id(&server.create("/workspaces", json!({ "name": name }), &links).await);
    let version = upload(server, &workspace, 1).await;
    (workspace, version)
}

async fn upload(server: &Server, workspace: &str, serial: u32) -> String {
    let outputs =
        json!({ "cidr": { "value": "10.1.0.0/16", "type": "string", "sensitive": true } });
    let content = json!({ "state": STANDARD.encode(state(serial, outputs)) });
    id(&server.create("/state-versions", content, &[("workspace", workspace)]).await)
}

/// A configuration with an output of another workspace.
fn reading(cli: &Cli, organization: &str, workspaces: &str, selected: &str) -> String {
    format!(
        "data \"terraform_remote_state\" \"other\" {{\n  backend = \"remote\"\n  {selected}\n  \
         config = {{\n    hostname = \"{}\"\n    organization = \"{organization}\"\n    \
         workspaces = {{\n      {workspaces}\n    }}\n  }}\n}}\n\noutput \"cidr\" {{\n  value = \
         nonsensitive(data.terraform_remote_state.other.outputs.cidr)\n}}\n",
        cli.host
    )
}

#[tokio::test]
async fn a_run_reads_the_outputs_of_a_workspace_of_its_environment_and_no_other() {
    let server = server().await;
    let site = remote::site(&server).await;
    with_state(&server, &site.environment, "network-eu").await;
    let apart = id(&server.create("/environments", json!({ "name": "apart" }), &[]).await);
    with_state(&server, &apart, "vault").await;
    let _agent = agent::start(&server, &site, "one").await;
    let cli = Cli::new(&server);
    cli.cloud("name = \"app\"");
    cli.write("main.tf", &reading(&cli, "default", "name = \"network-eu\"", ""));
    cli.ok(&["init", "-input=false"]).await;
    let applied = cli.ok(&["apply", "-auto-approve"]).await;
    assert!(applied.contains("cidr = \"10.1.0.0/16\""), "{applied}");
    assert_eq!(cli.ok(&["output", "-raw", "cidr"]).await.trim(), "10.1.0.0/16");

    let selected = "workspace = \"eu\"";
    cli.write("main.tf", &reading(&cli, &site.environment, "prefix = \"network-\"", selected));
    let planned = cli.ok(&["plan"]).await;
    assert!(planned.contains("No changes"), "by the environment's id and a prefix: {planned}");

    cli.write("main.tf", &reading(&cli, "apart", "name = \"vault\"", ""));
    let failed = cli.fails(&["plan"]).await;
    assert!(failed.contains("organization \"apart\"") && failed.contains("not found"), "{failed}");
    cli.write("main.tf", &reading(&cli, "default", "name = \"vault\"", ""));
    let failed = cli.fails(&["plan"]).await;
    assert!(failed.contains("vault"), "{failed}");
    let found = server.get("/workspaces?filter[name]=vault").await;
    assert_eq!(found["meta"]["pagination"]["total-count"], 1, "the run has made none: {found}");
}

#[tokio::test]
async fn a_runs_token_reads_current_states_while_the_run_lasts_and_nothing_else() {
    let server = server().await;
    let site = server.pool_and_workspace().await;
    let (network, old) = with_state(&server, &site.environment, "network").await;
    let apart = id(&server.create("/environments", json!({ "name": "apart" }), &[]).await);
    let (vault, secret) = with_state(&server, &apart, "vault").await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    let current = upload(&server, &network, 2).await;
    let call = async |method: Method, path: &str| {
        let url = format!("{}/api/v2{path}", server.url);
        let answer = server.http.request(method, url).bearer_auth(&plan.run_token).send().await;
        let answer = answer.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap_or_default())
    };
    let (_, listed) = call(Method::GET, &format!("/state-versions/{current}/outputs")).await;
    let output = id(&listed["data"][0]);
    let readable = [
        "/organizations/default/entitlement-set".to_owned(),
        "/organizations/default/workspaces/network".to_owned(),
        format!("/organizations/{}/workspaces/network", site.environment),
        format!("/workspaces/{network}"),
        format!("/workspaces/{network}/current-state-version"),
        format!("/workspaces/{network}/current-state-version-outputs"),
        format!("/state-versions/{current}"),
        format!("/state-versions/{current}/download"),
        format!("/state-versions/{current}/outputs"),
        format!("/state-version-outputs/{output}"),
    ];
    for path in &readable {
        assert_eq!(call(Method::GET, path).await.0, StatusCode::OK, "{path}");
    }
    for path in [
        "/organizations/apart/entitlement-set".to_owned(),
        "/organizations/apart/workspaces/vault".to_owned(),
        "/organizations/default/workspaces/vault".to_owned(),
        format!("/workspaces/{vault}"),
        format!("/workspaces/{vault}/current-state-version"),
        format!("/state-versions/{secret}/download"),
        format!("/state-versions/{old}/download"),
        format!("/state-version-outputs/{}", output.replace(&current, &secret)),
    ] {
        assert_eq!(call(Method::GET, &path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    for (method, path) in [
        (Method::GET, "/organizations".to_owned()),
        (Method::GET, "/organizations/default/workspaces".to_owned()),
        (Method::GET, format!("/runs/{run}")),
        (Method::GET, format!("/workspaces/{network}/runs")),
        (Method::GET, "/account/details".to_owned()),
        (Method::POST, "/organizations/default/workspaces".to_owned()),
        (Method::PATCH, format!("/workspaces/{network}")),
        (Method::DELETE, format!("/workspaces/{network}")),
        (Method::POST, format!("/workspaces/{network}/actions/lock")),
        (Method::POST, format!("/workspaces/{network}/state-versions")),
        (Method::POST, format!("/runs/{run}/actions/apply")),
    ] {
        let (status, refused) = call(method.clone(), &path).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {refused}");
    }
    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
    for path in &readable {
        assert_eq!(call(Method::GET, path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}
