//! What went wrong with a run: what kind of thing it is, and where to do something about it.

use serde::Serialize;

use crate::store::run::{Run, Status};
use crate::store::task::{State, Task};

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Trouble {
    title: &'static str,
    /// As the agent or the server says it, with what to do.
    text: String,
    remedy: Option<Remedy>,
}

/// A page where something can be done about it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Remedy {
    WorkspaceSettings,
    /// The agents of the pool.
    Pool,
}

/// What the texts of agents and of the server have in them, the surest first.
const KINDS: [(&str, &str, Remedy); 8] = [
    ("MB of memory", "Out of memory", Remedy::Pool),
    ("on the engine's disk", "Disk limit reached", Remedy::Pool),
    ("at its time limit", "Time limit reached", Remedy::Pool),
    ("time limit of", "Time limit reached", Remedy::WorkspaceSettings),
    ("is not on this agent's engine", "The image is missing", Remedy::WorkspaceSettings),
    ("needs a Terraform version", "The image is unknown", Remedy::WorkspaceSettings),
    ("the plan used the image", "The plan's image is missing", Remedy::Pool),
    ("never ended, so it is not tried again", "Its agents were lost", Remedy::Pool),
];

/// None: nothing went wrong.
pub(super) fn of(run: &Run, plan: &Task, apply: &Task) -> Option<Trouble> {
    let tasks = [apply, plan];
    let is_unreachable = tasks.iter().any(|task| task.state == State::Unreachable);
    let text = match &run.error_message {
        Some(text) => text.clone(),
        None if is_unreachable || run.status == Status::Errored => {
            tasks.iter().find_map(|task| task.message.clone()).unwrap_or_default()
        }
        None => return None,
    };
    let known = KINDS.iter().find(|(phrase, ..)| text.contains(phrase));
    let (title, remedy) = match known {
        _ if tasks.iter().any(|task| task.oom_killed) => ("Out of memory", Some(Remedy::Pool)),
        _ if is_unreachable => ("The agent is unreachable", Some(Remedy::Pool)),
        _ if run.status == Status::Canceled => ("Canceled", None),
        Some((_, title, remedy)) => (*title, Some(remedy.clone())),
        None if apply.started_at.is_some() => ("The apply failed", None),
        None if plan.started_at.is_some() => ("The plan failed", None),
        None => ("The run did not start", None),
    };
    Some(Trouble { title, text, remedy })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::in_process::InProcess;
    use crate::pages::browser::Browser;

    #[tokio::test]
    async fn the_page_of_a_run_says_what_kind_of_thing_went_wrong_and_where_to_change_it() {
        for (message, oom_killed, title, page) in [
            (
                "Error: the kernel killed a process of the run, which used more than its 64 MB of \
                 memory.",
                true,
                "Out of memory",
                "/pools/",
            ),
            (
                "Error: the run was interrupted because it used more than 80 % of its 64 MB of \
                 memory.",
                false,
                "Out of memory",
                "/pools/",
            ),
            (
                "image nowhere:1 is not on this agent's engine and can't be pulled: no such host.",
                false,
                "The image is missing",
                "/settings",
            ),
            (
                "Error: the run was interrupted for what it had on the engine's disk, where a run \
                 may have 64 MB.",
                false,
                "Disk limit reached",
                "/pools/",
            ),
            (
                "Error: the plan was interrupted because it reached its time limit of 60 s. To \
                 allow more time, set the workspace's plan-timeout-seconds.",
                false,
                "Time limit reached",
                "/settings",
            ),
            ("Error: something else.", false, "The plan failed", ""),
        ] {
            let server = InProcess::new().await;
            let working = server.working().await;
            let finish = json!({
                "attempt": 1, "outcome": "errored", "message": message, "exit_code": 1,
                "oom_killed": oom_killed, "has_changes": null, "log_bytes": 0,
                "log_sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            });
            let call = format!("tasks/{}/finish", working.task);
            let (status, answer) = server.tell(&call, &working.task_token, &finish).await;
            assert!(status.is_success(), "{answer}");
            let runs = server.api(axum::http::Method::GET, "/runs", json!(null)).await;
            let run = runs["data"][0]["id"].as_str().unwrap();
            let html = Browser::new(&server).await.page(&format!("/runs/{run}")).await;
            let alert = html.split("role=\"alert\"").nth(1).unwrap();
            let alert = alert.split("</div></div>").next().unwrap();
            assert!(alert.contains(&format!("<strong>{title}</strong>")), "{alert}");
            assert_eq!(alert.contains("<a href="), !page.is_empty(), "{alert}");
            assert!(alert.contains(page), "{alert}");
        }
    }
}
