//! What a run asks of Terraform beside its operation, and who did what with it.

use protocol::{Finish, Outcome, PlanSummary, Refresh, RunOptions};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, id, resource};

#[tokio::test]
async fn a_runs_options_reach_its_plan_and_are_read_again() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let asked = json!({
        "refresh": false,
        "target-addrs": ["module.a", "aws_subnet.main[0]"],
        "replace-addrs": ["aws_subnet.main[\"a b\"]"],
        "variables": [{ "key": "size", "value": "[1, 2]" }],
        "plan-only": true,
        "terraform-version": "1.9.8",
        "source": "cli",
    });
    let run = server.create("/runs", asked.clone(), &[("workspace", &site.workspace)]).await;
    let plan = agent.take().await;
    let options = RunOptions {
        refresh: Refresh::Skip,
        targets: vec!["module.a".to_owned(), "aws_subnet.main[0]".to_owned()],
        replace: vec!["aws_subnet.main[\"a b\"]".to_owned()],
    };
    assert_eq!((plan.task.options.clone(), plan.task.run_source.as_str()), (options, "cli"));
    assert_eq!(plan.task.terraform_version.as_deref(), Some("1.9.8"));
    let [size] = &plan.task.variables[..] else { panic!("{:?}", plan.task.variables) };
    assert_eq!((size.key.as_str(), size.value.expose(), size.hcl), ("size", "[1, 2]", true));
    assert_eq!(plan.finish(Outcome::Finished, Some(true), "").await.0, StatusCode::OK);

    let found = server.get(&format!("/runs/{}", id(&run))).await["data"]["attributes"].clone();
    for (name, value) in asked.as_object().unwrap() {
        assert_eq!(found[name], *value, "{name}");
    }
    assert_eq!(found["status"], "planned_and_finished");
    assert_eq!((&found["is-dry"], &found["refresh-only"]), (&json!(true), &json!(false)));
    assert_eq!(found["actions"]["is-confirmable"], false);
}

#[tokio::test]
async fn options_that_cannot_be_are_refused_with_their_names() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let links = [("workspace", site.workspace.as_str())];
    for (name, attributes) in [
        ("refresh-only", json!({ "refresh-only": true, "is-destroy": true })),
        ("refresh-only", json!({ "refresh-only": true, "refresh": false })),
        ("replace-addrs", json!({ "replace-addrs": ["a.b"], "is-destroy": true })),
        ("replace-addrs", json!({ "replace-addrs": ["data.a.b"] })),
        ("target-addrs", json!({ "target-addrs": ["-destroy"] })),
        ("target-addrs", json!({ "target-addrs": ["a.b\n-destroy"] })),
        ("target-addrs", json!({ "target-addrs": "a.b" })),
        ("target-addrs", json!({ "target-addrs": vec!["a.b"; 201] })),
        ("is-dry", json!({ "is-dry": true, "plan-only": false })),
        ("save-plan", json!({ "plan-only": true, "save-plan": true })),
        ("terraform-version", json!({ "terraform-version": "1.9.8" })),
        ("variables", json!({ "variables": [{ "key": "a b", "value": "1" }] })),
        ("variables", json!({ "variables": { "a": "1" } })),
        ("source", json!({ "source": "elsewhere" })),
        ("lock", json!({ "lock": false })),
    ] {
        let (status, refusal) =
            server.call(Method::POST, "/runs", resource(attributes, &links)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name}: {refusal}");
        let pointer = &refusal["errors"][0]["source"]["pointer"];
        assert_eq!(*pointer, format!("/data/attributes/{name}"), "{refusal}");
    }
    let runs = server.get(&format!("/runs?filter[workspace]={}", site.workspace)).await;
    assert_eq!(runs["data"], json!([]));
    let nothing = json!({ "is-dry": false, "target-addrs": [], "terraform-version": null });
    server.create("/runs", nothing, &links).await;
}

#[tokio::test]
async fn a_run_with_options_waits_for_an_agent_that_knows_them_and_says_so() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let old = server.old_agent(&site, "old").await;
    let asked = json!({ "refresh-only": true });
    let run = id(&server.create("/runs", asked, &[("workspace", &site.workspace)]).await);
    let path = format!("/runs/{run}");
    let reason = async || {
        let found = server.get(&path).await;
        found["data"]["attributes"]["pending-reason"].as_str().map(str::to_owned)
    };
    let held = server.hold_poll(&old, Vec::new()).await;
    assert!(reason().await.unwrap().contains("No agent of the pool supports"));
    let new = server.agent(&site, "new").await;
    assert_eq!(reason().await, None);
    let plan = new.take().await;
    assert_eq!(plan.task.options.refresh, Refresh::Only);
    held.abort();
}

#[tokio::test]
async fn a_run_tells_who_did_what_with_it_and_what_they_said() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    agent.take().await.finish(Outcome::Finished, Some(true), "").await;
    let path = format!("/runs/{run}");
    let post = async |call: &str, body: Value| {
        server.call(Method::POST, &format!("{path}/{call}"), body).await
    };
    let comment = json!({ "data": { "attributes": { "body": "looks good" } } });
    let (status, made) = post("comments", comment).await;
    assert_eq!((status, &made["data"]["type"]), (StatusCode::CREATED, &json!("comments")));
    let (status, _) = post("comments", json!({ "data": { "attributes": { "body": "" } } })).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, _) = post("actions/discard", json!({ "comment": 1 })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = post("actions/discard", json!({ "comment": "not now" })).await;
    assert_eq!(status, StatusCode::ACCEPTED);

    let events = server.get(&format!("{path}/run-events")).await;
    let events = events["data"].as_array().unwrap().iter().map(|event| {
        let attributes = &event["attributes"];
        let kind = attributes["actor"]["kind"].as_str().unwrap();
        (attributes["action"].as_str().unwrap(), kind, attributes["body"].as_str())
    });
    let expected = [
        ("pending", "access-token", None),
        ("plan_queued", "server", None),
        ("planning", "agent", None),
        ("planned", "agent", None),
        ("commented", "access-token", Some("looks good")),
        ("discarded", "access-token", Some("not now")),
    ];
    assert_eq!(events.collect::<Vec<_>>(), expected);
    let comments = server.get(&format!("{path}/comments")).await;
    assert_eq!(comments["data"].as_array().unwrap().len(), 1);
    assert_eq!(comments["meta"]["pagination"]["total-count"], 1);
}

#[tokio::test]
async fn a_plan_has_its_numbers_and_its_json() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = server.run(&site).await;
    let plan_id = run["relationships"]["plan"]["data"]["id"].as_str().unwrap();
    let path = format!("/plans/{plan_id}");
    let json_output =
        async || server.call(Method::GET, &format!("{path}/json-output"), Value::Null).await;
    let plan = agent.take().await;
    let numbers = async || {
        let found = server.get(&path).await;
        let names = ["additions", "changes", "destructions", "imports", "replacements"];
        names.map(|name| found["data"]["attributes"][format!("resource-{name}")].as_u64())
    };
    assert_eq!(numbers().await, [None; 5]);
    let content = json!({ "format_version": "1.2" });
    assert_eq!(plan.put("plan-json", &content.to_string()).await.0, StatusCode::NO_CONTENT);
    assert_eq!(json_output().await.0, StatusCode::NO_CONTENT, "it has not finished");
    let summary = PlanSummary {
        additions: 3,
        changes: 2,
        destructions: 1,
        imports: 4,
        replacements: 1,
        drifted: 5,
        output_changes: 6,
    };
    let finish = Finish { summary: Some(summary), ..plan.ended(Outcome::Finished, Some(true), "") };
    assert_eq!(plan.say_finish(&finish).await.0, StatusCode::OK);
    assert_eq!(numbers().await, [Some(3), Some(2), Some(1), Some(4), Some(1)]);
    let found = server.get(&path).await["data"]["attributes"].clone();
    assert_eq!((&found["resource-drifts"], &found["output-changes"]), (&json!(5), &json!(6)));
    assert_eq!(json_output().await, (StatusCode::OK, content));

    assert_eq!(server.action(&id(&run), "apply").await, StatusCode::ACCEPTED);
    let apply = agent.take().await;
    assert_eq!(apply.put("plan-json", "{}").await.0, StatusCode::CONFLICT, "it is the plan's");
    let apply_id = run["relationships"]["apply"]["data"]["id"].as_str().unwrap();
    let additions = async || {
        let found = server.get(&format!("/applies/{apply_id}")).await;
        found["data"]["attributes"]["resource-additions"].as_u64()
    };
    assert_eq!(additions().await, None);
    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);
    assert_eq!(additions().await, Some(3), "it has done what was planned");
}

#[tokio::test]
async fn runs_have_places_in_their_workspaces_queue() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let links = [("workspace", site.workspace.as_str())];
    let mut places = Vec::new();
    for attributes in [json!({}), json!({}), json!({ "plan-only": true }), json!({})] {
        let run = server.create("/runs", attributes, &links).await;
        places.push(run["attributes"]["position-in-queue"].as_u64());
        // Runs are in the order of their times, in milliseconds.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(places, [Some(0), Some(1), None, Some(2)]);
}
