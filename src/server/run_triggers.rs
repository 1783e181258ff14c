//! Starts the runs of triggers, in the order in which the runs before them were applied.

use anyhow::Result;

use crate::app::App;
use crate::started_runs::start;
use crate::store::run::Source;
use crate::store::run_trigger;

/// Starts what is due.
pub(crate) async fn sweep(app: &App) -> Result<()> {
    let mut db = app.scheduler.store.read().await?;
    let due = run_trigger::due(&mut db).await?;
    drop(db);
    for triggered in due {
        // First: rather no run than one for each time that the server ends here.
        let mut tx = app.scheduler.store.write().await?;
        run_trigger::done(&mut tx, &triggered).await?;
        tx.commit().await?;
        let message = format!(
            "Triggered by the run {} of the workspace {}.",
            triggered.upstream_run_id, triggered.upstream_name
        );
        start(app, Source::RunTrigger, &triggered.downstream_id, false, &message).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::in_process::InProcess;
    use crate::store::run;

    async fn trigger(server: &InProcess, upstream: &str, downstream: &str) -> (StatusCode, Value) {
        let related = |id: &str| json!({ "data": { "type": "workspaces", "id": id } });
        let relationships =
            json!({ "upstream": related(upstream), "downstream": related(downstream) });
        let body = json!({ "data": { "relationships": relationships } }).to_string();
        let path = "/api/iacp/v3/run-triggers";
        let (status, answer) = server.call(Method::POST, path, &server.admin, &[], body).await;
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    async fn runs(server: &InProcess, workspace: &str) -> Vec<Value> {
        let path = format!("/runs?filter[workspace]={workspace}");
        let listed = server.api(Method::GET, &path, Value::Null).await;
        listed["data"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn an_applied_run_starts_one_in_each_downstream_workspace_once() {
        let server = InProcess::new().await;
        let ((upstream, applied), (downstream, earlier)) = (server.run().await, server.run().await);
        server.api(Method::POST, &format!("/runs/{earlier}/actions/cancel"), json!({})).await;
        let (status, answer) = trigger(&server, &upstream, &downstream).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let id = answer["data"]["id"].as_str().unwrap().to_owned();
        assert_eq!(answer["data"]["relationships"]["upstream"]["data"]["id"], upstream);

        let store = &server.app.scheduler.store;
        let mut tx = store.write().await.unwrap();
        let applied = run::find(&mut tx, &applied).await.unwrap().unwrap();
        run_trigger::fire(&mut tx, &applied).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..2 {
            sweep(&server.app).await.unwrap();
            let runs = runs(&server, &downstream).await;
            assert_eq!(runs.len(), 2, "{runs:?}");
            let triggered = runs.iter().find(|run| run["id"] != earlier.as_str()).unwrap();
            assert_eq!(triggered["attributes"]["source"], "run-trigger");
            let message = triggered["attributes"]["message"].as_str().unwrap();
            assert!(message.contains(&applied.id), "{message}");
        }
        server.api(Method::DELETE, &format!("/run-triggers/{id}"), Value::Null).await;
        let mut tx = store.write().await.unwrap();
        run_trigger::fire(&mut tx, &applied).await.unwrap();
        tx.commit().await.unwrap();
        sweep(&server.app).await.unwrap();
        assert_eq!(runs(&server, &downstream).await.len(), 2);
    }

    #[tokio::test]
    async fn triggers_that_would_go_round_are_refused() {
        let server = InProcess::new().await;
        let mut workspaces = Vec::new();
        for _ in 0..3 {
            workspaces.push(server.run().await.0);
        }
        let [a, b, c] = &workspaces[..] else { unreachable!() };
        assert_eq!(trigger(&server, a, b).await.0, StatusCode::CREATED);
        assert_eq!(trigger(&server, b, c).await.0, StatusCode::CREATED);
        assert_eq!(trigger(&server, a, c).await.0, StatusCode::CREATED);
        for (upstream, downstream) in [(c, a), (b, a), (a, a), (a, b)] {
            let (status, answer) = trigger(&server, upstream, downstream).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        }
        assert_eq!(trigger(&server, a, "ws-none").await.0, StatusCode::NOT_FOUND);
    }
}
