//! `GET /metrics`.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use protocol::Outcome;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::Server;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

async fn server() -> (Server, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let option = format!("--metrics-token-file={}", file.display());
    (Server::start_with(&[&option]).await, folder)
}

async fn scrape(server: &Server, token: &str) -> (StatusCode, String) {
    let request = server.http.get(format!("{}/metrics", server.url));
    let request = if token.is_empty() { request } else { request.bearer_auth(token) };
    let answer = request.send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

/// The value of a series, for example `scalr_server_tasks{state="queued"}`.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}")).parse().unwrap()
}

#[tokio::test]
async fn metrics_need_their_own_token_or_an_admins() {
    let (server, _folder) = server().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    for token in ["", "wrong", &TOKEN[1..], &site.token, &agent.token] {
        let (status, text) = scrape(&server, token).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{token:?}");
        assert!(!text.contains("scalr_server_"), "{text}");
    }
    for token in [TOKEN, &server.admin] {
        let (status, text) = scrape(&server, token).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
    let request = server.http.get(format!("{}/metrics", server.url)).bearer_auth(TOKEN);
    let answer = request.send().await.unwrap();
    let media_type = answer.headers()[CONTENT_TYPE].to_str().unwrap();
    assert_eq!(media_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

#[tokio::test]
async fn the_metrics_token_is_good_for_nothing_else() {
    let (server, _folder) = server().await;
    for path in ["/agent-pools", "/runs", "/server"] {
        let (status, _) = server.call_with(TOKEN, Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn metrics_follow_a_run_from_the_queue_to_its_end() {
    let (server, _folder) = server().await;
    let site = server.pool_and_workspace().await;
    let metrics = async || scrape(&server, TOKEN).await.1;
    assert_eq!(value(&metrics().await, "scalr_server_agents{pool=\"pool\",status=\"idle\"}"), 0.0);

    server.run(&site).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let text = metrics().await;
    assert_eq!(value(&text, "scalr_server_queued_tasks{pool=\"pool\"}"), 1.0);
    assert_eq!(value(&text, "scalr_server_tasks{state=\"queued\"}"), 1.0);
    assert!(value(&text, "scalr_server_oldest_queued_task_age_seconds{pool=\"pool\"}") > 0.0);

    let agent = server.agent(&site, "one").await;
    let plan = agent.take().await;
    let text = metrics().await;
    assert_eq!(value(&text, "scalr_server_agents{pool=\"pool\",status=\"busy\"}"), 1.0);
    assert_eq!(value(&text, "scalr_server_queued_tasks{pool=\"pool\"}"), 0.0);
    assert_eq!(value(&text, "scalr_server_oldest_queued_task_age_seconds{pool=\"pool\"}"), 0.0);
    assert_eq!(value(&text, "scalr_server_tasks{state=\"running\"}"), 1.0);
    let picked_up = "scalr_server_task_pickup_duration_seconds_count{phase=\"plan\"}";
    assert_eq!(value(&text, picked_up), 1.0);

    plan.finish(Outcome::Finished, Some(false), "").await;
    let text = metrics().await;
    let ended = "scalr_server_tasks_ended_total{phase=\"plan\",state=\"finished\"}";
    assert_eq!(value(&text, ended), 1.0);
    assert_eq!(value(&text, "scalr_server_agents{pool=\"pool\",status=\"idle\"}"), 1.0);
    let created = "scalr_server_http_request_duration_seconds_count\
                   {method=\"POST\",route=\"/api/iacp/v3/runs\",status=\"201\"}";
    assert_eq!(value(&text, created), 1.0);
    let commits = "scalr_server_database_operation_duration_seconds_count{operation=\"commit\"}";
    assert!(value(&text, commits) > 5.0);
}

#[tokio::test]
async fn no_request_adds_a_series_of_its_own() {
    let (server, _folder) = server().await;
    let series = async || scrape(&server, TOKEN).await.1.lines().count();
    for path in ["/x", "/api/iacp/v3/runs/none"] {
        let _ = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
    }
    series().await;
    let before = series().await;
    for number in 0..50 {
        for path in [format!("/x-{number}"), format!("/api/iacp/v3/runs/run-{number}")] {
            let _ = server.http.get(format!("{}{path}", server.url)).send().await.unwrap();
        }
    }
    assert_eq!(series().await, before);
}

#[tokio::test]
async fn the_table_the_alerts_and_the_dashboard_name_metrics_that_exist() {
    let (server, _folder) = server().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    server.run(&site).await;
    let plan = agent.take().await;
    plan.finish(Outcome::Finished, Some(false), "").await;
    let text = scrape(&server, TOKEN).await.1;
    let series: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for file in ["docs/metrics.md", "pkg/prometheus/alerts.yml", "pkg/grafana/scalr-server.json"] {
        let content = fs::read_to_string(tests::checkout(file)).unwrap();
        let names = names_in(&content);
        assert!(names.len() > 5, "{file}: {names:?}");
        for name in names {
            let exists = series.contains(name) || series.contains(format!("{name}_sum").as_str());
            assert!(exists, "{file} names {name}, which the server does not have");
        }
    }
    let table = fs::read_to_string(tests::checkout("docs/metrics.md")).unwrap();
    let documented = names_in(&table);
    for name in series {
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .unwrap_or(name);
        assert!(documented.contains(name), "{name} is not in docs/metrics.md");
    }
}

/// The metrics that a text names.
fn names_in(text: &str) -> BTreeSet<&str> {
    let is_of_name = |char: char| char.is_ascii_lowercase() || char == '_';
    text.match_indices("scalr_server_")
        .map(|(at, _)| text[at..].split(|char| !is_of_name(char)).next().unwrap_or_default())
        .collect()
}
