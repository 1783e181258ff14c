//! States: which are taken, how large they may be, and what locks their workspace.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use protocol::{Code, Outcome, Problem};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{
    Agent, Job, PATIENCE_WITH_LARGE_FILES, Server, Site, error, id, resource, state,
};

const MIB: usize = 1024 * 1024;

/// The largest object that the server takes, in bytes; also of states, where a test says so.
const LIMIT: usize = 100 * MIB;

/// The most memory that the server may need for a state of any size, in bytes.
const MOST_MEMORY: u64 = 128 * MIB as u64;

#[tokio::test]
async fn a_repeated_upload_is_the_same_version_and_force_rolls_back() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let upload = async |serial: u32, more: Value| {
        let mut attributes = json!({ "state": BASE64_STANDARD.encode(state(serial, json!({}))) });
        attributes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = resource(attributes, &[("workspace", &site.workspace)]);
        server.call(Method::POST, "/state-versions", body).await
    };
    let (_, first) = upload(7, json!({ "serial": 7, "lineage": "l-1" })).await;
    let (status, again) = upload(7, json!({ "force": false })).await;
    assert_eq!((status, again), (StatusCode::CREATED, first));
    let (status, document) = upload(6, json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(error(&document).1.contains("serial is 6, but the workspace's is 7"), "{document}");
    for _ in 0..2 {
        let (status, document) = upload(6, json!({ "force": true })).await;
        assert_eq!(status, StatusCode::CREATED, "{document}");
        assert_eq!(document["data"]["attributes"]["serial"], 6);
    }
    let versions = server.get("/state-versions").await;
    assert_eq!(versions["meta"]["pagination"]["total-count"], 2);

    for (name, value) in [
        ("md5", json!("0".repeat(32))),
        ("serial", json!(9)),
        ("lineage", json!("other")),
        ("force", json!("yes")),
    ] {
        let (status, document) = upload(8, json!({ name: value })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {document}");
        assert_eq!(error(&document).2, format!("/data/attributes/{name}"));
    }
    assert_eq!(server.get("/state-versions").await, versions, "nothing was kept");
}

#[tokio::test]
async fn what_is_no_state_is_refused_and_pointed_at() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let old = json!({ "version": 3, "serial": 1, "lineage": "l-1" }).to_string();
    for (attributes, why) in [
        (json!({}), "required"),
        (json!({ "state": null }), "required"),
        (json!({ "state": 1 }), "one state in base64"),
        (json!({ "state": "no base64!" }), "in base64"),
        (json!({ "state": BASE64_STANDARD.encode("{") }), "not a Terraform state"),
        (json!({ "state": BASE64_STANDARD.encode(old) }), "format 3"),
    ] {
        let body = resource(attributes.clone(), &[("workspace", &site.workspace)]);
        let (status, document) = server.call(Method::POST, "/state-versions", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{attributes}: {document}");
        assert_eq!(error(&document).2, "/data/attributes/state", "{attributes}");
        assert!(error(&document).1.contains(why), "{attributes}: {document}");
    }
    for body in ["", "[]", "{", r#"{"data": {"attributes": {"state": "ey"#, r#"{"data": {}} 1"#] {
        let url = format!("{}/api/iacp/v3/state-versions", server.url);
        let request = server.http.post(url).bearer_auth(&server.admin).body(body);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_REQUEST, "{body}");
    }
    assert_eq!(server.get("/state-versions").await["data"], json!([]));
}

#[tokio::test]
async fn a_refusal_says_whether_the_attempt_is_over() {
    let server = Server::start_with(&["--max-state", "100"]).await;
    let site = server.pool_and_workspace().await;
    let (agent, apply) = applying(&server, &site).await;
    assert_eq!(apply.put("state", &state(5, json!({}))).await.0, StatusCode::NO_CONTENT);
    for (content, status) in [
        (state(4, json!({})), StatusCode::CONFLICT),
        (state(6, json!({})).replace("l-1", "l-2"), StatusCode::CONFLICT),
        ("{".to_owned(), StatusCode::UNPROCESSABLE_ENTITY),
        (
            state(6, json!({})).replace("\"version\":4", "\"version\":3"),
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
    ] {
        assert_eq!(refusal(apply.put("state", &content).await), (status, Code::StateRefused));
    }
    let large = " ".repeat(LIMIT + 1);
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge);
    let (status, text) = apply.put("state", &large).await;
    assert!(text.contains("104857600 bytes"), "{text}");
    assert_eq!(refusal((status, text)), too_large);

    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);
    let over = (StatusCode::CONFLICT, Code::AttemptOver);
    assert_eq!(refusal(apply.put("state", &state(7, json!({}))).await), over);
    assert_eq!(refusal(apply.put("log?offset=0", "x").await), over);

    server.run(&site).await;
    let plan = agent.take().await;
    for file in ["plan", "lock-file"] {
        assert_eq!(refusal(plan.put(file, &large).await), too_large, "{file}");
    }
    assert_eq!(plan.finish(Outcome::Errored, None, "").await.0, StatusCode::OK);
    assert_eq!(refusal(plan.put("plan", "PLAN").await), over);
}

#[tokio::test]
async fn uploads_have_the_same_limit_as_runs() {
    let server = Server::start_with(&["--max-state", "100"]).await;
    let site = server.pool_and_workspace().await;
    let links = [("workspace", site.workspace.as_str())];
    let text = "A".repeat(LIMIT / 3 * 4 + 2 * 1024 * 1024);
    let body = resource(json!({ "state": text }), &links);
    let (status, document) = server.call(Method::POST, "/state-versions", body).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{document}");
    assert!(error(&document).1.contains("104857600 bytes"), "{document}");

    let version = server.create("/configuration-versions", json!({}), &links).await;
    let link = version["links"]["upload"].as_str().unwrap();
    let upload = server.http.put(link).body(vec![0; LIMIT + 1]).send().await.unwrap();
    assert_eq!(upload.status(), StatusCode::PAYLOAD_TOO_LARGE);
    server.upload_configuration(&site.workspace).await;
}

#[tokio::test]
async fn a_large_state_is_never_whole_in_memory() {
    const SIZE: usize = 24 * 1024 * 1024;
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let (_, apply) = applying(&server, &site).await;
    let large =
        |serial| state(serial, json!({ "large": { "type": "x", "value": "x".repeat(SIZE) } }));
    let before = server.peak_memory();
    assert_eq!(apply.put("state", &large(1)).await.0, StatusCode::NO_CONTENT);
    assert_eq!(apply.get("state").await.1.len(), large(1).len());
    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);
    let attributes = json!({ "state": BASE64_STANDARD.encode(large(2)), "serial": 2 });
    let links = [("workspace", site.workspace.as_str())];
    let version = server.create("/state-versions", attributes, &links).await;
    server.get(&format!("/state-versions/{}/download", id(&version))).await;
    let grown = server.peak_memory() - before;
    assert!(grown < SIZE as u64 / 2, "the server grew by {grown} bytes");
}

#[tokio::test]
async fn a_workspace_stays_locked_until_its_unsaved_state_is_dealt_with() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let workspace = format!("/workspaces/{}", site.workspace);
    let unlock = async || {
        server.call(Method::POST, &format!("{workspace}/actions/unlock"), Value::Null).await
    };
    assert_eq!(unlock().await.0, StatusCode::CONFLICT, "it is not locked");
    let (agent, apply) = applying(&server, &site).await;
    let shown = server.get(&workspace).await;
    let reason = format!("The apply of run {} is under way.", apply.task.run_id);
    assert_eq!(shown["data"]["attributes"]["locked-reason"], json!(reason));
    assert_eq!(unlock().await.0, StatusCode::CONFLICT, "a run applies");
    let waiting = id(&server.run(&site).await);
    let pending = async || {
        let run = server.get(&format!("/runs/{waiting}")).await;
        run["data"]["attributes"]["pending-reason"].clone()
    };
    assert_eq!(pending().await, "Another run of the workspace goes first.");

    let kept = "It is kept in /var/lib/scalr-agent/lost/x on the agent's host.";
    let ended = apply.finish_unsaved(Outcome::Errored, kept).await;
    assert_eq!(ended.0, StatusCode::OK, "{}", ended.1);
    let run = server.get(&format!("/runs/{}", apply.task.run_id)).await;
    assert_eq!(run["data"]["attributes"]["status"], "errored");
    let message = run["data"]["attributes"]["error-message"].as_str().unwrap();
    assert!(message.starts_with(kept), "{message}");
    assert!(message.contains(&format!("POST {workspace}/actions/unlock")), "{message}");
    let shown = server.get(&workspace).await;
    assert_eq!(shown["data"]["attributes"]["locked"], true);
    let reason = shown["data"]["attributes"]["locked-reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(kept), "{reason}");
    assert_eq!(pending().await, json!(format!("The workspace is locked. {reason}")));
    let (status, document) = server.call(Method::DELETE, &workspace, Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT, "{document}");

    let attributes = json!({ "state": BASE64_STANDARD.encode(state(9, json!({}))) });
    server.create("/state-versions", attributes, &[("workspace", &site.workspace)]).await;
    assert_eq!(server.run_status(&waiting).await, "pending");
    let (status, document) = unlock().await;
    assert_eq!(status, StatusCode::OK, "{document}");
    assert_eq!(document["data"]["attributes"]["locked"], false);
    assert_eq!(document["data"]["attributes"]["locked-reason"], Value::Null);
    assert_eq!(pending().await, Value::Null);
    assert_eq!(agent.take().await.task.run_id, waiting);
    let (status, _) =
        server.call(Method::POST, "/workspaces/ws-1/actions/unlock", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_state_that_is_larger_than_the_servers_memory_is_kept_and_read() {
    assert_kept_in_little_memory(160 * MIB).await;
}

mod full {
    use super::{MIB, assert_kept_in_little_memory};

    #[tokio::test]
    async fn a_state_of_400_mib_is_kept_and_read_in_little_memory() {
        assert_kept_in_little_memory(400 * MIB).await;
    }
}

async fn assert_kept_in_little_memory(bytes: usize) {
    // It takes a while, and this agent sends no heartbeats.
    let server = Server::start_with(&["--lease", "600"]).await;
    let site = server.pool_and_workspace().await;
    let (_, apply) = applying(&server, &site).await;
    let content = large_state(bytes);
    let length = content.len() as u64;
    let (status, text) = apply.put_bytes("state", content).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{text}");

    let kept = server.get("/state-versions").await;
    let path = format!("/state-versions/{}/download", id(&kept["data"][0]));
    let url = format!("{}/api/iacp/v3{path}", server.url);
    let download = server.http.get(url).bearer_auth(&server.admin);
    let mut answer = download.timeout(PATIENCE_WITH_LARGE_FILES).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut read = 0;
    while let Some(piece) = answer.chunk().await.unwrap() {
        read += piece.len() as u64;
    }
    assert_eq!(read, length);
    let peak = server.peak_memory();
    assert!(peak < MOST_MEMORY, "{} MiB", peak / MIB as u64);
}

/// A state of a little more than so many bytes.
fn large_state(bytes: usize) -> Vec<u8> {
    let value = "x".repeat(MIB);
    let resource = format!(
        r#"{{"mode":"managed","type":"t","name":"n","provider":"p","instances":[{{"schema_version":0,"attributes":{{"id":"{value}"}}}}]}}"#
    );
    let resources = vec![resource; bytes.div_ceil(MIB)].join(",");
    format!(
        r#"{{"version":4,"serial":1,"lineage":"l-1","outputs":{{}},"resources":[{resources}]}}"#
    )
    .into_bytes()
}

/// An agent whose apply runs.
async fn applying(server: &Server, site: &Site) -> (Agent, Job) {
    let agent = server.agent(site, "one").await;
    let run = id(&server.run(site).await);
    let plan = agent.take().await;
    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
    assert_eq!(server.action(&run, "apply").await, StatusCode::ACCEPTED);
    let apply = agent.take().await;
    (agent, apply)
}

fn refusal((status, text): (StatusCode, String)) -> (StatusCode, Code) {
    let problem: Problem = serde_json::from_str(&text).unwrap();
    (status, problem.code.unwrap_or_else(|| panic!("no code: {text}")))
}
