//! What a page of a list costs the database.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
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

#[tokio::test]
async fn a_longer_page_needs_no_more_queries() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    add_rows(&server, &site, 0..3).await;
    let short = queries_of_lists(&server, &site, 3).await;
    add_rows(&server, &site, 3..60).await;
    let long = queries_of_lists(&server, &site, 60).await;
    assert_eq!(short, long);
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
            let before = queries(server, route).await;
            let list = server.get(&path).await;
            assert!(list["data"].as_array().unwrap().len() >= rows, "{path}: {list}");
            assert_eq!(list["included"].is_array(), path.contains("include"), "{path}: {list}");
            *count = queries(server, route).await - before;
            assert!(*count >= 2, "{path}: {count} queries, but a page takes at least two");
        }
        counts.push((route, of_route));
    }
    counts
}

/// How many queries the server has logged for GETs of a route. It logs one only
/// after its rows are read, so this waits until no more are added.
async fn queries(server: &Server, route: &str) -> usize {
    let request = format!("request{{method=GET route=\"/api/iacp/v3{route}\"}}");
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
