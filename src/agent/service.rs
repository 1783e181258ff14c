//! The service: registers, gives signs of life, takes tasks, and stops.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use backon::{ExponentialBuilder, Retryable as _};
use os_release::OsRelease;
use reqwest::StatusCode;
use sd_notify::NotifyState;
use tokio::sync::{Notify, SetOnce, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, Span, error, info, warn};

use crate::client::{CallError, Client};
use crate::connection::{self, State};
use crate::context::{Context, RunUser, certificates};
use crate::engine::Engine;
use crate::images::{Images, Limits};
use crate::journal::{Entry, Journal};
use crate::logging;
use crate::progress;
use crate::providers::Providers;
use crate::proxy;
use crate::slots::{Slot, Slots};
use crate::stop::{Order, Signals, become_the_new_program};
use crate::task::interrupt::Interrupt;
use crate::task::{Wire, carry_out, lost};
use crate::telemetry::Telemetry;
use cli::Failure;
use config::{Config, OnStop, Settings};
use protocol::{Event, Heartbeat, Intervals, Poll, Register, Status, TaskState, TaskStatus};

/// How often a drain asks systemd for more time.
const EXTENDING: Duration = Duration::from_secs(20);

/// How long it takes, after an interrupted run's grace, until it is killed and its
/// results are up.
const AFTER_GRACE: Duration = Duration::from_secs(60);

/// How long the engine may take to answer before it counts as failed.
const ENGINE_ANSWERS: Duration = Duration::from_secs(3);

/// How long the first registration is tried before the agent gives up, to be
/// started again by systemd, which then tells that it failed.
const FIRST_REGISTRATION: Duration = Duration::from_secs(60);

/// Runs the agent until it is stopped; with `once` until it has done one task.
///
/// # Errors
/// The settings can't be used (exit code 2), the token is wrong or was revoked
/// (7), or the engine or the server can't be reached at the start (1).
pub(crate) fn run(file: &Path, once: bool) -> Result<()> {
    let config = Settings::load(file, std::env::vars())?.resolve()?;
    logging::start(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build()
        .context("cannot start")?;
    let end = runtime.block_on(async {
        let proxy = proxy::variables();
        let telemetry = Telemetry::start(&config, &proxy).unwrap_or_else(|error| {
            warn!("no telemetry: {error:#}");
            Telemetry::off()
        });
        let end = serve(config, proxy, &telemetry, file, once).await;
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

/// Takes tasks until told to stop.
async fn serve(
    config: Config,
    proxy: Vec<(String, String)>,
    telemetry: &Arc<Telemetry>,
    file: &Path,
    once: bool,
) -> Result<End> {
    let mut signals = Signals::catch()?;
    let (service, in_hand) = Service::start(config, proxy, telemetry, once).await?;
    let progress = Arc::clone(&service.context.progress);
    let keeping = tokio::spawn({
        let progress = Arc::clone(&progress);
        async move { progress.keep().await }
    });
    let serving = async {
        match service.until_registered(&mut signals, file, in_hand).await? {
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

/// A task in hand.
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
    /// Rung when a slot may have become free: a task has ended, or the engine is back.
    freed: Notify,
    /// Whether tasks are still taken.
    draining: AtomicBool,
    /// Whether the engine answered when it was last asked.
    engine_answers: AtomicBool,
}

impl Service {
    /// Goes on with what was in hand; tells whether that was anything.
    async fn start(
        config: Config,
        proxy: Vec<(String, String)>,
        telemetry: &Arc<Telemetry>,
        once: bool,
    ) -> Result<(Arc<Self>, bool)> {
        let engine = Engine::connect(&format!("unix://{}", config.engine.display())).await?;
        let context = Context {
            client: Client::new(&config, &proxy)?,
            engine,
            images: Images::open(&config.data_dir)?,
            providers: Providers::open(&config, &proxy)?,
            slots: Slots::new(config.concurrency, config.memory),
            journal: Journal::open(&config.data_dir)?,
            proxy,
            certificates: certificates(config.ca_cert.as_deref())?,
            user: RunUser::of(config.user.as_deref())?,
            connection: connection::Keeper::new(&config.data_dir),
            progress: progress::Keeper::new(&config.data_dir, Arc::clone(telemetry)),
            telemetry: Arc::clone(telemetry),
            intervals: RwLock::new(Intervals::default()),
            registered: SetOnce::new(),
            config,
        };
        telemetry.watch_slots(&context.slots, context.config.concurrency);
        let service = Arc::new(Self {
            register: introduction(&context.config)?,
            context: Arc::new(context),
            once,
            tasks: Mutex::default(),
            freed: Notify::new(),
            draining: AtomicBool::new(false),
            engine_answers: AtomicBool::new(true),
        });
        let entries = service.context.journal.entries()?;
        let in_hand = !entries.is_empty();
        for entry in entries {
            let task = &entry.record().claimed.task;
            let span = logging::span(&task.id, task.attempt);
            logging::knows(&span, &task.run_id);
            span.in_scope(|| info!("going on with a task"));
            let slot = service.context.slots.take_again(entry.record().slot);
            service.begin(entry, slot, span, None);
        }
        if in_hand {
            // Their containers are looked after at once; the server may be away
            // for as long as it likes.
            notify(&[NotifyState::Ready]);
        }
        Ok((service, in_hand))
    }

    /// Registers; gives how the agent ends if it is told to before it could.
    async fn until_registered(
        &self,
        signals: &mut Signals,
        file: &Path,
        in_hand: bool,
    ) -> Result<Option<End>> {
        loop {
            tokio::select! {
                registered = self.register_first(in_hand) => {
                    registered?;
                    info!("Scalr agent is ready to receive tasks.");
                    notify(&[NotifyState::Ready, NotifyState::Status("ready to receive tasks")]);
                    return Ok(None);
                }
                order = signals.next() => match order {
                    Order::Stop => {
                        self.stop(signals, self.context.config.on_stop).await;
                        return Ok(Some(End::Stopped));
                    }
                    Order::Reload if can_reload(file) => return Ok(Some(End::Reload)),
                    Order::Reload => {}
                },
            }
        }
    }

    /// Polls and gives signs of life until told to stop.
    async fn until_ended(self: Arc<Self>, signals: &mut Signals, file: &Path) -> Result<End> {
        let mut beating = tokio::spawn(Arc::clone(&self).beat());
        let mut polling = tokio::spawn(Arc::clone(&self).poll());
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
        loop {
            tokio::select! {
                ended = &mut beating => return self.refused(ended?, signals).await,
                ended = &mut polling => match ended? {
                    Ok(()) => break,
                    Err(error) => return self.refused(error, signals).await,
                },
                order = signals.next() => match order {
                    Order::Stop => {
                        // What it is about to claim, the server takes back.
                        polling.abort();
                        let _ = (&mut polling).await;
                        break;
                    }
                    Order::Reload if can_reload(file) => return Ok(End::Reload),
                    Order::Reload => {}
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

    /// The token was revoked: what runs is ended, and the agent with it.
    async fn refused(&self, error: anyhow::Error, signals: &mut Signals) -> Result<End> {
        error!("{error:#}");
        self.stop(signals, OnStop::Interrupt).await;
        Err(error)
    }

    /// Ends the tasks in hand, or waits for them, and comes back when none is
    /// left.
    async fn stop(&self, signals: &mut Signals, how: OnStop) {
        self.draining.store(true, Ordering::SeqCst);
        notify(&[NotifyState::Stopping, NotifyState::Status("waiting for tasks to end")]);
        if how == OnStop::Drain {
            let patience = self.context.config.drain;
            info!("waiting up to {} s for the tasks in hand", patience.as_secs());
            tokio::select! {
                () = self.all_ended() => {}
                () = tokio::time::sleep(patience) => warn!("the tasks took too long"),
                _ = signals.next() => info!("told again to stop"),
                () = keep_from_being_killed() => {}
            }
        }
        stop_takes(self.context.config.grace + AFTER_GRACE);
        self.interrupt_all(Interrupt::Stopped);
        tokio::select! {
            () = self.all_ended() => return,
            _ = signals.next() => info!("told again to stop: no more waiting"),
        }
        self.interrupt_all(Interrupt::Hurried);
        self.all_ended().await;
    }

    async fn all_ended(&self) {
        loop {
            let ended = self.freed.notified();
            let mut ended = std::pin::pin!(ended);
            ended.as_mut().enable();
            if self.tasks().is_empty() {
                return;
            }
            ended.await;
        }
    }

    fn interrupt_all(&self, order: Interrupt) {
        for running in self.tasks().values() {
            running.orders.send_replace(Some(order));
        }
    }

    /// Registers for the first time. Without a task in hand it is given up
    /// after a while.
    async fn register_first(&self, in_hand: bool) -> Result<()> {
        let begun = Instant::now();
        let pauses = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(10))
            .with_jitter()
            .without_max_times();
        (|| self.register_once())
            .retry(pauses)
            .when(|error| {
                matches!(error, CallError::Away(_))
                    && (in_hand || begun.elapsed() < FIRST_REGISTRATION)
            })
            .notify(|error, _| {
                let status = format!("cannot register: {error}");
                warn!("{status}");
                self.context.connection.away(status.clone());
                notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]);
            })
            .await
            .map_err(|error| self.explain(error))
    }

    async fn register_once(&self) -> Result<(), CallError> {
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

    /// An error of a call that concerns the whole agent.
    fn explain(&self, error: CallError) -> anyhow::Error {
        let url = &self.context.config.url;
        match &error {
            CallError::Refused { why, .. } => {
                self.context.connection.answered(State::Refused, Some(why.clone()));
            }
            error => self.context.connection.away(error.to_string()),
        }
        match error {
            CallError::Refused { status: StatusCode::UNAUTHORIZED, why, .. } => {
                Failure::NotPermitted.because(format!(
                    "{url} refuses the agent: {why}. Make a new token in the pool and give it with `scalr-agent configure --token-file FILE`"
                ))
            }
            CallError::Refused { status, why, .. } => {
                Failure::Usage.because(format!("{url} refuses the agent: {why} ({status})"))
            }
            CallError::Away(error) | CallError::Here(error) => error.context("cannot register"),
        }
    }

    /// Gives signs of life; ends only when the server refuses the agent.
    async fn beat(self: Arc<Self>) -> anyhow::Error {
        loop {
            let seconds = self.context.intervals().heartbeat_seconds;
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            let (status, error_message) = self.health().await;
            let answers = status != Status::Errored;
            if !self.engine_answers.swap(answers, Ordering::SeqCst) && answers {
                self.freed.notify_one();
            }
            let beat =
                Heartbeat { status, error_message: error_message.clone(), tasks: self.statuses() };
            // The watchdog is for an agent that hangs. One whose server is away
            // has to stay, to look after its runs.
            notify(&[NotifyState::Watchdog]);
            let answer = self.context.client.heartbeat(&beat).await;
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
                    warn!("cannot give a sign of life: {error}");
                }
            }
        }
    }

    async fn health(&self) -> (Status, Option<String>) {
        // An engine that hangs must not keep us from giving a sign of life.
        let error = match tokio::time::timeout(ENGINE_ANSWERS, self.context.engine.ping()).await {
            Ok(Ok(())) => return (self.status(), None),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => format!("the engine has not answered for {} s", ENGINE_ANSWERS.as_secs()),
        };
        (Status::Errored, Some(error))
    }

    fn status(&self) -> Status {
        if self.draining.load(Ordering::SeqCst) {
            Status::Draining
        } else if self.tasks().is_empty() {
            Status::Idle
        } else {
            Status::Busy
        }
    }

    /// Asks for tasks and other events, until the pool tells the agent to
    /// drain, or `once` is through.
    async fn poll(self: Arc<Self>) -> Result<()> {
        let mut pause = Duration::from_millis(500);
        let mut took_one = false;
        loop {
            let draining = self.draining.load(Ordering::SeqCst) || (self.once && took_one);
            if draining && self.tasks().is_empty() {
                return Ok(());
            }
            let takes_more = !draining && self.engine_answers.load(Ordering::SeqCst);
            let free_slots = if takes_more { self.context.slots.free() } else { 0 };
            let free_slots = if self.once { free_slots.min(1) } else { free_slots };
            let poll = Poll { free_slots, tasks: self.statuses() };
            let held = Duration::from_secs(self.context.intervals().poll_seconds.into());
            let answer = tokio::select! {
                answer = self.context.client.poll(&poll, held) => answer,
                // There is room now for what was not asked for.
                () = self.freed.notified() => continue,
            };
            match answer {
                Ok(events) => {
                    pause = Duration::from_millis(500);
                    for event in events.events {
                        took_one |= matches!(event, Event::Offer { .. });
                        self.act_on(event).await;
                    }
                }
                Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) => {
                    return Err(self.explain(error));
                }
                Err(error) => {
                    // 409: the heartbeat registers again.
                    warn!("cannot poll: {error}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(15));
                }
            }
        }
    }

    async fn act_on(self: &Arc<Self>, event: Event) {
        match event {
            // Offered before the server heard that no more are taken.
            Event::Offer { task_id, .. } if self.draining.load(Ordering::SeqCst) => {
                info!(task = task_id, "task not taken: the agent takes no more");
            }
            Event::Offer { task_id, attempt, kind } => {
                let span = logging::span(&task_id, attempt);
                span.in_scope(|| info!(%kind, "task offered"));
                self.claim(&task_id, attempt).instrument(span).await;
            }
            Event::Cancel { task_id, attempt } => {
                let tasks = self.tasks();
                if let Some(running) = tasks.get(&task_id).filter(|task| task.attempt == attempt) {
                    running.span.in_scope(|| info!("task canceled by its pool"));
                    running.orders.send_replace(Some(Interrupt::Canceled));
                }
            }
            Event::Drain => {
                info!("told to drain: no more tasks are taken");
                self.draining.store(true, Ordering::SeqCst);
            }
            Event::NewToken { session_token } => self.context.client.set_session(session_token),
            Event::NewIntervals(intervals) => self.context.set_intervals(intervals),
        }
    }

    async fn claim(self: &Arc<Self>, task_id: &str, attempt: u32) {
        let offered = SystemTime::now();
        let Some(slot) = self.context.slots.take() else {
            warn!("no slot is free for what was offered");
            return;
        };
        let claimed = match self.context.client.claim(task_id, attempt).await {
            Ok(claimed) => claimed,
            Err(error) => {
                warn!("cannot claim the task: {error}");
                return;
            }
        };
        let span = Span::current();
        logging::knows(&span, &claimed.task.run_id);
        match self.context.journal.begin(claimed, slot.number()) {
            Ok(entry) => self.begin(entry, slot, span, Some(offered)),
            // Not started, so the server offers it again.
            Err(error) => error!("cannot take the task: {error:#}"),
        }
    }

    fn begin(self: &Arc<Self>, entry: Entry, slot: Slot, span: Span, offered: Option<SystemTime>) {
        let task = &entry.record().claimed.task;
        let (id, attempt) = (task.id.clone(), task.attempt);
        let (state, watched) = watch::channel(TaskState::Claimed);
        let (orders, ordered) = watch::channel(None);
        let wire = Wire { state, orders: ordered, offered };
        let service = Arc::clone(self);
        // Held until the task is listed, so that its end comes after.
        let mut tasks = self.tasks();
        let carrying_out = {
            let id = id.clone();
            async move {
                carry_out(Arc::clone(&service.context), entry, slot, wire).await;
                service.tasks().remove(&id);
                service.freed.notify_waiters();
                // For a poll that is not waiting at this moment.
                service.freed.notify_one();
            }
        };
        tokio::spawn(carrying_out.instrument(span.clone()));
        tasks.insert(id, Running { attempt, span, state: watched, orders });
    }

    fn statuses(&self) -> Vec<TaskStatus> {
        self.tasks()
            .iter()
            .map(|(id, running)| TaskStatus {
                task_id: id.clone(),
                attempt: running.attempt,
                state: *running.state.borrow(),
            })
            .collect()
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Running>> {
        self.tasks.lock().expect("nothing panics while it holds the tasks")
    }
}

/// Whether the settings can be used: an agent that took others would end.
fn can_reload(file: &Path) -> bool {
    match Settings::load(file, std::env::vars()).and_then(Settings::resolve) {
        Ok(_) => {
            info!("reloading; the tasks run on");
            true
        }
        Err(error) => {
            error!("not reloaded: {error:#}");
            false
        }
    }
}

/// How the agent introduces itself.
fn introduction(config: &Config) -> Result<Register> {
    let name = match &config.agent_name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()
            .context("cannot ask for the host's name")?
            .into_string()
            .map_err(|_| anyhow!("the host's name is not UTF-8; set agent_name"))?,
    };
    let os = OsRelease::new().map_or_else(
        |_| "linux".to_owned(),
        |os| format!("{}_{}", os.id, os.version_id.split('.').next().unwrap_or_default()),
    );
    Ok(Register {
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        os: os.trim_end_matches('_').to_owned(),
        driver: "docker".to_owned(),
        platform: match std::env::consts::ARCH {
            "x86_64" => "linux_amd64".to_owned(),
            "aarch64" => "linux_arm64".to_owned(),
            other => format!("linux_{other}"),
        },
        concurrency: config.concurrency,
    })
}

/// systemd kills what takes longer to stop than its unit says, unless it asks for
/// more time (from systemd 236 on).
async fn keep_from_being_killed() {
    loop {
        stop_takes(3 * EXTENDING);
        tokio::time::sleep(EXTENDING).await;
    }
}

/// Asks systemd for this much time, from now on, to stop.
fn stop_takes(time: Duration) {
    let microseconds = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    notify(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// Tells systemd; what it does not hear, it does not need.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell systemd: {error}");
    }
}
