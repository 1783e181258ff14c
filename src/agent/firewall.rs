//! The firewall rules of runs: verified before each task and while tasks run. The
//! agent takes no task without them.
//!
//! The agent has no rights to look at the rules. `scalr-agent-setup network verify`
//! has, and puts up what is missing: systemd starts it for whoever connects to
//! [`NETWORK_SOCKET`], or the engine does, as a container of the agent's own image.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tracing::{error, info, warn};

use crate::engine::Engine;
use config::layout::NETWORK_SOCKET;
use config::{Config, proxy};
use host::fence::Answer;

/// How long a verification may take. It waits for other programs that change rules.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longer than any answer, in bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// The program that verifies, in the agent's image.
const PROGRAM: [&str; 4] =
    ["/usr/bin/scalr-agent-setup", "network", "verify", "--from-environment"];

/// Whether the rules are up, as far as this agent knows.
#[derive(Debug)]
pub(crate) struct Firewall {
    verifier: Verifier,
    known: Mutex<Known>,
    /// Held during a verification.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
enum Verifier {
    /// The service behind this socket.
    Service(PathBuf),
    /// A container with these variables.
    Container(Vec<String>),
    /// Nobody: runs have no rules.
    None,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether the rules have been up since this agent started.
    were_up: bool,
    /// Why they are not.
    failure: Option<String>,
    /// When they were last found or put up.
    good_at: Option<Instant>,
}

impl Firewall {
    /// As the settings say.
    pub(crate) fn new(config: &Config, proxy: &[(String, String)]) -> Self {
        Self::with(match config.firewall {
            config::Firewall::Service => Verifier::Service(NETWORK_SOCKET.into()),
            config::Firewall::Container => Verifier::Container(environment(config, proxy)),
            config::Firewall::None => {
                warn!(
                    "runs have no firewall rules (firewall = none): they reach what this host reaches"
                );
                Verifier::None
            }
        })
    }

    fn with(verifier: Verifier) -> Self {
        let failure = (!matches!(verifier, Verifier::None))
            .then(|| "the firewall rules of runs have not been verified yet".to_owned());
        Self {
            verifier,
            known: Mutex::new(Known { failure, ..Known::default() }),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Why no task can be taken, as of the last verification.
    pub(crate) fn failure(&self) -> Option<String> {
        self.known().failure.clone()
    }

    /// Whether the rules were up at the last verification, and that was less than `age` ago.
    pub(crate) fn was_up_within(&self, age: Duration) -> bool {
        let known = self.known();
        known.failure.is_none() && known.good_at.is_some_and(|at| at.elapsed() < age)
    }

    /// Has the rules verified, and those that are missing put up; whether all are
    /// up. What has changed since the last time is logged.
    pub(crate) async fn verify(&self, engine: &Engine) -> bool {
        if matches!(self.verifier, Verifier::None) {
            return true;
        }
        let _turn = self.turn.lock().await;
        let answer = match tokio::time::timeout(PATIENCE, self.ask(engine)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Failed { why: format!("{error:#}") },
            Err(_) => Answer::Failed { why: format!("no answer in {} s", PATIENCE.as_secs()) },
        };
        self.note(answer)
    }

    fn note(&self, answer: Answer) -> bool {
        let mut known = self.known();
        let failure = match answer {
            Answer::Failed { why } => {
                Some(format!("cannot verify the firewall rules of runs: {why}"))
            }
            Answer::Repaired { chains } if known.were_up && known.failure.is_none() => {
                warn!(chains, "firewall rules of runs were missing or out of date: put up again");
                None
            }
            Answer::Good | Answer::Repaired { .. } => None,
        };
        match &failure {
            Some(failure) if known.failure.as_ref() != Some(failure) => {
                error!("{failure}; no tasks are taken");
            }
            None if known.failure.is_some() => info!("the firewall rules of runs are up"),
            _ => {}
        }
        known.were_up |= failure.is_none();
        known.failure = failure;
        let are_up = known.failure.is_none();
        if are_up {
            known.good_at = Some(Instant::now());
        }
        are_up
    }

    async fn ask(&self, engine: &Engine) -> Result<Answer> {
        let said = match &self.verifier {
            Verifier::Service(socket) => ask_service(socket).await?,
            Verifier::Container(environment) => {
                engine.run_in_host_network(&PROGRAM, environment.clone()).await?
            }
            Verifier::None => return Ok(Answer::Good),
        };
        parse(&said)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it holds the firewall's state")
    }
}

async fn ask_service(socket: &Path) -> Result<String> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "cannot connect to {}; run `systemctl start scalr-agent-network.socket`",
            socket.display()
        )
    })?;
    let mut said = String::new();
    stream
        .take(LONGEST_ANSWER)
        .read_to_string(&mut said)
        .await
        .context("cannot read the answer of scalr-agent-network")?;
    Ok(said)
}

/// The answer is a line of its own among what the program printed.
fn parse(said: &str) -> Result<Answer> {
    let answer = said.lines().find_map(|line| serde_json::from_str(line).ok());
    match answer {
        Some(answer) => Ok(answer),
        None if said.trim().is_empty() => {
            bail!("scalr-agent-setup gave no answer; look at `journalctl -t scalr-agent-network`")
        }
        None => bail!("scalr-agent-setup: {}", said.trim()),
    }
}

/// The settings that the rules depend on. A password is of no use to them.
fn environment(config: &Config, proxies: &[(String, String)]) -> Vec<String> {
    let settings = [
        format!("SCALR_URL={}", proxy::masked(config.url.as_str())),
        format!("SCALR_AGENT_ENGINE=unix://{}", config.engine.display()),
    ];
    let masked =
        |(name, value): &(String, String)| format!("{name}={}", proxy::masked_value(value));
    settings.into_iter().chain(proxies.iter().map(masked)).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::UnixListener;

    use super::*;

    fn failed(why: &str) -> Answer {
        Answer::Failed { why: why.to_owned() }
    }

    #[test]
    fn no_task_is_taken_before_the_first_verification_and_after_one_that_failed() {
        let firewall = Firewall::with(Verifier::Service(PathBuf::new()));
        assert!(firewall.failure().unwrap().contains("not been verified yet"));
        let long = Duration::from_secs(3600);
        assert!(!firewall.was_up_within(long));
        assert!(firewall.note(Answer::Repaired { chains: "INPUT".to_owned() }));
        assert_eq!(firewall.failure(), None);
        assert!(firewall.was_up_within(long) && !firewall.was_up_within(Duration::ZERO));
        assert!(!firewall.note(failed("no iptables")));
        assert!(!firewall.was_up_within(long));
        let failure = firewall.failure().unwrap();
        assert_eq!(failure, "cannot verify the firewall rules of runs: no iptables");
        assert!(firewall.note(Answer::Good));
        assert_eq!(firewall.failure(), None);
    }

    #[test]
    fn without_a_firewall_tasks_are_taken() {
        assert_eq!(Firewall::with(Verifier::None).failure(), None);
    }

    #[test]
    fn an_answer_that_is_none_is_quoted() {
        assert_eq!(parse("warning: x\n{\"result\":\"good\"}\n").unwrap(), Answer::Good);
        assert!(parse("exec format error").unwrap_err().to_string().contains("exec format"));
        assert!(parse("").unwrap_err().to_string().contains("journalctl"));
    }

    #[tokio::test]
    async fn the_service_is_asked_by_its_socket() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("network.sock");
        let error = ask_service(&socket).await.unwrap_err().to_string();
        assert!(error.contains("systemctl start scalr-agent-network.socket"), "{error}");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"{\"result\":\"failed\",\"why\":\"x\"}\n").await.unwrap();
        });
        assert_eq!(parse(&ask_service(&socket).await.unwrap()).unwrap(), failed("x"));
    }
}
