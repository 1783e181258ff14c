//! Requests that schemathesis makes of the document of the APIs: whatever is sent, the server
//! answers what the document says, and takes nothing that it does not say.
//!
//! `SCALR_TEST_SCHEMATHESIS` is the program, which `scripts/test` installs. Checks that are off:
//!
//! | check | why |
//! |---|---|
//! | `positive_data_acceptance` | JSON Schema does not say that a name is taken, that a text is a cron expression or a URL, or that a workspace is locked |
//! | `ensure_resource_availability` | 404 also says that what a request relates the new resource to is not there |
//!
//! Calls that are left out: the log of a plan is held until there is more, and a revoked token
//! would end the test.

use std::env;
use std::fs;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{Server, state};

const PROGRAM: &str = "SCALR_TEST_SCHEMATHESIS";

/// What refuses a request that breaks the document: besides what schemathesis expects, 413 for one
/// with a text that is longer than a document may be.
const CHECKS: &str = r#"
[checks.negative_data_rejection]
expected-statuses = [
    "400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429", "5xx",
]
"#;

/// The checks that are off.
const OFF: [&str; 2] = ["positive_data_acceptance", "ensure_resource_availability"];

/// Operations that are left out, by their ids.
const LEFT_OUT: [&str; 2] = ["terraform-read-the-log-of-a-plan-or-an-apply", "revoke-a-token"];

#[tokio::test]
async fn the_server_keeps_what_its_document_says() {
    run(8).await;
}

mod full {
    #[tokio::test]
    async fn the_server_keeps_what_its_document_says_for_longer() {
        super::run(50).await;
    }
}

/// Makes up to `examples` requests of each call in each of schemathesis' phases.
async fn run(examples: u32) {
    let program = env::var_os(PROGRAM).unwrap_or_else(|| panic!("{PROGRAM} is not set"));
    let server = Server::start_bare(&["--insecure-http"], None).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("schemathesis.toml");
    fs::write(&settings, ids(&server).await).unwrap();
    let mut command = Command::new(program);
    command.arg("--config-file").arg(&settings).arg("run");
    command.arg(format!("{}/api/openapi.json", server.url));
    command.args(["--header", &format!("Authorization: Bearer {}", server.admin)]);
    command.args(["--max-examples", &examples.to_string(), "--seed", "1", "--no-color"]);
    command.args(["--exclude-checks", &OFF.join(","), "--continue-on-failure"]);
    command.args(["--suppress-health-check", "all", "--warnings", "off"]);
    for id in LEFT_OUT {
        command.args(["--exclude-operation-id", id]);
    }
    let output = command.current_dir(folder.path()).kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    let log = server.log();
    let faults = log.lines().filter(|line| line.contains("ERROR") || line.contains("panicked"));
    let faults = faults.collect::<Vec<_>>().join("\n");
    assert!(output.status.success(), "{text}\n{errors}\n{faults}");
    assert_tested(&server, &text).await;
}

/// Every call was tested but those that are left out, and that of the document itself, which
/// schemathesis makes at first.
async fn assert_tested(server: &Server, text: &str) {
    let answer = server.http.get(format!("{}/api/openapi.json", server.url)).send().await.unwrap();
    let document: Value = answer.json().await.unwrap();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().keys());
    let count = operations.filter(|name| *name != "parameters").count() - LEFT_OUT.len() - 1;
    assert!(text.contains(&format!("Tested: {count}\n")), "{count}: {text}");
}

/// Makes one resource of each type, and the settings by which the calls are made of these.
async fn ids(server: &Server) -> String {
    let site = server.pool_and_workspace().await;
    let id = |resource: &Value| resource["id"].as_str().unwrap().to_owned();
    let of_workspace = [("workspace", site.workspace.as_str())];
    let related = [("environment", site.environment.as_str()), ("agent-pool", site.pool.as_str())];
    let other = server.create("/workspaces", json!({ "name": "other" }), &related).await;
    let outputs = json!({ "a": { "value": "x", "type": "string" } });
    let state = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, state(1, outputs));
    let state = server.create("/state-versions", json!({ "state": state }), &of_workspace).await;
    let agent = server.agent(&site, "agent").await;
    let run = server.run(&site).await;
    agent.take().await;
    let variable = json!({ "key": "a", "value": "b", "category": "terraform" });
    let variable = server.create("/vars", variable, &of_workspace).await;
    let tag = server.create("/tags", json!({ "name": "blue" }), &[]).await;
    let triggers =
        [("upstream", site.workspace.as_str()), ("downstream", other["id"].as_str().unwrap())];
    let trigger = server.create("/run-triggers", json!({}), &triggers).await;
    let webhook = json!({ "data": {
        "attributes": { "name": "hook", "url": "https://localhost:1/" },
        "relationships": { "events": { "data": [{ "id": "run:completed" }] } },
    } });
    let (status, webhook) = server.call(Method::POST, "/webhook-integrations", webhook).await;
    assert_eq!(status, StatusCode::CREATED, "{webhook}");
    let hook = json!({ "name": "policy", "interpreter": "sh", "script": "exit 0" });
    let hook = id(&server.create("/hooks", hook, &[]).await);
    let linked = [("hook", hook.as_str()), ("environment", site.environment.as_str())];
    let events = json!({ "events": ["post-plan"] });
    let link = server.create("/hook-environment-links", events, &linked).await;
    let rule = json!({ "schedule": "0 0 1 1 *", "schedule-mode": "apply" });
    let rule = server.create("/run-schedule-rules", rule, &of_workspace).await;
    let first = async |list: &str| id(&server.get(list).await["data"][0]);
    let phase = |name: &str| id(&run["relationships"][name]["data"]);
    let ids = [
        ("accounts", first("/accounts").await),
        ("agent-pools", site.pool.clone()),
        ("agents", first("/agents").await),
        ("applies", phase("apply")),
        ("access-tokens", site.token_id.clone()),
        ("configuration-versions", first("/configuration-versions").await),
        ("environments", site.environment.clone()),
        ("hook-environment-links", id(&link)),
        ("hooks", hook),
        ("plans", phase("plan")),
        ("projects", format!("prj-{}", site.environment)),
        ("run-schedule-rules", id(&rule)),
        ("run-triggers", id(&trigger)),
        ("runs", id(&run)),
        ("state-versions", id(&state)),
        ("tags", id(&tag)),
        ("vars", id(&variable)),
        ("webhook-integrations", id(&webhook["data"])),
        ("workspaces", site.workspace.clone()),
    ];
    // A workspace that no call renames.
    let organization = "\"path.organization\" = \"default\", \"path.name\" = \"other\"";
    let organization = Calls {
        path: "/organizations/\\{organization\\}".to_owned(),
        but: r#"["DELETE", "PATCH"]"#,
        parameters: organization.to_owned(),
    };
    let of_types = ids.map(|(name, id)| Calls {
        path: format!("/{name}/\\{{id\\}}"),
        but: r#""DELETE""#,
        parameters: format!("\"path.id\" = \"{id}\""),
    });
    let settings: String =
        of_types.into_iter().chain([organization]).map(Calls::settings).collect();
    format!("{CHECKS}{settings}")
}

/// The calls whose paths match a pattern, but those with some methods, and their parameters.
struct Calls {
    path: String,
    but: &'static str,
    parameters: String,
}

impl Calls {
    /// As schemathesis reads them. What is made for the test is not deleted by it.
    fn settings(self) -> String {
        let Self { path, but, parameters } = self;
        format!(
            "[[operations]]\ninclude-path-regex = '{path}'\nexclude-method = {but}\n\
             exclude-path-regex = 'safe-delete'\nparameters = {{ {parameters} }}\n"
        )
    }
}
