//! Many simulated agents, and what they measure.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;

use crate::agent::Agent;
use crate::site::Site;

/// Open files besides those of agents.
const OTHER_FILES: u64 = 512;

/// What an agent does with a task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// How long it runs.
    pub think: Duration,
    /// How long its log is, in bytes.
    pub log: usize,
}

/// Agents; they end with this.
pub struct Fleet {
    shared: Arc<Shared>,
    agents: Vec<AbortOnDropHandle<()>>,
}

pub(crate) struct Shared {
    pub url: String,
    pub pool_token: String,
    pub tls: ClientConfig,
    pub work: Work,
    pub registered: AtomicUsize,
    /// How often the server was started again.
    pub life: AtomicUsize,
    /// How many agents have had an answer in this life.
    pub back: AtomicUsize,
    runs: Mutex<HashMap<String, Run>>,
    failures: Mutex<Vec<String>>,
}

#[derive(Default)]
struct Run {
    queued: Option<Instant>,
    offered: Option<Instant>,
    has_ended: bool,
}

impl Shared {
    pub(crate) fn claimed(&self, run: &str, offered: Instant) {
        self.runs.lock().unwrap().entry(run.to_owned()).or_default().offered = Some(offered);
    }

    pub(crate) fn ended(&self, run: &str) {
        self.runs.lock().unwrap().entry(run.to_owned()).or_default().has_ended = true;
    }

    pub(crate) fn failed(&self, why: &impl Display) {
        self.failures.lock().unwrap().push(format!("{why:#}"));
    }
}

impl Fleet {
    /// Agents for the pool of a server, which register at once.
    ///
    /// # Errors
    /// There may not be as many connections, or the server's certificate can't be used.
    pub fn start(site: &Site, agents: u32, work: Work) -> Result<Self> {
        raise_file_limit(agents)?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&site.authority) {
            roots.add(certificate?)?;
        }
        let mut tls = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // Agents are processes of their own and share no tickets.
        tls.resumption = rustls::client::Resumption::disabled();
        let shared = Arc::new(Shared {
            url: site.url.clone(),
            pool_token: site.pool_token.clone(),
            tls,
            work,
            registered: AtomicUsize::new(0),
            life: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
            runs: Mutex::default(),
            failures: Mutex::default(),
        });
        let agents = (0..agents)
            .map(|number| {
                let agent = Agent::new(Arc::clone(&shared), number)?;
                Ok(AbortOnDropHandle::new(tokio::spawn(agent.live())))
            })
            .collect::<Result<_>>()?;
        Ok(Self { shared, agents })
    }

    /// Waits until all agents are registered.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn registered(&self, patience: Duration) -> Result<()> {
        self.reach("registered", &self.shared.registered, self.agents.len(), patience).await
    }

    /// The server is about to be started again: agents count as back once it has answered.
    pub fn restarting(&self) {
        self.shared.back.store(0, Ordering::Relaxed);
        self.shared.life.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until all agents are back.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn back(&self, patience: Duration) -> Result<()> {
        self.reach("back", &self.shared.back, self.agents.len(), patience).await
    }

    /// A run was queued at this time.
    pub fn queued(&self, run: &str, at: Instant) {
        self.shared.runs.lock().unwrap().entry(run.to_owned()).or_default().queued = Some(at);
    }

    /// Whether an agent has ended a run's plan.
    pub fn has_ended(&self, run: &str) -> bool {
        self.shared.runs.lock().unwrap().get(run).is_some_and(|run| run.has_ended)
    }

    /// How many runs have ended.
    pub fn ended(&self) -> usize {
        self.shared.runs.lock().unwrap().values().filter(|run| run.has_ended).count()
    }

    /// For each run, how long after it was queued it was offered, in milliseconds.
    pub fn pick_ups(&self) -> Vec<f64> {
        let runs = self.shared.runs.lock().unwrap();
        let waited = |run: &Run| {
            // An offer may come before the answer to who queued it.
            Some(run.offered?.saturating_duration_since(run.queued?).as_secs_f64() * 1000.0)
        };
        runs.values().filter_map(waited).collect()
    }

    /// What failed since this was asked last.
    pub fn failures(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.failures.lock().unwrap())
    }

    async fn reach(
        &self,
        what: &str,
        count: &AtomicUsize,
        goal: usize,
        patience: Duration,
    ) -> Result<()> {
        let until = Instant::now() + patience;
        while count.load(Ordering::Relaxed) < goal {
            if Instant::now() > until {
                let reached = count.load(Ordering::Relaxed);
                let last = self.failures().pop().unwrap_or_default();
                bail!("{reached} of {goal} agents are {what} after {patience:?}: {last}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn raise_file_limit(agents: u32) -> Result<()> {
    // An agent has one connection while it is idle, and another one with a task.
    let needed = u64::from(agents) * 3 / 2 + OTHER_FILES;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if needed > hard {
        let most = hard.saturating_sub(OTHER_FILES) * 2 / 3;
        bail!(
            "cannot simulate {agents} agents: they need {needed} open files, and the limit is \
             {hard}\nRaise it as root with `ulimit -n {needed}`, or simulate at most {most}"
        );
    }
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_agents_than_files_are_refused_with_the_limit_and_the_most() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let Ok(too_many) = u32::try_from(hard) else { return };
        let error = raise_file_limit(too_many).unwrap_err().to_string();
        assert!(error.contains(&format!("the limit is {hard}\n")), "{error}");
        let most = (hard - OTHER_FILES) * 2 / 3;
        assert!(error.ends_with(&format!("at most {most}")), "{error}");
        raise_file_limit(1).unwrap();
    }
}
