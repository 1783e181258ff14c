//! Messages of agents, each within its bounds.

use axum::Json;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};

use super::refusal::Refusal;
use protocol::limits::Message;

/// A message that an agent sent.
pub(super) struct Received<T>(pub(super) T);

impl<T: Message, S: Send + Sync> FromRequest<S> for Received<T> {
    type Rejection = Refusal;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, Refusal> {
        DefaultBodyLimit::max(T::MAX_BYTES).apply(&mut request);
        // In a box: a poll that is held keeps no place for it.
        let Json(message) = Box::pin(Json::<T>::from_request(request, state)).await?;
        message.check()?;
        Ok(Self(message))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use serde_json::{Value, json};

    use crate::in_process::{InProcess, Working, register};

    /// Each call with a message, and a message that it accepts.
    fn messages(server: &InProcess, working: &Working) -> Vec<(String, String, Value)> {
        let Working { session, task, task_token, .. } = working;
        let tasks = json!([{ "task_id": task, "attempt": 1, "state": "running" }]);
        let attempt = json!({ "attempt": 1 });
        let finish = json!({
            "attempt": 1, "outcome": "errored", "message": "it failed", "exit_code": 1,
            "oom_killed": false, "has_changes": null, "log_bytes": 0,
            "log_sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "unsaved_state": null,
        });
        let beat = json!({ "status": "errored", "error_message": "why", "tasks": tasks });
        [
            ("register".to_owned(), &server.pool_token, register()),
            ("poll".to_owned(), session, json!({ "free_slots": 0, "tasks": tasks })),
            ("heartbeat".to_owned(), session, beat),
            (format!("tasks/{task}/claim"), session, attempt.clone()),
            (format!("tasks/{task}/start"), task_token, attempt),
            (format!("tasks/{task}/finish"), task_token, finish),
        ]
        .map(|(call, token, message)| (call, token.clone(), message))
        .into()
    }

    #[tokio::test]
    async fn a_message_beyond_a_bound_is_refused_with_the_name_of_its_field() {
        let server = InProcess::new().await;
        let working = server.working().await;
        let mut tried = 0;
        for (call, token, message) in messages(&server, &working) {
            for (field, value) in message.as_object().unwrap() {
                let excessive = match value {
                    Value::String(_) => "x".repeat(512 * 1024).into(),
                    // The type is its only bound.
                    Value::Number(_) if field == "exit_code" => continue,
                    Value::Number(_) => json!(u64::MAX),
                    Value::Array(entries) => vec![entries[0].clone(); 10_000].into(),
                    _ => continue,
                };
                let mut message = message.clone();
                message[field] = excessive;
                let (status, problem) = server.tell(&call, &token, &message).await;
                assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{call} {field}: {problem}");
                let why = problem["error"].as_str().unwrap();
                assert!(why.contains(field.as_str()) && why.len() < 500, "{call} {field}: {why}");
                tried += 1;
            }
        }
        assert!(tried > 15, "{tried}");
        // None of them changed anything: each call is accepted as it should be.
        for (call, token, message) in messages(&server, &working) {
            if call != "register" && !call.ends_with("claim") {
                let (status, problem) = server.tell(&call, &token, &message).await;
                assert!(status.is_success(), "{call}: {status} {problem}");
            }
        }
    }

    #[tokio::test]
    async fn a_message_longer_than_any_is_refused_before_it_is_read() {
        let server = InProcess::new().await;
        let mut message = register();
        message["unknown"] = "x".repeat(3 * 1024 * 1024).into();
        let (status, _) = server.tell("register", &server.pool_token, &message).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
