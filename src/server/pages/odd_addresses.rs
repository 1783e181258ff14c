//! Addresses as people mistype them: each gets a page that says what is wrong with it.

use axum::http::{Method, StatusCode};
use serde_json::Value;

use super::browser::Browser;
use crate::in_process::InProcess;

#[tokio::test]
async fn an_address_that_is_wrong_gets_a_page_that_says_so() {
    let server = InProcess::new().await;
    let browser = Browser::new(&server).await;
    let (_, run) = server.run().await;
    let pools = server.api(Method::GET, "/agent-pools", Value::Null).await;
    let pool = pools["data"][0]["id"].as_str().unwrap();
    let workspace = &server.workspace;
    let bad = StatusCode::BAD_REQUEST;
    let mut wrong = Vec::new();
    for list in [
        "/runs".to_owned(),
        "/workspaces".to_owned(),
        "/hooks".to_owned(),
        "/webhooks".to_owned(),
        format!("/workspaces/{workspace}"),
        format!("/workspaces/{workspace}/states"),
    ] {
        for (query, status, text) in [
            ("page=-1", bad, "the first page is 1"),
            ("page=0", bad, "the first page is 1"),
            ("page=x", bad, "invalid digit"),
            ("page=1&page=2", bad, "duplicate field"),
            ("colour=red", bad, "unknown field"),
            ("page=99999999999999999999", bad, "number too large"),
            ("page=9223372036854775807", StatusCode::NOT_FOUND, "no such page"),
            ("page=2", StatusCode::NOT_FOUND, "no such page"),
        ] {
            wrong.push((format!("{list}?{query}"), status, text));
        }
    }
    let long = "x".repeat(60_000);
    wrong.extend([
        ("/runs?status=done".to_owned(), bad, "no run has the status done"),
        ("/runs?pool=apool-none".to_owned(), StatusCode::NOT_FOUND, "no such pool"),
        ("/workspaces?environment=x".to_owned(), StatusCode::NOT_FOUND, "no such environment"),
        (format!("/pools/{pool}?span=year"), bad, "unknown variant"),
        (format!("/runs/{run}?from=-1"), bad, "invalid digit"),
        (format!("/runs?{long}"), bad, "Correct what follows"),
        (format!("/runs/{run}?q={long}"), StatusCode::CONFLICT, "at most"),
    ]);
    for path in
        ["/pools/x", "/pools/%ff", "/runs/%00", "/workspaces/../x", "/webhooks/x", "/hooks/x"]
    {
        wrong.push((path.to_owned(), StatusCode::NOT_FOUND, "There is no such"));
    }
    for (path, wanted, text) in wrong {
        let (status, page) = browser.get(&path).await;
        let shown: String = path.chars().take(100).collect();
        assert_eq!(status, wanted, "{shown}: {page}");
        assert!(page.contains("<h1>") && page.contains(text), "{shown}: {page}");
        assert!(page.len() < 20_000, "{shown}: it repeats what was asked");
    }
    for (method, path) in
        [(Method::DELETE, "/pools"), (Method::PUT, "/runs"), (Method::POST, "/workspaces")]
    {
        let (status, page) = browser.send(method, path, String::new()).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert!(page.contains("it takes no forms"), "{path}: {page}");
    }
    // What the pages themselves link to.
    for path in [
        format!("/runs?workspace=&status=planned&pool={pool}&page=1"),
        "/workspaces?q=main&environment=".to_owned(),
        format!("/pools/{pool}?span=week"),
        format!("/runs/{run}?phase=apply&from=1&q="),
    ] {
        browser.page(&path).await;
    }
}
