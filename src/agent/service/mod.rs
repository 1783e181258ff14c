//! The service: registers, sends heartbeats, takes tasks, and stops.

mod firewall_watch;
mod heartbeat;
mod polling;
mod received;
mod registration;
mod shutdown;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl;
use sd_notify::NotifyState;
use tokio::sync::{Notify, SetOnce, watch};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Span, info, warn};

use self::shutdown::Answer;
use crate::client::Client;
use crate::connection::{self, State};
use crate::context::{Context, RunUser};
use crate::engine::Engine;
use crate::firewall::Firewall;
use crate::https::Https;
use crate::identity;
use crate::journal::Journal;
use crate::logging;
use crate::progress;
use crate::providers::Providers;
use crate::proxy_variables;
use crate::pulled_images::{Images, Limits};
use crate::seen_images::SeenImages;
use crate::slots::Slots;
use crate::stop::{Order, Signals, become_the_new_program};
use crate::task::ahead::Ahead;
use crate::task::interrupt::Interrupt;
use crate::task::lost;
use crate::telemetry::Telemetry;
use config::{Config, Settings, layout};
use host::authorities;
use host::file_lock::FileLock;
use protocol::{Intervals, Register, TaskState};

/// Runs the agent until it is stopped; with `once` until it has done one task.
///
/// # Errors
/// The settings can't be used (exit code 2), the token is wrong or was revoked
/// (7), or the engine or the server can't be reached at the start (1).
pub(crate) fn run(file: &Path, once: bool) -> Result<()> {
    deny_tracing()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .context("cannot start")?;
    // Before the settings are read: one that asks to read them again comes later.
    let signals = runtime.block_on(async { Signals::catch() })?;
    let config = Settings::load(file, std::env::vars())?.resolve()?;
    logging::start(&config);
    let end = runtime.block_on(async {
        let proxy = proxy_variables::of_agent();
        let https = Https::new(config.ca_cert.as_deref(), &proxy)?;
        let telemetry = Telemetry::start(&config, &https).unwrap_or_else(|error| {
            warn!("no telemetry: {error:#}");
            Telemetry::off()
        });
        let end = serve(config, proxy, https, &telemetry, signals, file, once).await;
        telemetry.stop().await;
        end
    })?;
    // Ends what is still under way; the tasks' containers are not touched.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match end {
        End::Stopped => Ok(()),
        End::Reload => Err(become_the_new_program()),
    }
}

/// Leaves memory and environment, which have tokens, to root: no process of the agent's own
/// user can trace this one or read its `/proc/PID/environ`, and it leaves no core dump. A
/// new program begins without that.
fn deny_tracing() -> Result<()> {
    prctl::set_dumpable(false).context("cannot deny other processes to trace the agent")
}

/// Runs tasks until it has to stop.
async fn serve(
    config: Config,
    proxy: Vec<(String, String)>,
    https: Https,
    telemetry: &Arc<Telemetry>,
    mut signals: Signals,
    file: &Path,
    once: bool,
) -> Result<End> {
    let socket = format!("unix://{}", config.engine.display());
    let engine = tokio::select! {
        engine = Engine::connect_when_up(&socket) => engine?,
        order = signals.next() => return Ok(match order {
            Order::Stop => End::Stopped,
            Order::Reload => End::Reload,
        }),
    };
    engine.refuse_unsupported(&socket).await?;
    let (service, has_tasks) =
        Service::start(config, engine, proxy, &https, telemetry, once).await?;
    let progress = Arc::clone(&service.context.progress);
    let keeping = tokio::spawn({
        let progress = Arc::clone(&progress);
        async move { progress.keep().await }
    });
    let serving = async {
        match service.until_registered(&mut signals, file, has_tasks).await? {
            Some(end) => Ok(end),
            None => service.until_ended(&mut signals, file).await,
        }
    };
    let end = serving.await;
    keeping.abort();
    progress.stop();
    end
}

/// How the service ended.
enum End {
    Stopped,
    Reload,
}

/// A running task.
struct Running {
    attempt: u32,
    /// What is logged about it is inside of this.
    span: Span,
    state: watch::Receiver<TaskState>,
    orders: watch::Sender<Option<Interrupt>>,
}

struct Service {
    context: Arc<Context>,
    register: Register,
    once: bool,
    tasks: Mutex<BTreeMap<String, Running>>,
    /// Rung when a slot may have become free: a task has ended, or the engine or the
    /// firewall's rules are back.
    freed: Notify,
    /// Whether tasks are still taken.
    draining: AtomicBool,
    /// Whether the engine answered when it was last asked.
    engine_answers: AtomicBool,
    /// Since when the server has had a poll that it has not answered.
    polling_since: Mutex<Option<Instant>>,
    /// Keeps other agents out of the data folder.
    _data_folder: Option<FileLock>,
}

impl Service {
    /// Continues the tasks of an earlier agent, those of another boot once the server
    /// confirms them; whether there were any.
    async fn start(
        config: Config,
        engine: Engine,
        proxy: Vec<(String, String)>,
        https: &Https,
        telemetry: &Arc<Telemetry>,
        once: bool,
    ) -> Result<(Arc<Self>, bool)> {
        // Before all that empties something in there.
        let (identity, data_folder) = identity::claim(&config.data_dir)?;
        let register = registration::introduction(&config, identity.clone())?;
        let context = Context {
            client: Client::new(&config, https)?,
            engine,
            firewall: Firewall::new(&config, &proxy),
            images: Images::open(&config.data_dir)?,
            seen_images: SeenImages::default(),
            providers: Providers::open(&config, https)?,
            slots: Slots::new(config.concurrency, config.memory),
            ahead: Ahead::default(),
            journal: Journal::open(&config.data_dir, identity)?,
            proxy,
            certificates: authorities::of_host_and(config.ca_cert.as_deref())?,
            user: RunUser::of(config.user.as_deref(), layout::RUN_USER)?,
            connection: connection::Keeper::new(&config.data_dir),
            progress: progress::Keeper::new(&config.data_dir, Arc::clone(telemetry)),
            telemetry: Arc::clone(telemetry),
            intervals: RwLock::new(Intervals::default()),
            registered: SetOnce::new(),
            config,
        };
        telemetry.watch_slots(&context.slots, context.config.concurrency);
        let service = Arc::new(Self {
            register,
            context: Arc::new(context),
            once,
            tasks: Mutex::default(),
            freed: Notify::new(),
            draining: AtomicBool::new(false),
            engine_answers: AtomicBool::new(true),
            polling_since: Mutex::default(),
            _data_folder: data_folder,
        });
        let entries = service.context.journal.entries()?;
        let has_tasks = !entries.is_empty();
        for entry in entries {
            let task = &entry.record().claimed.task;
            let span = logging::span(&task.id, task.attempt);
            logging::record_run(&span, &task.run_id);
            span.in_scope(|| info!("continuing a task"));
            let slot = service.context.slots.take_again(entry.record().slot);
            service.begin(entry, slot, span, None);
        }
        if has_tasks {
            // The containers of this boot are looked after at once; the server may be away
            // for as long as it likes.
            notify(&[NotifyState::Ready]);
        }
        Ok((service, has_tasks))
    }

    /// Registers; gives how the agent ends if a signal comes before that.
    async fn until_registered(
        &self,
        signals: &mut Signals,
        file: &Path,
        has_tasks: bool,
    ) -> Result<Option<End>> {
        loop {
            tokio::select! {
                registered = self.register_first(has_tasks) => {
                    registered?;
                    info!("Scalr agent is ready to receive tasks.");
                    notify(&[NotifyState::Ready, NotifyState::Status("ready to receive tasks")]);
                    return Ok(None);
                }
                order = signals.next() => match self.answer(order, file).await {
                    Answer::Stop => {
                        self.stop(signals, self.context.config.on_stop).await;
                        return Ok(Some(End::Stopped));
                    }
                    Answer::LeaveTasks(end) => return Ok(Some(end)),
                    Answer::Nothing => {}
                },
            }
        }
    }

    /// Polls and sends heartbeats until it has to stop.
    async fn until_ended(self: Arc<Self>, signals: &mut Signals, file: &Path) -> Result<End> {
        let mut beating = tokio::spawn(Arc::clone(&self).beat());
        let mut polling = tokio::spawn(Arc::clone(&self).poll());
        let _verifying = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).keep_firewall()));
        let context = Arc::clone(&self.context);
        let _cleaning = AbortOnDropHandle::new(tokio::spawn(async move {
            let config = &context.config;
            let limits = Limits { age: config.image_max_age, free: config.image_min_free };
            context.images.clean_up(&context.engine, limits).await
        }));
        let context = Arc::clone(&self.context);
        let _ending = AbortOnDropHandle::new(tokio::spawn(async move {
            lost::end_forgotten(&context).await;
        }));
        let context = Arc::clone(&self.context);
        let _keeping = AbortOnDropHandle::new(tokio::spawn(async move {
            context.providers.keep(&context.engine).await
        }));
        let context = Arc::clone(&self.context);
        let _waiting =
            AbortOnDropHandle::new(tokio::spawn(async move { context.ahead.keep(&context).await }));
        loop {
            tokio::select! {
                ended = &mut beating => return self.refused(ended?, signals).await,
                ended = &mut polling => match ended? {
                    Ok(()) => break,
                    Err(error) => return self.refused(error, signals).await,
                },
                order = signals.next() => match self.answer(order, file).await {
                    Answer::Stop => {
                        // What it is about to claim, the server takes back.
                        polling.abort();
                        let _ = (&mut polling).await;
                        break;
                    }
                    Answer::LeaveTasks(end) => return Ok(end),
                    Answer::Nothing => {}
                },
            }
        }
        // It has no free slots any more, and hears of runs that are canceled while
        // they are waited for.
        self.draining.store(true, Ordering::SeqCst);
        let _polling = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&self).poll()));
        self.stop(signals, self.context.config.on_stop).await;
        beating.abort();
        match tokio::time::timeout(Duration::from_secs(10), self.context.client.deregister()).await
        {
            Ok(Ok(())) => {
                self.context.connection.answered(State::Deregistered, None);
                info!("deregistered");
            }
            Ok(Err(error)) => warn!("cannot deregister: {error}"),
            Err(_) => warn!("cannot deregister: the server did not answer in time"),
        }
        Ok(End::Stopped)
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Running>> {
        self.tasks.lock().expect("nothing panics while it holds the tasks")
    }
}

/// Tells systemd; what it does not hear, it does not need.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell systemd: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_cannot_be_traced() {
        deny_tracing().unwrap();
        assert!(!prctl::get_dumpable().unwrap());
    }
}
