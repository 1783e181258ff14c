//! Logs as Terraform reads them.

use std::time::{Duration, Instant};

use protocol::Outcome;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::harness::{Server, id, related};

#[tokio::test]
async fn a_held_read_gets_each_piece_at_once_and_the_end_when_the_run_can_be_confirmed() {
    let server = Server::start().await;
    let site = server.pool_and_workspace().await;
    let agent = server.agent(&site, "one").await;
    let run = server.run(&site).await;
    let plan = agent.take().await;
    let get = async |path: &str| {
        let request = server.http.request(Method::GET, format!("{}/api/v2{path}", server.url));
        let answer = request.bearer_auth(&server.admin).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["data"]["attributes"].clone()
    };
    let attributes = get(&format!("/plans/{}", related(&run, "plan"))).await;
    let link = attributes["log-read-url"].as_str().unwrap().to_owned();
    let read = async |offset: usize| {
        let url = format!("{link}?limit=65536&offset={offset}");
        let answer = server.http.get(url).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        (answer.text().await.unwrap(), Instant::now())
    };
    assert_eq!(read(0).await.0, "\u{2}");
    let mut lags = Vec::new();
    for (number, piece) in ["h", "e", "l", "l", "o"].into_iter().enumerate() {
        let write = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            plan.log(number as u64, piece).await;
            Instant::now()
        };
        let ((text, arrived), written) = tokio::join!(read(1 + number), write);
        assert_eq!(text, piece);
        lags.push(arrived.saturating_duration_since(written));
    }
    lags.sort();
    println!("lags: {lags:?}");
    // What else the machine does holds up a single one.
    assert!(lags[2] < Duration::from_millis(100), "the middle one of {lags:?}");

    let end = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        plan.finish(Outcome::Finished, Some(true), "hello").await
    };
    let confirmable = async {
        let (text, _) = read(6).await;
        let run = get(&format!("/runs/{}", id(&run))).await;
        (text, run["status"].clone(), run["actions"]["is-confirmable"].clone())
    };
    let ((text, status, is_confirmable), _) = tokio::join!(confirmable, end);
    assert_eq!((text.as_str(), status, is_confirmable), ("\u{3}", "planned".into(), true.into()));
    assert_eq!(read(7).await.0, "", "there is no more");

    let (head, secret) = link.rsplit_once('/').unwrap();
    let forged = format!("{head}/{}", secret.replace(|c: char| c.is_ascii_digit(), "0"));
    let refused = server.http.get(forged).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
}
