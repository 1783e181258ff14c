//! Logs as Terraform reads them.

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
    let read = |offset: usize| {
        let call = server.http.get(format!("{link}?limit=65536&offset={offset}"));
        async move {
            let answer = call.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            answer.text().await.unwrap()
        }
    };
    assert_eq!(read(0).await, "\u{2}");
    for (number, piece) in ["h", "e", "l", "l", "o"].into_iter().enumerate() {
        let held = server.hold("/logs/{id}", read(1 + number)).await;
        plan.log(number as u64, piece).await;
        assert_eq!(held.await.unwrap(), piece, "a read whose time is over answers nothing");
    }

    let held = server.hold("/logs/{id}", read(6)).await;
    plan.finish(Outcome::Finished, Some(true), "hello").await;
    assert_eq!(held.await.unwrap(), "\u{3}");
    let ended = get(&format!("/runs/{}", id(&run))).await;
    assert_eq!(
        (&ended["status"], &ended["actions"]["is-confirmable"]),
        (&"planned".into(), &true.into())
    );
    assert_eq!(read(7).await, "", "there is no more");

    let (head, secret) = link.rsplit_once('/').unwrap();
    let forged = format!("{head}/{}", secret.replace(|c: char| c.is_ascii_digit(), "0"));
    let refused = server.http.get(forged).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
}
