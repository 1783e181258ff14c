//! Webhooks that are called when something happens to runs and agents.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit as _, Mac as _};
use protocol::{Heartbeat, Outcome, Status};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::harness::{Server, id};
use crate::webhooks::Receiver;

const KEY: &str = "hunter2";

fn webhook(url: &str, events: &[&str], relationships: Value) -> Value {
    let events: Vec<Value> =
        events.iter().map(|id| json!({ "type": "event-definitions", "id": id })).collect();
    let mut relationships = relationships;
    relationships["events"] = json!({ "data": events });
    json!({ "data": {
        "type": "webhook-integrations",
        "attributes": {
            "name": "chat", "url": url, "secret-key": KEY, "max-attempts": 2,
            "headers": [{ "name": "Authorization", "value": "Bearer x", "sensitive": true }],
        },
        "relationships": relationships,
    } })
}

/// Checks a call's signature as a receiver does.
fn check_signature(receiver: &Receiver, call: usize, headers: &HeaderMap) {
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    mac.update(receiver.texts()[call].as_bytes());
    mac.update(headers["date"].as_bytes());
    assert_eq!(headers["x-signature"], hex::encode(mac.finalize().into_bytes()));
}

async fn deliveries(server: &Server) -> Vec<Value> {
    let mut listed = server.get("/webhook-deliveries?sort=created-at").await;
    listed["data"].as_array_mut().unwrap().drain(..).collect()
}

/// All deliveries, when the first one has this status.
async fn deliveries_once_one_is(server: &Server, status: &str) -> Vec<Value> {
    let wait = async {
        loop {
            let found = deliveries(server).await;
            if found.first().is_some_and(|first| first["attributes"]["status"] == status) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), wait).await;
    found.unwrap_or_else(|_| panic!("no delivery was {status}: {}", server.log()))
}

#[tokio::test]
async fn a_run_that_needs_attention_and_one_that_failed_are_signed_and_delivered() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let receiver = Receiver::start(vec![StatusCode::INTERNAL_SERVER_ERROR]).await;
    let environments =
        json!({ "environments": { "data": [{ "type": "environments", "id": site.environment }] } });
    let body = webhook(
        &format!("{}/hook", receiver.url),
        &["run:needs_attention", "run:errored"],
        environments,
    );
    let (status, made) = server.call(Method::POST, "/webhook-integrations", body).await;
    assert_eq!(status, reqwest::StatusCode::CREATED, "{made}");
    assert!(!made.to_string().contains(KEY), "{made}");
    let webhook = id(&made["data"]);

    let run = id(&server.run(&site).await);
    let job = server.agent(&site, "one").await.take().await;
    assert!(job.put("plan", "a plan").await.0.is_success());
    let (status, answer) = job.finish(Outcome::Finished, Some(true), "").await;
    assert!(status.is_success(), "{answer}");
    // The first attempt fails.
    let calls = receiver.calls(2).await;
    let (uri, headers, body) = &calls[1];
    assert_eq!((uri.as_str(), &headers["authorization"]), ("/hook", &"Bearer x".parse().unwrap()));
    assert_eq!(body["event_name"], "run:needs_attention");
    assert_eq!((&body["run"]["id"], &body["run"]["status"]), (&json!(run), &json!("planned")));
    assert_eq!(body["workspace"]["id"], site.workspace);
    assert_eq!(body["environment"]["name"], "default");
    assert_eq!(body["webhook"], json!({ "id": webhook, "name": "chat" }));
    check_signature(&receiver, 1, headers);

    // It is recorded after it was logged.
    let kept = deliveries_once_one_is(&server, "delivered").await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    let attributes = &kept[0]["attributes"];
    assert_eq!(attributes["attempts"], 2);
    assert_eq!(attributes["answer-status"], 200);
    assert_eq!(headers["x-scalr-delivery-id"], id(&kept[0]));

    // Once more, as somebody asks for it.
    let again = format!("/webhook-deliveries/{}/actions/redeliver", id(&kept[0]));
    let (status, answer) = server.call(Method::POST, &again, json!({})).await;
    assert_eq!(status, reqwest::StatusCode::CREATED, "{answer}");
    assert_eq!(receiver.calls(3).await[2].2["run"], body["run"]);

    let (status, _) =
        server.call(Method::POST, &format!("/runs/{run}/actions/discard"), json!({})).await;
    assert!(status.is_success());
    let second = id(&server.run(&site).await);
    let (status, _) =
        server.call(Method::POST, &format!("/runs/{second}/actions/cancel"), json!({})).await;
    assert!(status.is_success());
    let calls = receiver.calls(4).await;
    // A discarded run is nobody's event.
    assert_eq!(calls[3].2["event_name"], "run:errored");
    assert_eq!(calls[3].2["run"]["id"], second);
    assert!(!server.log().contains(KEY));
}

#[tokio::test]
async fn runs_of_other_environments_and_disabled_webhooks_call_nobody_and_attempts_end() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let other = id(&server.create("/environments", json!({ "name": "other" }), &[]).await);
    let receiver = Receiver::start(vec![StatusCode::BAD_GATEWAY; 9]).await;
    let elsewhere =
        json!({ "environments": { "data": [{ "type": "environments", "id": other }] } });
    let body = webhook(&receiver.url, &["run:errored"], elsewhere);
    let (status, made) = server.call(Method::POST, "/webhook-integrations", body).await;
    assert_eq!(status, reqwest::StatusCode::CREATED, "{made}");
    let path = format!("/webhook-integrations/{}", id(&made["data"]));
    let change = async |attributes: Value| {
        let body = json!({ "data": { "attributes": attributes } });
        let (status, answer) = server.call(Method::PATCH, &path, body).await;
        assert_eq!(status, reqwest::StatusCode::OK, "{answer}");
    };
    let fail = async || {
        let run = id(&server.run(&site).await);
        let cancel = format!("/runs/{run}/actions/cancel");
        let (status, answer) = server.call(Method::POST, &cancel, json!({})).await;
        assert!(status.is_success(), "{answer}");
    };
    fail().await;
    change(json!({ "is-shared": true, "enabled": false })).await;
    fail().await;
    assert!(deliveries(&server).await.is_empty());

    change(json!({ "enabled": true })).await;
    fail().await;
    receiver.calls(2).await;
    let kept = deliveries_once_one_is(&server, "failed").await;
    assert_eq!((kept.len(), &kept[0]["attributes"]["attempts"]), (1, &json!(2)), "{kept:?}");
    assert_eq!(kept[0]["attributes"]["answer-status"], 502);
}

#[tokio::test]
async fn agents_that_are_errored_or_gone_are_signed_delivered_and_delivered_again() {
    let server = Server::start_with(&["--lease", "2"]).await;
    let site = server.pool_and_workspace().await;
    // The first attempt fails.
    let receiver = Receiver::start(vec![StatusCode::INTERNAL_SERVER_ERROR]).await;
    let events = ["agent:offline", "agent:errored"];
    let mut body = webhook(&receiver.url, &events, json!({}));
    body["data"]["attributes"]["is-shared"] = json!(true);
    let (status, made) = server.call(Method::POST, "/webhook-integrations", body).await;
    assert_eq!(status, reqwest::StatusCode::CREATED, "{made}");

    // It never sends a heartbeat.
    let gone = server.agent(&site, "gone").await;
    let calls = receiver.calls(2).await;
    let (_, headers, call) = &calls[1];
    assert_eq!(call["event_name"], "agent:offline");
    assert_eq!(
        (&call["agent"]["name"], &call["agent"]["status"]),
        (&json!("gone"), &json!("offline"))
    );
    assert_eq!(
        (&call["agent"]["left"], &call["agent_pool"]["id"]),
        (&json!(false), &json!(site.pool))
    );
    assert_eq!((&call["run"], &call["workspace"]), (&Value::Null, &Value::Null));
    check_signature(&receiver, 1, headers);
    let agent = call["agent"]["id"].as_str().unwrap();
    let url = call["agent"]["url"].as_str().unwrap();
    assert!(url.ends_with(&format!("/agents/{agent}")), "{url}");

    let kept = deliveries_once_one_is(&server, "delivered").await;
    assert_eq!((kept.len(), &kept[0]["attributes"]["attempts"]), (1, &json!(2)), "{kept:?}");
    // The call outlives its agent.
    let (status, answer) =
        server.call(Method::DELETE, &format!("/agents/{agent}"), json!({})).await;
    assert!(status.is_success(), "{answer}");
    drop(gone);
    let again = format!("/webhook-deliveries/{}/actions/redeliver", id(&kept[0]));
    let (status, answer) = server.call(Method::POST, &again, json!({})).await;
    assert_eq!(status, reqwest::StatusCode::CREATED, "{answer}");
    assert_eq!(receiver.calls(3).await[2].2["agent"], call["agent"]);

    let broken = server.agent(&site, "broken").await;
    let beat = Heartbeat {
        status: Status::Errored,
        error_message: Some("the engine does not answer".to_owned()),
        tasks: Vec::new(),
    };
    let beats = async {
        loop {
            let (status, answer) = broken.call(Method::POST, "heartbeat", &beat).await;
            assert!(status.is_success(), "{answer}");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let calls = tokio::select! {
        calls = receiver.calls(4) => calls,
        () = beats => unreachable!("it sends heartbeats for ever"),
    };
    let call = &calls[3].2;
    assert_eq!(call["event_name"], "agent:errored");
    assert_eq!(call["agent"]["error_message"], "the engine does not answer");
    assert!(!server.log().contains(KEY));
}

#[tokio::test]
async fn a_webhook_that_says_too_little_or_too_much_is_refused() {
    let server = Server::start().await;
    let url = "https://hooks.example.com/1";
    let change = |pointer: &str, value: Value| {
        let mut body = webhook(url, &["run:errored"], json!({}));
        *body.pointer_mut(pointer).unwrap() = value;
        body
    };
    let events = "/data/relationships/events/data";
    for (body, field) in [
        (change("/data/attributes/url", json!(null)), "url"),
        (change("/data/attributes/url", json!("http://hooks.example.com")), "url"),
        (change("/data/attributes/max-attempts", json!(0)), "max-attempts"),
        (change("/data/attributes/max-attempts", json!(1_000_000)), "max-attempts"),
        (change("/data/attributes/headers", json!([{ "name": "Date", "value": "x" }])), "headers"),
        (change(events, json!([])), "events"),
        (change(events, json!([{ "type": "event-definitions", "id": "run:begun" }])), "events"),
    ] {
        let (status, answer) =
            server.call(Method::POST, "/webhook-integrations", body.clone()).await;
        assert_eq!(status, reqwest::StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
        let pointer = answer["errors"][0]["source"]["pointer"].as_str().unwrap();
        assert!(pointer.ends_with(&format!("/{field}")), "{answer}");
    }
    assert_eq!(server.get("/webhook-integrations").await["data"], json!([]));
}
