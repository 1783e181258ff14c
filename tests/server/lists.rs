//! What a page of a list costs the database.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode};
use serde_json::json;

use crate::harness::{Server, Site, state};

/// Each list's route, and what can belong to its rows. The list of accounts has
/// one row.
const LISTS: [(&str, &str); 9] = [
    ("/agent-pools", "account,agents,default-environments,environment,environments,workspaces"),
    ("/agent-pools/{id}/access-tokens", "agent-pool"),
    ("/agents", "pool"),
    ("/configuration-versions", "workspace"),
    ("/environments", "account,default-workspace-agent-pool"),
    ("/runs", "workspace,plan,apply,configuration-version"),
    ("/state-versions", "workspace"),
    ("/vars", "workspace"),
    ("/workspaces", "environment,agent-pool,configuration-version,current-run,latest-run"),
];

/// The lists of Terraform's API and the pages with lists: each route, and its path.
const OTHER_LISTS: [(&str, &str); 11] = [
    ("/api/v2/organizations", "/api/v2/organizations?page[size]=100"),
    (
        "/api/v2/organizations/{organization}/workspaces",
        "/api/v2/organizations/default/workspaces?page[size]=100",
    ),
    (
        "/api/v2/organizations/{organization}/runs/queue",
        "/api/v2/organizations/default/runs/queue?page[size]=100",
    ),
    ("/api/v2/workspaces/{id}/runs", "/api/v2/workspaces/WORKSPACE/runs?page[size]=100"),
    (
        "/api/v2/state-versions",
        "/api/v2/state-versions?page[size]=100&filter[organization][name]=default\
         &filter[workspace][name]=main",
    ),
    ("/pools", "/pools"),
    ("/pools/{id}", "/pools/POOL"),
    ("/runs", "/runs"),
    ("/workspaces", "/workspaces"),
    ("/workspaces/{id}", "/workspaces/WORKSPACE"),
    ("/workspaces/{id}/states", "/workspaces/WORKSPACE/states"),
];

#[tokio::test]
async fn a_longer_page_needs_no_more_queries() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let cookie = sign_in(&server).await;
    add_rows(&server, &site, 0..3).await;
    let short = queries_of_lists(&server, &site, 3).await;
    let others_short = queries_of_other_lists(&server, &site, &cookie).await;
    add_rows(&server, &site, 3..60).await;
    let long = queries_of_lists(&server, &site, 60).await;
    let others_long = queries_of_other_lists(&server, &site, &cookie).await;
    assert_eq!(short, long);
    assert_eq!(others_short, others_long);
}

/// Adds rows to every list, with related ones where there can be some.
async fn add_rows(server: &Server, site: &Site, numbers: std::ops::Range<u32>) {
    let workspace = [("workspace", site.workspace.as_str())];
    for number in numbers {
        let name = json!({ "name": format!("row-{number}") });
        let pool = server.create("/agent-pools", name.clone(), &[]).await;
        let pool = pool["id"].as_str().unwrap();
        let links = [("default-workspace-agent-pool", pool)];
        server.create("/environments", name.clone(), &links).await;
        let links = [("environment", site.environment.as_str()), ("agent-pool", pool)];
        server.create("/workspaces", name, &links).await;
        let tokens = format!("/agent-pools/{}/access-tokens", site.pool);
        server.create(&tokens, json!({}), &[]).await;
        server.create("/configuration-versions", json!({}), &workspace).await;
        let variable = json!({ "key": format!("row_{number}"), "category": "shell" });
        server.create("/vars", variable, &workspace).await;
        let state = BASE64_STANDARD.encode(state(number + 1, json!({})));
        server.create("/state-versions", json!({ "state": state }), &workspace).await;
        server.agent(site, &format!("row-{number}")).await;
        server.run(site).await;
    }
}

/// How many queries each list makes, without and with `include`.
async fn queries_of_lists(
    server: &Server,
    site: &Site,
    rows: usize,
) -> Vec<(&'static str, [usize; 2])> {
    let mut counts = Vec::new();
    for (route, related) in LISTS {
        let path = route.replace("{id}", &site.pool);
        let plain = format!("{path}?page[size]=100");
        let including = format!("{plain}&include={related}&sort=-created-at");
        let mut of_route = [0; 2];
        for (count, path) in of_route.iter_mut().zip([plain, including]) {
            let route = format!("/api/iacp/v3{route}");
            let before = queries(server, &route).await;
            let list = server.get(&path).await;
            assert!(list["data"].as_array().unwrap().len() >= rows, "{path}: {list}");
            assert_eq!(list["included"].is_array(), path.contains("include"), "{path}: {list}");
            *count = queries(server, &route).await - before;
            assert!(*count >= 2, "{path}: {count} queries, but a page takes at least two");
        }
        counts.push((route, of_route));
    }
    counts
}

/// How many queries each list of Terraform's API and each page with a list makes.
async fn queries_of_other_lists(
    server: &Server,
    site: &Site,
    cookie: &str,
) -> Vec<(&'static str, usize)> {
    let mut counts = Vec::new();
    for (route, path) in OTHER_LISTS {
        let path = path.replace("WORKSPACE", &site.workspace).replace("POOL", &site.pool);
        let before = queries(server, route).await;
        let request = server.http.get(format!("{}{path}", server.url));
        let request = request.bearer_auth(&server.admin).header("cookie", cookie);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let count = queries(server, route).await - before;
        assert!(count >= 2, "{path}: {count} queries, but a page takes at least two");
        counts.push((route, count));
    }
    counts
}

/// Signs in to the pages with the admin's token; the session's cookie.
pub(crate) async fn sign_in(server: &Server) -> String {
    let url = format!("{}/sign-in", server.url);
    let ca = std::fs::read(server.data.join("tls/ca.pem")).unwrap();
    let ca = Certificate::from_pem(&ca).unwrap();
    let http = Client::builder().tls_certs_only([ca]).no_proxy().redirect(Policy::none());
    let http = http.build().unwrap();
    let cookie = |answer: &Response| {
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        cookie.split(';').next().unwrap().to_owned()
    };
    let form = http.get(&url).send().await.unwrap();
    let visitor = cookie(&form);
    let html = form.text().await.unwrap();
    let form_token = html.split("name=\"form-token\" value=\"").nth(1).unwrap();
    let form_token = form_token.split('"').next().unwrap();
    let fields = format!("form-token={form_token}&token={}&next=/account", server.admin);
    let request = http.post(&url).header("cookie", visitor).body(fields);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    cookie(&request.send().await.unwrap())
}

/// How many queries the server has logged for GETs of a route. It logs one only
/// after its rows are read, so this waits until no more are added.
async fn queries(server: &Server, route: &str) -> usize {
    let request = format!("request{{method=GET route=\"{route}\"}}");
    let mut last = None;
    loop {
        let log = server.log();
        // Writes are left out: a use of the token is remembered once a minute.
        let is_query = |line: &&str| line.contains(&request) && line.contains("summary=\"SELECT");
        let count = log.lines().filter(is_query).count();
        if last == Some(count) {
            return count;
        }
        last = Some(count);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
