//! The agent registers with its pool, and once more whenever the server asks it to.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use backon::{ExponentialBuilder, Retryable as _};
use reqwest::StatusCode;
use sd_notify::NotifyState;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Service, notify};
use crate::client::CallError;
use crate::connection::State;
use crate::engine::is_in_container;
use crate::host_memory;
use cli::Failure;
use config::Config;
use host::machine::Machine;
use host::os::Os;
use protocol::{AgentMemory, Code, Identity, LEVEL, Register};

/// How long the first registration is tried before the agent gives up, to be
/// started again by systemd, which then tells that it failed.
const FIRST_REGISTRATION: Duration = Duration::from_secs(60);

impl Service {
    /// Registers for the first time. Without a running task it is given up
    /// after a while, unless it only waits for its name.
    pub(super) async fn register_first(&self, has_tasks: bool) -> Result<()> {
        let begun = Instant::now();
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(10))
            .with_jitter()
            .without_max_times();
        (|| self.register_once())
            .retry(pauses)
            .when(|error| {
                is_name_taken(error)
                    || matches!(error, CallError::Away(_))
                        && (has_tasks || begun.elapsed() < FIRST_REGISTRATION)
            })
            .notify(|error, _| {
                let status = format!("cannot register: {error}");
                // First: who reads the log may ask `status`.
                match is_name_taken(error) {
                    true => {
                        self.name_taken(error);
                        // Not ready; from systemd 236 on, it is waited for all the same.
                        notify(&[NotifyState::ExtendTimeoutUsec(60_000_000)]);
                    }
                    false => {
                        self.context.connection.away(status.clone());
                        warn!("{status}");
                    }
                }
                notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            })
            .await
            .map_err(|error| self.explain(error))
    }

    pub(super) async fn register_once(&self) -> Result<(), CallError> {
        let context = &self.context;
        let registered = context.client.register(&context.config.token, &self.register).await?;
        context.set_intervals(registered.intervals);
        info!(agent = registered.agent_id, pool = registered.pool_id, "registered");
        context.connection.registered(&registered);
        context.connection.answered(self.status(), None);
        // The ids of a later registration are the same.
        let _ = context.registered.set(registered);
        Ok(())
    }

    /// Another machine has the agent's name; it may be given up.
    pub(super) fn name_taken(&self, error: &CallError) {
        self.context.connection.answered(State::Refused, Some(error.to_string()));
        warn!("cannot register, trying again: {error}");
    }

    /// An error of a call that concerns the whole agent.
    pub(super) fn explain(&self, error: CallError) -> anyhow::Error {
        let url = &self.context.config.url;
        match &error {
            CallError::Refused { why, .. } => {
                self.context.connection.answered(State::Refused, Some(why.clone()));
            }
            error => self.context.connection.away(error.to_string()),
        }
        match error {
            CallError::Refused {
                status: StatusCode::UNAUTHORIZED,
                why,
                code: Some(Code::NameTaken),
                ..
            } => Failure::NotPermitted.because(format!(
                "{url} refuses the agent: {why}, with `scalr-agent configure --agent-name NAME`"
            )),
            CallError::Refused { status: StatusCode::UNAUTHORIZED, why, .. } => {
                Failure::NotPermitted.because(format!(
                    "{url} refuses the agent: {why}. Make a new token in the pool and give it with `scalr-agent configure --token-file FILE`"
                ))
            }
            CallError::Refused { status, why, .. } => {
                Failure::Usage.because(format!("{url} refuses the agent: {why} ({status})"))
            }
            CallError::Away(error) | CallError::Here(error) => error.context("cannot register"),
            CallError::FileRefused(why) => anyhow!("cannot register: {why}"),
        }
    }
}

/// Whether another machine has the agent's name.
pub(super) fn is_name_taken(error: &CallError) -> bool {
    matches!(error, CallError::Refused { code: Some(Code::NameTaken), .. })
}

/// How the agent introduces itself.
pub(super) fn introduction(config: &Config, identity: Identity) -> Result<Register> {
    let name = match &config.agent_name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()
            .context("cannot ask for the host's name")?
            .into_string()
            .map_err(|_| anyhow!("the host's name is not UTF-8; set agent_name"))?,
    };
    let os = Os::of(&Machine::at("/")).map_or_else(
        |_| "linux".to_owned(),
        |os| format!("{}_{}", os.id, os.version.split('.').next().unwrap_or_default()),
    );
    Ok(Register {
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: os.trim_end_matches('_').to_owned(),
        driver: "docker".to_owned(),
        runtime: if is_in_container() { "docker" } else { "vm" }.to_owned(),
        platform: match std::env::consts::ARCH {
            "x86_64" => "linux_amd64".to_owned(),
            "aarch64" => "linux_arm64".to_owned(),
            other => format!("linux_{other}"),
        },
        concurrency: config.concurrency,
        identity: Some(identity),
        memory: host_memory::total()
            .ok()
            .map(|host_megabytes| AgentMemory { host_megabytes, run_megabytes: config.memory }),
        level: LEVEL,
    })
}
