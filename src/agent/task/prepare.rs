//! What a task needs before its container can start.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tracing::info;

use super::ahead::{Held, Model};
use super::container_maker::ContainerMaker;
use super::input_archive::Archive;
use super::plan_flags::plan_flags;
use super::{Job, directory_inside, disk, environment, hooks, paths, work_directory};
use crate::client::{CallError, TaskFile};
use crate::engine::ContainerSpec;
use crate::log::spool::Spool;
use crate::phase::Phase;
use crate::{registry, sum, trusted};
use config::defaults;
use config::layout::label;
use configuration::Reader;
use protocol::{Hook, Kind, Operation, Platform, Registered, Task};

/// How often a pull tells how far it is.
const BETWEEN_PROGRESS: Duration = Duration::from_secs(5);

/// How long before the container's start the firewall rules may have been verified.
const FENCED_FOR: Duration = Duration::from_secs(5);

/// The container's first process.
const ENTRYPOINT: &str = include_str!("../../../templates/run/entrypoint.sh");

/// What the entry point puts beside the configuration.
const OVERRIDE: &str = include_str!("../../../templates/run/override.tf");

const NOT_UNPACKED: &str = "cannot unpack the configuration";

/// How many paths a line of the run's log names.
const MAX_NAMED: usize = 10;

/// A container that can be started.
pub(super) struct Prepared {
    /// The engine's id of it.
    pub(super) container: String,
    /// The SHA-256 of the state that it has, in lower-case hex.
    pub(super) state_sha256: Option<String>,
    /// The container, if it was started ahead and waits.
    pub(super) waiting: Option<Held>,
    /// What it was made of.
    pub(super) model: Model,
}

/// The files that go into a container.
struct Files {
    archive: Archive,
    /// The lock file that names the run's providers.
    lock_file: Option<Vec<u8>>,
    /// What the configuration has and the container has not.
    left_out: BTreeSet<PathBuf>,
    state_sha256: Option<String>,
}

impl Job {
    /// Makes the container with all its files in it. `None` if the firewall rules of runs are
    /// not up, which is verified meanwhile.
    pub(super) async fn prepare(&self, spool: &mut Spool) -> Result<Option<Prepared>, CallError> {
        let begun = Instant::now();
        let (prepared, mut is_fenced) = tokio::join!(self.make(spool), self.verify_firewall());
        let prepared = prepared?;
        // Large files and a pull take long, and others change rules meanwhile.
        if is_fenced && begun.elapsed() > FENCED_FOR {
            is_fenced = self.verify_firewall().await;
        }
        Ok(is_fenced.then_some(prepared))
    }

    async fn make(&self, spool: &mut Spool) -> Result<Prepared, CallError> {
        // A task that outlived a restart may be here before the registration.
        let registered = self.context.registered.wait().await;
        // The server's part and the engine's.
        let (Files { mut archive, lock_file, left_out, state_sha256 }, ()) =
            tokio::try_join!(self.files(), self.make_room())?;
        if let Some(line) = left_out_line(&left_out) {
            spool.write(line.as_bytes())?;
        }
        // From here on to the container, no clean-up removes the image.
        let _held = self.context.images.hold().await;
        let image = self.progress.step("find image", self.image(spool)).await?;
        let engine = &self.context.engine;
        let provided = self.context.providers.provide(engine, lock_file.as_deref());
        let provided = self.progress.step("find providers", provided).await?;
        let claimed = &self.entry.record().claimed;
        let credentials =
            environment::credentials(claimed, &self.context.config.url).unwrap_or_default();
        if let Some(providers) = &provided.cli_config {
            let mirrored = self.context.providers.is_mirrored();
            let path = if mirrored { paths::MIRROR_CONFIG } else { paths::PROVIDERS_CONFIG };
            archive.file(path, 0o600, format!("{providers}{credentials}").as_bytes())?;
        }
        if !credentials.is_empty() {
            archive.file(paths::CREDENTIALS_CONFIG, 0o600, credentials.as_bytes())?;
        }
        let mut spec = self.container(image, registered)?;
        spec.volumes = provided.volumes;
        archive.file(paths::COMMAND, 0o600, command_line(&spec.command).as_bytes())?;
        let files = archive.finish()?;
        let model = Model {
            spec: spec.clone(),
            image: chosen_image(self.task(), &self.context.config.image),
            lock_file,
            slot: self.slot.number(),
        };
        let (container, waiting) = self.fill_container(spec, files).await?;
        Ok(Prepared { container, state_sha256, waiting, model })
    }

    /// Sees to it that the slot has its network and no container.
    async fn make_room(&self) -> Result<(), CallError> {
        let (engine, network) = (&self.context.engine, self.slot.network());
        self.progress.step("find network", engine.ensure_network(&network)).await?;
        // One of an earlier try that ended before it was recorded.
        let left = engine.with_label(label::TASK, &self.task().id);
        for found in self.progress.step("find leftovers", left).await? {
            engine.remove(&found.id).await?;
        }
        // One that was started ahead has no label of the task.
        Ok(engine.remove(&self.container_name()).await?)
    }

    /// Makes the container with the run's account and these files in it, or puts them into one
    /// that waits.
    async fn fill_container(
        &self,
        spec: ContainerSpec,
        files: File,
    ) -> Result<(String, Option<Held>)> {
        let waiting = self.take_ahead(&spec).await;
        let id = match waiting.as_ref().map(|waiting| waiting.id().to_owned()) {
            Some(id) => id,
            None => self.make_container(spec).await?,
        };
        let putting = self.context.engine.upload(&id, paths::SCALR, files);
        self.progress.step("put files", putting).await?;
        Ok((id, waiting))
    }

    async fn make_container(&self, spec: ContainerSpec) -> Result<String> {
        let maker = ContainerMaker { context: &self.context, scratch: self.entry.directory() };
        let id = self.progress.step("create container", maker.create(spec)).await?;
        if self.context.user.uid != 0 {
            self.progress.step("add accounts", maker.add_accounts(&id)).await?;
        }
        Ok(id)
    }

    /// Whether the firewall rules of runs are up.
    async fn verify_firewall(&self) -> bool {
        let verifying = async {
            self.context.firewall.verify(&self.context.engine).await.then_some(()).ok_or(())
        };
        self.progress.step("verify firewall", verifying).await.is_ok()
    }

    /// All files that go into the container, but for those about providers.
    async fn files(&self) -> Result<Files, CallError> {
        let task = self.task();
        let configuration = self
            .fetch(TaskFile::Configuration)
            .await?
            .context("the server has no configuration for this run")?;
        let directory = self.entry.directory();
        let mut archive = Archive::new(directory, paths::SCALR, self.context.user)?;
        for (path, mode) in [(paths::RUN, 0o700), (paths::HOME, 0o700), (paths::WORK, 0o755)] {
            archive.directory(path, mode)?;
        }
        let lock_path = self.in_work(paths::LOCK_FILE)?;
        let inside = directory_inside(task)?;
        let mut reader = Reader::new(configuration, Some(&inside)).context(NOT_UNPACKED)?;
        let mut lock_file = archive
            .configuration(paths::WORK, &mut reader, Path::new(&lock_path))
            .context(NOT_UNPACKED)?;
        if task.kind == Kind::Apply
            && let Some(files) = self.fetch(TaskFile::PlanFiles).await?
            && files.metadata().context("cannot look at what the plan made")?.len() > 0
        {
            let cannot = "cannot unpack what the plan made";
            let mut files = Reader::new(files, None).context(cannot)?;
            archive.configuration(paths::WORK, &mut files, Path::new("")).context(cannot)?;
        }
        archive.file(paths::OVERRIDE, 0o644, OVERRIDE.as_bytes())?;
        for (path, text) in environment::terraform(task)? {
            archive.file(path, 0o600, text.as_bytes())?;
        }
        archive.file(paths::ENTRYPOINT, 0o755, ENTRYPOINT.as_bytes())?;
        self.hooks(&mut archive)?;
        let certificates = self.context.certificates.as_deref();
        let shell = environment::shell(
            &self.entry.record().claimed,
            &self.context.config.url,
            &self.context.proxy,
            certificates.is_some(),
        )?;
        archive.file(paths::ENVIRONMENT, 0o600, shell.as_bytes())?;
        if let Some(certificates) = certificates {
            archive.file(paths::CERTIFICATES, 0o644, certificates)?;
        }
        let mut state_sha256 = None;
        if let Some(mut state) = self.fetch(TaskFile::State).await? {
            state_sha256 = Some(sum::sha256_of(&state).context("cannot read the state")?);
            state.rewind().context("cannot read the state")?;
            archive.large_file(paths::STATE, 0o600, &state)?;
        }
        if task.kind == Kind::Apply {
            let plan = self.fetch(TaskFile::Plan).await?;
            let plan = plan.context("the server has no saved plan for this run")?;
            archive.large_file(paths::PLAN, 0o600, &plan)?;
            if let Some(mut of_plan) = self.fetch(TaskFile::LockFile).await? {
                let mut text = Vec::new();
                of_plan.read_to_end(&mut text).context("cannot read the plan's lock file")?;
                archive.file(&lock_path, 0o644, &text)?;
                lock_file = Some(text);
            }
        }
        Ok(Files { archive, lock_file, left_out: reader.left_out().clone(), state_sha256 })
    }

    /// A file of the task, from the server, if it has one.
    pub(super) async fn fetch(&self, file: TaskFile) -> Result<Option<File>, CallError> {
        let cannot = || format!("cannot make a file for the {file}");
        let mut to = tempfile::tempfile_in(self.entry.directory()).with_context(cannot)?;
        let getting = self.client.get(file, &to);
        if !self.progress.step(format!("download {file}"), getting).await? {
            return Ok(None);
        }
        to.rewind().with_context(cannot)?;
        Ok(Some(to))
    }

    /// The agent's hooks, the environment's and the workspace's.
    fn hooks(&self, archive: &mut Archive) -> Result<()> {
        let of_agent = match &self.context.config.hooks_dir {
            Some(directory) => hooks::of_agent(directory, trusted::ROOT)?,
            None => Vec::new(),
        };
        let of_workspace: Vec<(Hook, Vec<u8>)> =
            self.task().hooks.iter().map(|(hook, text)| (*hook, text.clone().into())).collect();
        archive.directory(paths::HOOKS, 0o755)?;
        for (origin, hooks) in [("agent", of_agent), ("workspace", of_workspace)] {
            archive.directory(&format!("{}/{origin}", paths::HOOKS), 0o755)?;
            for (hook, content) in hooks {
                let path = format!("{}/{origin}/{}", paths::HOOKS, hook.name());
                archive.file(&path, 0o755, &content)?;
            }
        }
        for (number, hook) in self.task().environment_hooks.iter().enumerate() {
            let folder = format!("{}/{}", paths::HOOKS, hooks::folder_of_environment(number));
            archive.directory(&folder, 0o755)?;
            for (name, content) in hooks::files_of_environment(hook, &folder) {
                archive.file(&format!("{folder}/{name}"), 0o755, content.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The image, pulled if the engine does not have it. An apply uses the one of its plan,
    /// whatever its name means by now.
    pub(super) async fn image(&self, spool: &mut Spool) -> Result<String> {
        let image = chosen_image(self.task(), &self.context.config.image);
        if let Some(planned) = &self.task().image_id {
            if self.context.engine.image_id(planned).await?.is_some() {
                self.context.images.used(&image)?;
                return Ok(planned.clone());
            }
            // Imported on each host, one image has another id on each.
            if let Some(content) = &self.task().image_content
                && let Some(id) = self.context.engine.id_with_content(&image, content).await?
            {
                self.context.images.used(&image)?;
                return Ok(id);
            }
            if !image.contains('@') {
                bail!(
                    "the plan used the image {image} with the id {planned}, which this agent's engine does not have, neither by its id nor by its content, and no registry has had. What to do: load that image on this host, or plan again"
                );
            }
        }
        if self.context.engine.image_id(&image).await?.is_none() {
            spool.write(format!("Pulling image {image}\n").as_bytes())?;
            info!(image, "pulling image");
            self.progress.during(Phase::PullingImage, self.pull(&image, spool)).await?;
        }
        self.context.images.used(&image)?;
        Ok(image)
    }

    /// Pulls an image, telling in the log how far it is.
    async fn pull(&self, image: &str, spool: &mut Spool) -> Result<()> {
        let credentials = match &self.context.config.registry_auth {
            Some(file) => registry::credentials(file, image)?,
            None => None,
        };
        let begun = Instant::now();
        let mut told = begun;
        let mut written = Ok(());
        let pulled = self.context.engine.pull(image, credentials, |current, total| {
            if told.elapsed() >= BETWEEN_PROGRESS && written.is_ok() {
                told = Instant::now();
                let (current, total) = (current / 1_000_000, total / 1_000_000);
                written = spool.write(format!("  {current} of {total} MB\n").as_bytes());
            }
        });
        if let Err(error) = pulled.await {
            let why = format!("{:#}", error.root_cause());
            bail!(
                "image {image} is not on this agent's engine and can't be pulled: {why}. What to do: {}",
                registry::advice(image, &why)
            );
        }
        written?;
        if let Some(id) = self.context.engine.image_id(image).await? {
            self.context.images.pulled(image, id)?;
        }
        spool.write(format!("Pulled image {image} in {} s\n", begun.elapsed().as_secs()).as_bytes())
    }

    fn container(&self, image: String, registered: &Registered) -> Result<ContainerSpec> {
        let (task, config, user) = (self.task(), &self.context.config, self.context.user);
        let operation = match task.operation {
            Operation::Apply => "apply",
            Operation::Destroy => "destroy",
        };
        let directory = work_directory(task)?;
        let mut command = [
            "/bin/sh",
            paths::ENTRYPOINT,
            &task.kind.to_string(),
            operation,
            &directory,
            &self.container_name(),
            task.platform.map_or("", Platform::program),
            required_version(task).unwrap_or_default(),
        ]
        .map(str::to_owned)
        .to_vec();
        command.extend(plan_flags(task));
        let labels = HashMap::from([
            (label::TASK.to_owned(), task.id.clone()),
            (label::ATTEMPT.to_owned(), task.attempt.to_string()),
            (label::KIND.to_owned(), task.kind.to_string()),
            (label::RUN.to_owned(), task.run_id.clone()),
            (label::AGENT.to_owned(), registered.agent_id.clone()),
            (label::POOL.to_owned(), registered.pool_id.clone()),
        ]);
        Ok(ContainerSpec {
            name: self.container_name(),
            image,
            command,
            environment: vec![format!("HOME={}", paths::HOME)],
            user: format!("{}:{}", user.uid, user.gid),
            working_directory: paths::WORK.to_owned(),
            folders: vec![paths::SCALR.to_owned(), paths::RUN.to_owned()],
            disk_megabytes: disk::engine_limit(config),
            read_only: false,
            labels,
            network: self.slot.network(),
            memory_megabytes: config.memory,
            cpus: config.cpu,
            volumes: Vec::new(),
            has_input: false,
        })
    }
}

/// The line by which a shell becomes a command.
pub(super) fn command_line(command: &[String]) -> String {
    let quoted = |word: &String| format!(" '{}'", word.replace('\'', r"'\''"));
    let words: String = command.iter().map(quoted).collect();
    format!("exec{words} </dev/null\n")
}

/// The version that the run's Terraform must have; none: any.
fn required_version(task: &Task) -> Option<&str> {
    task.terraform_version.as_deref().filter(|_| !task.allow_other_terraform_version)
}

/// What the run's log says of what was left out of the configuration.
fn left_out_line(left_out: &BTreeSet<PathBuf>) -> Option<String> {
    let names = some_names(left_out.iter());
    (!left_out.is_empty())
        .then(|| format!("Left out of the configuration, since a run makes its own: {names}\n"))
}

/// Names for the run's log, not all of many.
pub(super) fn some_names<'a>(paths: impl ExactSizeIterator<Item = &'a PathBuf>) -> String {
    let more = match paths.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let printable = |path: &PathBuf| format!("`{}`", path.display().to_string().escape_debug());
    let names: Vec<String> = paths.take(MAX_NAMED).map(printable).collect();
    names.join(", ") + &more
}

/// The workspace's image, else the pool's, else the agent's.
fn chosen_image(task: &Task, of_agent: &str) -> String {
    let is_opentofu = task.platform == Some(Platform::OpenTofu);
    let (of_agent, default_version) = match is_opentofu {
        true if of_agent == defaults::IMAGE => {
            (defaults::OPENTOFU_IMAGE, defaults::OPENTOFU_VERSION)
        }
        true => (of_agent, defaults::OPENTOFU_VERSION),
        false => (of_agent, defaults::TERRAFORM_VERSION),
    };
    let image = task.image.as_deref().unwrap_or(of_agent);
    image.replace("{version}", task.terraform_version.as_deref().unwrap_or(default_version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tests::claimed;

    #[test]
    fn the_log_names_what_is_left_out_and_not_all_of_much() {
        let paths = |count: usize| (0..count).map(|number| format!("{number}").into()).collect();
        assert_eq!(left_out_line(&BTreeSet::new()), None);
        let begin = "Left out of the configuration, since a run makes its own:";
        let line = left_out_line(&BTreeSet::from([".terraform".into(), "a\nb".into()]));
        assert_eq!(line.unwrap(), format!("{begin} `.terraform`, `a\\nb`\n"));
        let line = left_out_line(&paths(12)).unwrap();
        assert!(line.ends_with("`7` and 2 more\n"), "{line}");
    }

    #[test]
    fn an_image_is_that_of_the_platform_with_the_version_of_the_workspace_or_the_default_one() {
        let own = "own:{version}-a";
        let of_terraform = Some(Platform::Terraform);
        let of_opentofu = Some(Platform::OpenTofu);
        for (platform, version, of_task, of_agent, image) in [
            (None, None, None, defaults::IMAGE, "hashicorp/terraform:1.11.4"),
            (of_terraform, Some("1.5.7"), None, defaults::IMAGE, "hashicorp/terraform:1.5.7"),
            (of_opentofu, None, None, defaults::IMAGE, "ghcr.io/opentofu/opentofu:1.9.1"),
            (of_opentofu, Some("1.8.0"), None, defaults::IMAGE, "ghcr.io/opentofu/opentofu:1.8.0"),
            (of_opentofu, Some("1.8.0"), None, own, "own:1.8.0-a"),
            (of_opentofu, None, None, own, "own:1.9.1-a"),
            (of_opentofu, Some("1.8.0"), Some("mine"), own, "mine"),
            (None, Some("1.5.7"), Some("mine:{version}"), own, "mine:1.5.7"),
        ] {
            let mut task = claimed().task;
            task.platform = platform;
            task.terraform_version = version.map(str::to_owned);
            task.image = of_task.map(str::to_owned);
            assert_eq!(chosen_image(&task, of_agent), image);
        }
    }
}
