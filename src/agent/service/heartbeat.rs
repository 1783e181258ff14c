//! Heartbeats: that the agent is there, and how it is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reqwest::StatusCode;
use sd_notify::NotifyState;
use tracing::{info, warn};

use super::registration::is_name_taken;
use super::{Service, notify};
use crate::client::CallError;
use protocol::{Heartbeat, Status};

/// How long the engine may take to answer before it counts as failed.
const ENGINE_ANSWERS: Duration = Duration::from_secs(3);

impl Service {
    /// Sends heartbeats; ends only when the server refuses the agent.
    pub(super) async fn beat(self: Arc<Self>) -> anyhow::Error {
        // What the server knows: from a registration, that all is well.
        let idle = Heartbeat { status: Status::Idle, error_message: None, tasks: Vec::new() };
        let mut known = Some(idle.clone());
        loop {
            let seconds = self.context.intervals().heartbeat_seconds;
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            let engine_error = self.engine_error().await;
            let answers = engine_error.is_none();
            if !self.engine_answers.swap(answers, Ordering::SeqCst) && answers {
                self.freed.notify_one();
            }
            let error_message = engine_error.or_else(|| self.context.firewall.failure());
            let status = match error_message {
                Some(_) => Status::Errored,
                None => self.status(),
            };
            let (tasks, message) = (self.statuses(), error_message.clone());
            let beat = Heartbeat { status, error_message: message, tasks };
            // The watchdog is for an agent that hangs. One whose server is away
            // has to stay, to look after its runs.
            notify(&[NotifyState::Watchdog]);
            if beat == idle && known.as_ref() == Some(&idle) && self.is_poll_a_heartbeat() {
                // So it needs one connection instead of two.
                continue;
            }
            let answer = self.context.client.heartbeat(beat.clone()).await;
            known = answer.is_ok().then_some(beat);
            if answer.is_err() {
                self.context.telemetry.heartbeat_failed();
            }
            match answer {
                Ok(()) => self.context.connection.answered(status, error_message),
                Err(CallError::Refused { status: StatusCode::CONFLICT, why, .. }) => {
                    info!("registering again: {why}");
                    notify(&[NotifyState::Watchdog]);
                    if let Err(error) = self.register_once().await {
                        match error {
                            error if is_name_taken(&error) => self.name_taken(&error),
                            CallError::Away(error) => {
                                self.context.connection.away(format!("{error:#}"));
                                warn!("cannot register again: {error:#}");
                            }
                            other => return self.explain(other),
                        }
                    }
                }
                Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) => {
                    return self.explain(error);
                }
                Err(error) => {
                    self.context.connection.away(error.to_string());
                    warn!("heartbeat failed: {error}");
                }
            }
        }
    }

    async fn engine_error(&self) -> Option<String> {
        // An engine that hangs must not keep us from sending a heartbeat.
        match tokio::time::timeout(ENGINE_ANSWERS, self.context.engine.ping()).await {
            Ok(answer) => answer.err().map(|error| format!("{error:#}")),
            Err(_) => {
                Some(format!("the engine has not answered for {} s", ENGINE_ANSWERS.as_secs()))
            }
        }
    }

    pub(super) fn status(&self) -> Status {
        if self.draining.load(Ordering::SeqCst) {
            Status::Draining
        } else if self.tasks().is_empty() {
            Status::Idle
        } else {
            Status::Busy
        }
    }
}
