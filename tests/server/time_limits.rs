//! How long plans and applies may run, and what shows while one is canceled.

use protocol::Outcome;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, id, resource};

#[tokio::test]
async fn a_task_has_its_workspaces_time_limit_or_the_servers() {
    let server = Server::start_with(&["--plan-timeout", "60", "--apply-timeout", "90"]).await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let path = format!("/workspaces/{}", site.workspace);
    let workspace = server.get(&path).await;
    assert_eq!(workspace["data"]["attributes"]["plan-timeout-seconds"], Value::Null);
    let patch = async |attributes: Value| {
        server.call(Method::PATCH, &path, resource(attributes, &[])).await
    };
    for wrong in [json!(9), json!(604_801), json!(-1), json!("60"), json!(1.5)] {
        let (status, document) = patch(json!({ "apply-timeout-seconds": wrong })).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{document}");
        let pointer = &document["errors"][0]["source"]["pointer"];
        assert_eq!(pointer, "/data/attributes/apply-timeout-seconds");
    }

    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    assert_eq!(plan.task.timeout_seconds, Some(60));
    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
    // Raised for the apply that waits.
    let (status, changed) = patch(json!({ "apply-timeout-seconds": 20 })).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(changed["data"]["attributes"]["apply-timeout-seconds"], 20);
    assert_eq!(server.action(&run, "apply").await, StatusCode::ACCEPTED);
    let apply = agent.take().await;
    assert_eq!(apply.task.timeout_seconds, Some(20));
    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);

    assert_eq!(patch(json!({ "apply-timeout-seconds": null })).await.0, StatusCode::OK);
    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);
    assert_eq!(server.action(&run, "apply").await, StatusCode::ACCEPTED);
    assert_eq!(agent.take().await.task.timeout_seconds, Some(90));
}

#[tokio::test]
async fn a_run_shows_that_it_is_canceling_until_it_has_ended() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    assert_eq!(server.action(&run, "cancel").await, StatusCode::ACCEPTED);
    assert_eq!(server.run_status(&run).await, "canceling");
    assert_eq!(server.action(&run, "cancel").await, StatusCode::ACCEPTED, "said again");
    let listed = server.get("/runs?filter[status]=canceling").await;
    assert_eq!(listed["meta"]["pagination"]["total-count"], 1);
    let workspace = server.get(&format!("/workspaces/{}", site.workspace)).await;
    let current = &workspace["data"]["relationships"]["current-run"]["data"]["id"];
    assert_eq!(current, run.as_str());
    let next = id(&server.run(&site).await);
    assert_eq!(server.run_status(&next).await, "pending");

    assert_eq!(plan.finish(Outcome::Canceled, None, "").await.0, StatusCode::OK);
    assert_eq!(server.run_status(&run).await, "canceled");
    assert_eq!(server.run_status(&next).await, "plan_queued");
}
