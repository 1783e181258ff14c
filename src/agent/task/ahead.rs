//! Containers that are started ahead of the next run of their slot. To make and start one takes
//! an engine 300 ms, most of what a run takes besides its commands.
//!
//! When a task has ended, a container like its own is made in its slot and started. Its first
//! process (`templates/run/wait.sh`) waits for a line on its input, to which this agent alone is
//! attached. A task that needs just such a container takes it: the container gets the
//! attempt's name and files, the journal gets its id, and only then it gets the line. It has one
//! run at most.
//!
//! When the agent dies, the engine ends the input, and with that the container, unless the run
//! has begun. One that is left all the same is found by its name.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use backon::{ExponentialBuilder, Retryable as _};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use super::container_maker::ContainerMaker;
use super::{Job, paths};
use crate::context::Context;
use crate::engine::{self, Condition, ContainerSpec, Engine, Input, Output};
use crate::journal::Container;
use config::layout::{AHEAD_PREFIX, label};

/// How long a container waits for a run.
const LIFETIME: Duration = Duration::from_secs(600);

/// How often those that wait are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// After this long, a task that was queued already has the slot: a container that is made then
/// would only slow it down.
const BEFORE_MAKING: Duration = Duration::from_millis(100);

/// How long one may take to be made, to be taken, and to be removed when the agent stops.
const MAKING: Duration = Duration::from_secs(60);
const TAKING: Duration = Duration::from_secs(3);
const REMOVING: Duration = Duration::from_secs(10);

/// How often it is asked whether a run has begun whose agent is gone.
const BETWEEN_ASKING: Duration = Duration::from_millis(100);
const TIMES_ASKED: u32 = 20;

/// What the engine gives a container at its start of the host's name servers.
const NAME_SERVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The first process, until the run begins.
pub(super) const WAIT: &str = include_str!("../../../templates/run/wait.sh");

/// Its exit code when the run has not begun.
const NEVER_BEGUN: i64 = 125;

/// What a task's container was made of, for one like it.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(super) spec: ContainerSpec,
    /// The name of its image, which `spec` may have the id of.
    pub(super) image: String,
    pub(super) lock_file: Option<Vec<u8>>,
    pub(super) slot: usize,
}

/// The containers that wait.
#[derive(Debug)]
pub(crate) struct Ahead {
    /// By the numbers of their slots.
    waiting: Mutex<BTreeMap<usize, Waiting>>,
    /// How the names of this agent's begin; an earlier agent's begin otherwise.
    prefix: String,
    /// Held while one is made.
    making: tokio::sync::Mutex<()>,
    is_closed: AtomicBool,
    /// Of those that nobody needs any more.
    removals: TaskTracker,
    /// The files that name the host's name servers.
    pub(super) name_servers: [PathBuf; 2],
}

#[derive(Debug)]
struct Waiting {
    /// What it has in common with a task's container that it can stand for.
    common: ContainerSpec,
    image: String,
    image_id: String,
    name_servers: Vec<Option<Vec<u8>>>,
    since: Instant,
    held: Held,
}

/// A container that waits. It is removed when this is dropped, unless it is a task's.
pub(super) struct Held {
    engine: Engine,
    id: String,
    stream: Option<(Output, Input)>,
    is_a_tasks: bool,
    removals: TaskTracker,
}

impl Default for Ahead {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            prefix: format!("{AHEAD_PREFIX}{:08x}-", rand::random::<u32>()),
            making: tokio::sync::Mutex::default(),
            is_closed: AtomicBool::new(false),
            removals: TaskTracker::new(),
            name_servers: NAME_SERVERS.map(PathBuf::from),
        }
    }
}

impl Ahead {
    /// Makes a container like the one of a task that has ended, if its slot is free. What fails
    /// is logged alone: the next task makes its own.
    pub(crate) async fn prepare(&self, context: &Context, model: Model) {
        if !context.config.prepare_ahead {
            return;
        }
        tokio::time::sleep(BEFORE_MAKING).await;
        let _making = self.making.lock().await;
        let slot = model.slot;
        if self.is_closed()
            || context.firewall.failure().is_some()
            || context.slots.is_taken(slot)
            || self.lock().contains_key(&slot)
        {
            return;
        }
        match tokio::time::timeout(MAKING, self.make(context, model)).await {
            Ok(Ok(waiting)) => self.insert(slot, waiting),
            Ok(Err(error)) => debug!(slot, "no container is started ahead: {error:#}"),
            Err(_) => warn!(slot, "no container is started ahead: the engine takes too long"),
        }
    }

    async fn make(&self, context: &Context, model: Model) -> Result<Waiting> {
        let engine = &context.engine;
        let Model { spec, image, lock_file, slot } = model;
        let _held = context.images.hold().await;
        engine.ensure_network(&spec.network).await?;
        let provided = context.providers.provide(engine, lock_file.as_deref()).await?;
        let spec = ContainerSpec { image: image.clone(), volumes: provided.volumes, ..spec };
        let common = in_common(&spec);
        let name = format!("{}{slot}-{:08x}", self.prefix, rand::random::<u32>());
        let command = ["/bin/sh", "-c", WAIT].map(str::to_owned).to_vec();
        let mut labels = common.labels.clone();
        labels.insert(label::AHEAD.to_owned(), slot.to_string());
        // The engine knows it by its name, too.
        let mut held = Held {
            engine: engine.clone(),
            id: name.clone(),
            stream: None,
            is_a_tasks: false,
            removals: self.removals.clone(),
        };
        let maker = ContainerMaker { context, scratch: &context.config.data_dir };
        let spec = ContainerSpec { name, command, labels, has_input: true, ..spec };
        held.id = maker.create(spec).await?;
        if context.user.uid != 0 {
            maker.add_accounts(&held.id).await?;
        }
        let image_id = engine.image_id_of(&held.id).await?;
        let image_id = image_id.context("the engine does not tell its image")?;
        held.stream = Some(engine.attach_with_input(&held.id).await?);
        let name_servers = self.read_name_servers();
        engine.start(&held.id).await?;
        debug!(slot, container = held.id, "a container waits for the next run");
        Ok(Waiting { common, image, image_id, name_servers, since: Instant::now(), held })
    }

    /// The container that waits in a slot, if it is as `spec` wants it. It has the name of
    /// `spec` then.
    pub(super) async fn take(
        &self,
        engine: &Engine,
        slot: usize,
        spec: &ContainerSpec,
    ) -> Option<Held> {
        let waiting = self.lock().remove(&slot)?;
        if waiting.name_servers != self.read_name_servers() {
            debug!(slot, "not using the container that waits: the host has other name servers");
            return None;
        }
        match tokio::time::timeout(TAKING, waiting.named(engine, spec)).await {
            Ok(Ok(held)) => return Some(held),
            Ok(Err(error)) => debug!(slot, "not using the container that waits: {error:#}"),
            Err(_) => warn!(slot, "not using the container that waits: the engine takes too long"),
        }
        None
    }

    /// Whether a container waits in this slot.
    pub(super) fn has(&self, slot: usize) -> bool {
        self.lock().contains_key(&slot)
    }

    /// Whether any container waits.
    pub(crate) fn is_any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Whether a container of this name is this agent's, not an earlier one's.
    pub(super) fn is_own(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// Removes those that nobody has used for long, that have ended, or that the firewall does
    /// not fence in; never returns.
    pub(crate) async fn keep(&self, context: &Context) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            self.look(context.firewall.failure().is_none());
        }
    }

    pub(super) fn look(&self, is_fenced: bool) {
        self.lock().retain(|slot, waiting| {
            let stays =
                is_fenced && waiting.since.elapsed() < LIFETIME && !waiting.held.has_ended();
            if !stays {
                debug!(slot, "the container that waits is removed");
            }
            stays
        });
    }

    /// Removes all, and makes no more.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let removing = async {
            let _making = self.making.lock().await;
            drop(std::mem::take(&mut *self.lock()));
            self.removals.close();
            self.removals.wait().await;
        };
        if tokio::time::timeout(REMOVING, removing).await.is_err() {
            warn!("not all containers that wait could be removed in {} s", REMOVING.as_secs());
        }
    }

    fn insert(&self, slot: usize, waiting: Waiting) {
        let mut all = self.lock();
        if !self.is_closed() {
            all.insert(slot, waiting);
        }
    }

    fn read_name_servers(&self) -> Vec<Option<Vec<u8>>> {
        self.name_servers.iter().map(|file| fs::read(file).ok()).collect()
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Waiting>> {
        self.waiting.lock().expect("nothing panics while it holds the containers")
    }
}

impl Waiting {
    /// Gives it the name of `spec`, if it is as that wants it.
    async fn named(mut self, engine: &Engine, spec: &ContainerSpec) -> Result<Held> {
        if self.since.elapsed() >= LIFETIME {
            bail!("it has waited for too long");
        }
        // An apply names the image by its id.
        if in_common(spec) != self.common
            || ![&self.image, &self.image_id].contains(&&spec.image)
            || engine.image_id(&spec.image).await?.as_ref() != Some(&self.image_id)
        {
            bail!("the run needs another one");
        }
        if self.held.has_ended() || engine.condition(&self.held.id).await? != Condition::Running {
            bail!("it has ended");
        }
        engine.rename(&self.held.id, &spec.name).await?;
        Ok(self.held)
    }
}

/// What is not a task's own in the container that it needs; images are compared by their ids.
fn in_common(spec: &ContainerSpec) -> ContainerSpec {
    let of_agent =
        |(name, _): &(&String, &String)| [label::AGENT, label::POOL].contains(&name.as_str());
    let labels: HashMap<String, String> = spec
        .labels
        .iter()
        .filter(of_agent)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    ContainerSpec {
        name: String::new(),
        image: String::new(),
        command: Vec::new(),
        labels,
        ..spec.clone()
    }
}

impl Held {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// It is a task's from here on, which removes it.
    pub(super) fn belongs_to_a_task(&mut self) {
        self.is_a_tasks = true;
    }

    /// Lets the run begin, and gives what it writes.
    ///
    /// # Errors
    /// The engine is away. Whether the run has begun is for [`Job::settle_ahead`] to say.
    pub(super) async fn begin(mut self) -> Result<Output> {
        let (output, mut input) = self.stream.take().context("it is not attached")?;
        let written = async {
            input.write_all(b"begin\n").await?;
            input.flush().await
        };
        written.await.context("cannot let the container begin")?;
        Ok(output)
    }

    /// Whether it does not wait any more, or the engine has been restarted: nobody can let it
    /// begin then.
    fn has_ended(&mut self) -> bool {
        match &mut self.stream {
            Some((output, _)) => output.next().now_or_never().is_some(),
            None => true,
        }
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.is_a_tasks {
            return;
        }
        // Without a runtime this agent ends, and the container with it.
        let Ok(runtime) = Handle::try_current() else { return };
        let (engine, id) = (self.engine.clone(), std::mem::take(&mut self.id));
        let removing = async move {
            let patience = ExponentialBuilder::default()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(Duration::from_secs(30))
                .with_max_times(20);
            // An engine that restarts leaves it waiting.
            if let Err(error) = (|| engine.remove(&id)).retry(patience).await {
                warn!(container = id, "cannot remove a container that has no run: {error:#}");
            }
        };
        self.removals.spawn_on(removing, &runtime);
    }
}

impl Job {
    /// The container that waits in the task's slot, if it is as `spec` wants it.
    pub(super) async fn take_ahead(&self, spec: &ContainerSpec) -> Option<Held> {
        let (context, slot) = (&self.context, self.slot.number());
        if !context.ahead.has(slot) {
            return None;
        }
        let taking = async {
            context.ahead.take(&context.engine, slot, spec).await.ok_or("it does not fit")
        };
        self.progress.step("take waiting container", taking).await.ok()
    }

    /// Sees to it that a recorded container which was started ahead either has begun its run or
    /// ends. An engine that was restarted can leave it waiting.
    ///
    /// # Errors
    /// The engine doesn't answer, or the container is gone.
    pub(super) async fn settle_ahead(&self, container: &Container) -> Result<()> {
        let engine = &self.context.engine;
        for _ in 0..TIMES_ASKED {
            if engine.condition(&container.id).await? != Condition::Running
                || self.has_begun(&container.id).await?
            {
                return Ok(());
            }
            // The line may be on its way.
            tokio::time::sleep(BETWEEN_ASKING).await;
        }
        info!(container = container.id, "the run has not begun: ending its container");
        engine.signal(&container.id, "SIGTERM").await
    }

    /// Whether a container that was started ahead has ended without having begun the run.
    ///
    /// # Errors
    /// As [`Job::settle_ahead`].
    pub(super) async fn never_began(
        &self,
        container: &Container,
        condition: Condition,
    ) -> Result<bool> {
        Ok(container.is_ahead
            && matches!(condition, Condition::Ended { exit_code: NEVER_BEGUN, .. })
            && !self.has_begun(&container.id).await?)
    }

    async fn has_begun(&self, container: &str) -> Result<bool> {
        match self.context.engine.read(container, paths::BEGUN).await {
            // The run's doing.
            Err(error) if engine::is_unusable(&error) => Ok(true),
            mark => mark.map(|mark| mark.is_some()),
        }
    }
}
