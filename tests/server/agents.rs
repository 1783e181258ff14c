//! The agents' protocol, with a fake agent.

use std::time::{Duration, Instant};

use protocol::{Code, Event, Heartbeat, Identity, Kind, Outcome, Problem, Status};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, error, events, id, related, state};

#[tokio::test]
async fn what_can_name_no_image_is_refused_for_pools_and_workspaces() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    for path in [format!("/agent-pools/{}", site.pool), format!("/workspaces/{}", site.workspace)] {
        for image in ["two words", "run:1\n--privileged", "https://x/run", "../run", "$(id)"] {
            let body = json!({ "data": { "attributes": { "image": image } } });
            let (status, document) = server.call(Method::PATCH, &path, body).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {image}: {document}");
            let (_, why, pointer) = error(&document);
            assert!(why.contains("an image's name such as hashicorp/terraform:1.9"), "{document}");
            assert!(
                pointer.ends_with("image") || document.to_string().contains("attributes/image")
            );
        }
    }
}

#[tokio::test]
async fn a_pools_image_goes_with_a_claim_as_it_is_then() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let set = async |path: String, image: &str| {
        let body = json!({ "data": { "attributes": { "image": image } } });
        assert_eq!(server.call(Method::PATCH, &path, body).await.0, StatusCode::OK);
    };
    set(format!("/agent-pools/{}", site.pool), "of-the-pool:1").await;
    server.run(&site).await;
    let plan = agent.take().await;
    assert_eq!(plan.task.image.as_deref(), Some("of-the-pool:1"));
    assert_eq!(plan.finish(Outcome::Errored, None, "").await.0, StatusCode::OK);

    set(format!("/workspaces/{}", site.workspace), "of-the-workspace:1").await;
    server.run(&site).await;
    assert_eq!(agent.take().await.task.image.as_deref(), Some("of-the-workspace:1"));
}

#[tokio::test]
async fn a_run_is_planned_and_applied() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let variable =
        json!({ "key": "TOKEN", "value": "s3cret", "category": "env", "sensitive": true });
    server.create("/vars", variable, &[("workspace", &site.workspace)]).await;
    let agent = server.agent(&site, "one").await;

    // The poll is held; the run wakes it.
    let polling = server.hold_poll(&agent, Vec::new()).await;
    let run = server.run(&site).await;
    let (run_id, plan_id) = (id(&run), related(&run, "plan"));
    let plan = agent.claim_offer(&events(polling.await.unwrap())).await;
    assert_eq!(plan.start().await, StatusCode::NO_CONTENT);
    assert_eq!(plan.start().await, StatusCode::NO_CONTENT, "said twice");
    assert_eq!((plan.task.kind, plan.task.attempt), (Kind::Plan, 1));
    assert_eq!(plan.task.run_id, run_id);
    assert_eq!(plan.task.workspace.name, "main");
    assert_eq!(plan.task.variables[0].value.expose(), "s3cret");
    assert_eq!(server.run_status(&run_id).await, "planning");

    // What it needs.
    assert_eq!(plan.get("configuration").await.0, StatusCode::OK);
    assert_eq!(plan.get("state").await.0, StatusCode::NOT_FOUND);
    assert_eq!(plan.put("state", &state(1, json!({}))).await.0, StatusCode::CONFLICT);

    // The log: pieces in order, whatever the network does.
    let output = format!("/plans/{plan_id}/output");
    assert_eq!(server.call(Method::GET, &output, Value::Null).await.0, StatusCode::NO_CONTENT);
    assert_eq!(plan.log(0, "Initial").await, (StatusCode::OK, Some(7)));
    assert_eq!(plan.log(0, "Initial").await, (StatusCode::RANGE_NOT_SATISFIABLE, Some(7)));
    assert_eq!(server.get(&output).await, "Initial");
    assert_eq!(plan.log(7, "izing").await, (StatusCode::OK, Some(12)));
    assert_eq!(server.get(&format!("{output}?offset=7")).await, "izing");
    let (status, _) = server.call(Method::GET, &format!("{output}?offset=12"), Value::Null).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "nothing new");
    let ranged = async |range: &str| {
        let url = format!("{}/api/iacp/v3{output}", server.url);
        let request = server.http.get(url).bearer_auth(&server.admin).header("Range", range);
        request.send().await.unwrap()
    };
    let part = ranged("bytes=7-").await;
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], "bytes 7-11/12");
    assert_eq!(part.text().await.unwrap(), "izing");
    assert_eq!(ranged("bytes=12-").await.status(), StatusCode::RANGE_NOT_SATISFIABLE);

    // What it leaves. The end is not taken before the whole log is there.
    assert_eq!(plan.put("plan", "PLAN").await.0, StatusCode::NO_CONTENT);
    assert_eq!(plan.put("lock-file", "LOCK").await.0, StatusCode::NO_CONTENT);
    assert_eq!(plan.get("plan-files").await.0, StatusCode::NO_CONTENT);
    assert_eq!(plan.put("plan-files", "FILES").await.0, StatusCode::NO_CONTENT);
    let early = plan.finish(Outcome::Finished, Some(true), "Initializing...").await;
    assert_eq!(early, (StatusCode::PRECONDITION_FAILED, r#"{"offset":12}"#.to_owned()));
    let differs = plan.finish(Outcome::Finished, Some(true), "INITIALIZING").await;
    assert_eq!(differs, (StatusCode::PRECONDITION_FAILED, r#"{"offset":0}"#.to_owned()));
    assert_eq!(plan.log(0, "INITIALIZING").await, (StatusCode::OK, Some(12)));
    let finish = async || plan.finish(Outcome::Finished, Some(true), "INITIALIZING").await.0;
    assert_eq!(finish().await, StatusCode::OK);
    assert_eq!(finish().await, StatusCode::OK, "said twice");
    assert_eq!(plan.log(12, "more").await.0, StatusCode::CONFLICT);
    assert_eq!(plan.get("configuration").await.0, StatusCode::CONFLICT, "it is over");
    assert_eq!(server.get(&output).await, "INITIALIZING");

    // The apply.
    assert_eq!(server.run_status(&run_id).await, "planned");
    assert_eq!(server.action(&run_id, "apply").await, StatusCode::ACCEPTED);
    assert_eq!(server.action(&run_id, "apply").await, StatusCode::CONFLICT);
    let apply = agent.take().await;
    assert_eq!(apply.task.kind, Kind::Apply);
    assert_eq!(apply.get("plan").await.1, b"PLAN");
    assert_eq!(apply.get("lock-file").await.1, b"LOCK");
    assert_eq!(apply.get("plan-files").await.1, b"FILES");
    assert_eq!(apply.put("plan-files", "FILES").await.0, StatusCode::CONFLICT);
    assert_eq!(apply.put("plan", "PLAN").await.0, StatusCode::CONFLICT);
    let workspace = format!("/workspaces/{}", site.workspace);
    assert_eq!(server.get(&workspace).await["data"]["attributes"]["locked"], true);
    let agents = server.get(&format!("/agents?filter[agent-pool]={}", site.pool)).await;
    assert_eq!(agents["data"][0]["attributes"]["status"], "busy");

    // Its states, each kept once.
    let outputs = json!({
        "greeting": { "value": "hello", "type": "string" },
        "password": { "value": "pw", "type": "string", "sensitive": true },
    });
    assert_eq!(apply.put("state", &state(1, json!({}))).await.0, StatusCode::NO_CONTENT);
    for _ in 0..2 {
        assert_eq!(apply.put("state", &state(2, outputs.clone())).await.0, StatusCode::NO_CONTENT);
    }
    assert_eq!(apply.put("state", &state(1, json!({}))).await.0, StatusCode::CONFLICT);
    assert_eq!(apply.put("state", "{").await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let versions = format!("/state-versions?filter[workspace]={}", site.workspace);
    assert_eq!(server.get(&versions).await["meta"]["pagination"]["total-count"], 2);
    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);
    assert_eq!(server.run_status(&run_id).await, "applied");
    assert_eq!(server.get(&workspace).await["data"]["attributes"]["locked"], false);

    let current = server.get(&format!("{workspace}/current-state-version")).await;
    assert_eq!(current["data"]["attributes"]["serial"], 2);
    let download = format!("/state-versions/{}/download", id(&current["data"]));
    assert_eq!(server.get(&download).await["serial"], 2);
    let shown = server.get(&format!("{workspace}/outputs")).await;
    assert_eq!(shown["data"][0]["value"], "hello");
    assert_eq!(shown["data"][1]["value"], Value::Null, "sensitive");

    // Nothing secret was logged, though everything was.
    let log = server.log();
    assert!(log.contains("/tasks/{id}/finish"), "requests are logged: {log}");
    let tokens = [&server.admin, &site.token, &agent.token, &plan.agent.token, &apply.agent.token];
    let tokens = tokens.into_iter().chain([&plan.run_token, &apply.run_token]);
    for token in tokens {
        let secret = token.rsplit('.').next().unwrap();
        assert!(!log.contains(secret), "{token}");
    }
    assert!(!log.contains("s3cret"));
}

#[tokio::test]
async fn the_signature_of_an_upload_is_not_logged() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let link = server.upload_configuration(&site.workspace).await;
    let log = server.log();
    assert!(log.contains("/upload/{signature}"), "{log}");
    assert!(!log.contains(link.rsplit('.').next().unwrap()));
}

#[tokio::test]
async fn what_an_agent_loses_goes_to_another_one() {
    let server = Server::start_with(&["--lease", "2"]).await;
    let site = server.pool_and_workspace().await;
    let lost = server.agent(&site, "lost").await;
    let run = server.run(&site).await;
    let first = lost.take().await;
    assert_eq!(first.log(0, "half a").await.0, StatusCode::OK);

    // The first agent sends no more heartbeats.
    server.wait_for(&format!("/plans/{}", related(&run, "plan")), "status", "queued").await;
    let other = server.agent(&site, "other").await;
    let second = other.take().await;
    assert_eq!((&second.task.id, second.task.attempt), (&first.task.id, 2));

    // It is back, too late.
    assert_eq!(first.log(6, " log").await.0, StatusCode::CONFLICT);
    assert_eq!(first.put("plan", "OLD").await.0, StatusCode::CONFLICT);
    let late = first.finish(Outcome::Finished, Some(true), "half a").await;
    assert_eq!(late.0, StatusCode::CONFLICT);
    assert!(late.1.contains("is over"), "{}", late.1);
    let told = lost.events(&[first.status()]).await;
    assert_eq!(told, [Event::Cancel { task_id: first.task.id.clone(), attempt: 1 }]);

    assert_eq!(second.finish(Outcome::Finished, Some(false), "").await.0, StatusCode::OK);
    assert_eq!(server.run_status(&id(&run)).await, "planned_and_finished");
}

#[tokio::test]
async fn a_lost_apply_is_reported_and_its_late_outcome_counts() {
    let server = Server::start_with(&["--lease", "2"]).await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let links = [("workspace", site.workspace.as_str())];
    let run = server.create("/runs", json!({ "auto-apply": true }), &links).await;
    let plan = agent.take().await;
    plan.finish(Outcome::Finished, Some(true), "").await;
    let apply = agent.take().await;

    server.wait_for(&format!("/applies/{}", related(&run, "apply")), "status", "unreachable").await;
    let told = server.get(&format!("/runs/{}", id(&run))).await;
    let why = told["data"]["attributes"]["error-message"].as_str().unwrap().to_owned();
    assert!(why.contains("Agent one stopped sending heartbeats"), "{why}");
    let workspace = server.get(&format!("/workspaces/{}", site.workspace)).await;
    assert_eq!(workspace["data"]["attributes"]["locked"], true);

    assert_eq!(apply.put("state", &state(1, json!({}))).await.0, StatusCode::NO_CONTENT);
    assert_eq!(apply.finish(Outcome::Finished, None, "").await.0, StatusCode::OK);
    assert_eq!(server.run_status(&id(&run)).await, "applied");
}

#[tokio::test]
async fn a_held_poll_carries_the_cancel() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    let polling = server.hold_poll(&agent, vec![plan.status()]).await;
    assert_eq!(server.action(&run, "cancel").await, StatusCode::ACCEPTED);
    let told = events(polling.await.unwrap());
    assert_eq!(told, [Event::Cancel { task_id: plan.task.id.clone(), attempt: 1 }]);
    assert_eq!(plan.finish(Outcome::Canceled, None, "").await.0, StatusCode::OK);
    assert_eq!(server.run_status(&run).await, "canceled");
    assert_eq!(server.action(&run, "cancel").await, StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_killed_server_goes_on_where_it_was() {
    let mut server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = id(&server.run(&site).await);
    let plan = agent.take().await;
    assert_eq!(plan.log(0, "before ").await.0, StatusCode::OK);
    server.crash_and_restart().await;
    assert_eq!(plan.log(7, "after").await, (StatusCode::OK, Some(12)));
    let beat = Heartbeat { status: Status::Busy, error_message: None, tasks: vec![plan.status()] };
    assert_eq!(agent.call(Method::POST, "heartbeat", &beat).await.0, StatusCode::NO_CONTENT);
    let finish = plan.finish(Outcome::Finished, Some(true), "before after").await;
    assert_eq!(finish.0, StatusCode::OK);
    assert_eq!(server.run_status(&run).await, "planned");
}

#[tokio::test]
async fn a_revoked_token_ends_a_held_poll() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let polling = server.hold_poll(&agent, Vec::new()).await;
    let path = format!("/access-tokens/{}", site.token_id);
    assert_eq!(server.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::NO_CONTENT);
    let (status, why) = polling.await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(why.contains("revoked"), "{why}");
    let again = agent.call(Method::POST, "register", &json!({})).await;
    assert_eq!(again.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_second_agent_of_the_same_name_takes_the_place_of_the_first() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let first = server.agent(&site, "one").await;
    let polling = server.hold_poll(&first, Vec::new()).await;
    let second = server.agent(&site, "one").await;
    let (status, why) = polling.await.unwrap();
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    assert!(why.contains("another agent registered under the name one"), "{why}");
    assert!(why.contains(r#""code":"name_taken""#), "{why}");

    let agents = format!("/agents?filter[agent-pool]={}", site.pool);
    let listed = server.get(&agents).await;
    assert_eq!(listed["meta"]["pagination"]["total-count"], 1);
    assert_eq!(listed["data"][0]["attributes"]["status"], "idle");
    let path = format!("/agents/{}", id(&listed["data"][0]));
    assert_eq!(server.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::CONFLICT);

    let left = second.call(Method::POST, "deregister", &json!({})).await;
    assert_eq!(left.0, StatusCode::NO_CONTENT);
    assert_eq!(server.get(&agents).await["data"][0]["attributes"]["status"], "offline");
    assert_eq!(second.poll(Vec::new()).await.0, StatusCode::CONFLICT, "register again");
    assert_eq!(server.call(Method::DELETE, &path, Value::Null).await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn tokens_are_good_for_what_they_are_for() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    server.run(&site).await;
    let plan = agent.claim().await;
    let with = |token: &str| {
        let mut agent = agent.clone();
        agent.token = token.to_owned();
        agent
    };
    for token in [server.admin.as_str(), &site.token, &plan.agent.token, &plan.run_token, "", "x.y"]
    {
        let (status, _) = with(token).poll(Vec::new()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "poll with {token:?}");
    }
    for token in [server.admin.as_str(), &agent.token, &plan.agent.token, &plan.run_token] {
        let (status, _) = with(token).call(Method::POST, "register", &json!({})).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "register with {token:?}");
    }
    let check = async |token: &str| {
        agent.call(Method::POST, "check-token", &json!({ "token": token })).await.0
    };
    for token in [server.admin.as_str(), &agent.token, &plan.agent.token, &plan.run_token, "x.y"] {
        assert_eq!(check(token).await, StatusCode::UNAUTHORIZED, "check-token of {token:?}");
    }
    assert_eq!(check("").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(check(&"x".repeat(600)).await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(check(&"x".repeat(8 * 1024)).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(check(&site.token).await, StatusCode::NO_CONTENT);
    let other = server.http.get(format!("{}/api/iacp/v3/runs", server.url));
    let other = other.bearer_auth(&site.token).send().await.unwrap();
    assert_eq!(other.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(error(&other.json().await.unwrap()).0, "Unauthorized");
    let start = format!("tasks/{}/start", plan.task.id);
    let (status, _) = agent.call(Method::POST, &start, &json!({ "attempt": 1 })).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a session's token is not a task's");
    let (status, _) =
        with(&plan.run_token).call(Method::POST, &start, &json!({ "attempt": 1 })).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "a run's token is not its agent's");
    let (status, problem) = with(&site.token).call(Method::POST, "register", &json!({})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem.contains("missing field"), "{problem}");
}

#[tokio::test]
async fn a_clone_under_another_name_cannot_resume_a_task_and_a_booted_machine_can() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    server.run(&site).await;
    let plan = agent.claim().await;
    assert_eq!(plan.start().await, StatusCode::NO_CONTENT);
    let path = format!("tasks/{}/resume", plan.task.id);
    let resume = json!({ "attempt": 1, "started": true });

    let clone = server.agent(&site, "clone").await;
    let (status, text) = clone.call(Method::POST, &path, &resume).await;
    let problem: Problem = serde_json::from_str(&text).unwrap();
    assert_eq!((status, problem.code), (StatusCode::CONFLICT, Some(Code::AttemptOver)), "{text}");
    assert_eq!(plan.start().await, StatusCode::NO_CONTENT, "it stays the first one's");

    let booted = server.agent(&site, "one").await;
    let (status, text) = booted.call(Method::POST, &path, &resume).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    assert_eq!(plan.start().await, StatusCode::UNAUTHORIZED, "with the earlier token");
}

#[tokio::test]
async fn a_name_is_refused_to_another_machine_until_its_agent_is_away() {
    // Heartbeats each second.
    let server = Server::start_with(&["--lease", "4"]).await;
    let site = server.pool_and_workspace().await;
    let machine = |machine_id: &str| {
        Some(Identity { machine_id: machine_id.to_owned(), boot_id: "boot".to_owned() })
    };
    let (status, text, _) = server.register(&site, "one", machine("a")).await;
    assert_eq!(status, StatusCode::CREATED, "{text}");
    let (status, text, _) = server.register(&site, "one", machine("b")).await;
    let problem: Problem = serde_json::from_str(&text).unwrap();
    assert_eq!((status, problem.code), (StatusCode::CONFLICT, Some(Code::NameTaken)), "{text}");
    assert!(problem.error.contains("scalr-agent configure --agent-name NAME"), "{text}");
    assert_eq!(server.register(&site, "one", machine("a")).await.0, StatusCode::CREATED);

    let begun = Instant::now();
    while server.register(&site, "one", machine("b")).await.0 != StatusCode::CREATED {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never gets the name");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
}
