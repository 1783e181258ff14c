//! What a container leaves, and how it gets to the server: by a file here, since it
//! may be larger than the agent is to be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;
use tracing::warn;
use zip::read::Config;
use zip::unstable::read::ZipIterable;

use super::plan_files::{Before, Packed, not_handed_over, pack};
use super::{End, Job, directory_inside, lost, paths, plan_json};
use crate::client::{CallError, TaskFile};
use crate::engine::{self, LARGE_FILE, SMALL_FILE};
use crate::journal::Container;
use crate::sum;
use configuration::Reader;
use protocol::limits::MAX_FILE;
use protocol::{Kind, Outcome, PlanSummary, RanImage, Task};

/// What a run's log says of a plan that is not there.
const NO_PLAN: &str = "Error: Terraform says that the plan succeeded, but did not save it in /scalr/run/plan. Is there a flag in TF_CLI_ARGS_plan, or a hook, that prevents this?";
/// How often what a plan made is tried to be read, and how long is waited between:
/// the engine may break a stream off, when it is restarted for example.
const TRIES: u32 = 3;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// What a run's log says of a plan that can't be applied.
const CUT_OFF: &str = "Error: the plan was not written whole, though Terraform says nothing of it. Is the disk of the agent's host full?";

const NO_JSON: &str = "cannot make a file for the plan's JSON";

/// What the outcome has of the files that were handed over.
#[derive(Default)]
pub(super) struct HandedOver {
    pub(super) summary: Option<PlanSummary>,
    /// The image that a finished plan ran.
    pub(super) image: Option<RanImage>,
    /// What the run's log has to say of what the server does not have.
    pub(super) notes: Vec<String>,
}

/// What became of a plan's JSON.
#[derive(Default)]
pub(super) struct PlanJson {
    pub(super) summary: Option<PlanSummary>,
    /// What the run's log has to say of it.
    pub(super) note: Option<String>,
}

/// What became of what a plan made in its working directory.
#[derive(Debug, Default)]
pub(super) struct PlanFiles {
    /// What the run's log has to say of it.
    pub(super) note: Option<String>,
    /// A copy of the lock file, which came by.
    lock_file: Option<NamedTempFile>,
}

/// Whether the server has a file of a run.
type Saved = Result<(), Unsaved>;

/// Why the server does not have a file of a run.
enum Unsaved {
    /// It does not take the copy of what was at `path`.
    Refused { path: String, copy: NamedTempFile, why: String },
    /// What is there can't be copied.
    Unusable(anyhow::Error),
}

impl Job {
    /// Gives the server what the container left: before its outcome, so that whoever acts
    /// on the outcome finds it all. A file that is of no use, or that the server does not
    /// take, makes a failure of the end.
    pub(super) async fn hand_over(&self, end: &mut End) -> Result<HandedOver, CallError> {
        let Some(Container { id, .. }) = &self.entry.record().container else {
            return Ok(HandedOver::default());
        };
        if self.task().kind == Kind::Apply {
            if let Some(unsaved) = self.hand_over_states(id).await? {
                self.note_unsaved(end, TaskFile::State, unsaved)?;
            }
            return Ok(HandedOver::default());
        }
        if end.outcome != Outcome::Finished {
            return Ok(HandedOver::default());
        }
        let plan = match self.take(id, paths::PLAN, LARGE_FILE).await? {
            Ok(Some(plan)) if is_cut_off(plan.path())? => {
                end.fail(CUT_OFF.to_owned());
                return Ok(HandedOver::default());
            }
            Ok(Some(plan)) => plan,
            Ok(None) => {
                end.fail(NO_PLAN.to_owned());
                return Ok(HandedOver::default());
            }
            Err(unsaved) => {
                self.note_unsaved(end, TaskFile::Plan, unsaved)?;
                return Ok(HandedOver::default());
            }
        };
        let saving = async {
            let saved = self.save(TaskFile::Plan, paths::PLAN, plan).await?;
            Ok::<_, CallError>((saved, self.hand_over_plan_json(end).await?))
        };
        // Meanwhile the engine packs the working directory.
        let packing = async {
            let PlanFiles { note, lock_file } = self.hand_over_plan_files(end).await?;
            Ok::<_, CallError>((note, self.hand_over_lock_file(id, lock_file).await?))
        };
        let ((plan, json), (note, lock_file), (image, unknown)) =
            tokio::try_join!(saving, packing, self.ran_image(id))?;
        for (file, saved) in [(TaskFile::Plan, plan), (TaskFile::LockFile, lock_file)] {
            if let Err(unsaved) = saved {
                self.note_unsaved(end, file, unsaved)?;
                return Ok(HandedOver::default());
            }
        }
        let notes = note.into_iter().chain(json.note).chain(unknown).collect();
        Ok(HandedOver { summary: json.summary, image, notes })
    }

    /// The image of a plan: its apply uses no other. Where it is unknown, what the run's log has
    /// to say of that.
    async fn ran_image(
        &self,
        container: &str,
    ) -> Result<(Option<RanImage>, Option<String>), CallError> {
        let image = self.context.engine.image_of(container);
        match self.progress.step("look up image", image).await {
            Ok(image) => Ok((Some(image), None)),
            Err(error) if engine::is_away(&error) => Err(error.into()),
            Err(error) => {
                warn!("cannot tell which image the plan ran: {error:#}");
                let note = format!(
                    "Warning: the apply may use another image than this plan, because the plan's is unknown: {error:#}"
                );
                Ok((None, Some(note)))
            }
        }
    }

    /// Both states that an apply may have left. Gives why the server does not have the newer
    /// one, if so.
    async fn hand_over_states(&self, container: &str) -> Result<Option<Unsaved>, CallError> {
        let mut unsaved = None;
        // The second one only exists when the first could not be written: it is the newer
        // one.
        for path in [paths::STATE.to_owned(), self.in_work(paths::ERRORED_STATE)?] {
            let saved = match self.take(container, &path, LARGE_FILE).await? {
                Ok(Some(copy)) => self.save(TaskFile::State, &path, copy).await?,
                Ok(None) => continue,
                Err(unusable) => Err(unusable),
            };
            unsaved = saved.err();
        }
        Ok(unsaved)
    }

    /// `copy`: what is known of it already.
    async fn hand_over_lock_file(
        &self,
        container: &str,
        copy: Option<NamedTempFile>,
    ) -> Result<Saved, CallError> {
        let path = self.in_work(paths::LOCK_FILE)?;
        let copy = match copy {
            Some(copy) => Ok(Some(copy)),
            // It is read into memory, here and for the apply.
            None => self.take(container, &path, SMALL_FILE).await?,
        };
        match copy {
            Ok(Some(copy)) => {
                self.context.providers.note(copy.path());
                self.save(TaskFile::LockFile, &path, copy).await
            }
            Ok(None) => Ok(Ok(())),
            Err(unusable) => Ok(Err(unusable)),
        }
    }

    /// Copies a file of the container, if it is there.
    async fn take(
        &self,
        container: &str,
        path: &str,
        limit: u64,
    ) -> Result<Result<Option<NamedTempFile>, Unsaved>, CallError> {
        match self.take_left(container, path, limit).await {
            Err(error) if engine::is_unusable(&error) => Ok(Err(Unsaved::Unusable(error))),
            copy => Ok(Ok(copy?)),
        }
    }

    /// Gives the server the copy of the file at `path`.
    async fn save(
        &self,
        file: TaskFile,
        path: &str,
        copy: NamedTempFile,
    ) -> Result<Saved, CallError> {
        match self.put(file, copy.path()).await {
            Ok(()) => Ok(Ok(())),
            Err(CallError::FileRefused(why)) => {
                Ok(Err(Unsaved::Refused { path: path.to_owned(), copy, why }))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the server what a finished plan made in its working directory. Gives what the
    /// run's log has to say of what is not handed over: the plan has finished all the
    /// same.
    pub(super) async fn hand_over_plan_files(&self, end: &End) -> Result<PlanFiles, CallError> {
        let record = self.entry.record();
        let Some(Container { id, .. }) = &record.container else {
            return Ok(PlanFiles::default());
        };
        if self.task().kind != Kind::Plan || end.outcome != Outcome::Finished {
            return Ok(PlanFiles::default());
        }
        let noted = |note, lock_file| PlanFiles { note, lock_file };
        let mut tries = 0;
        let (packed, file, lock_file) = loop {
            tries += 1;
            match self.progress.step("copy plan files", self.pack_plan_files(id)).await {
                Ok(Some(packed)) => break packed,
                Ok(None) => return Ok(PlanFiles::default()),
                Err(CallError::Here(error)) if !engine::is_away(&error) => {
                    warn!("cannot get what the plan made: {error:#}");
                    if tries == TRIES || engine::is_unusable(&error) {
                        let why = "what the plan made, because it cannot be read";
                        let note = not_handed_over(&format!("{why}: {error:#}"));
                        return Ok(noted(Some(note), None));
                    }
                    tokio::time::sleep(BETWEEN_TRIES).await;
                }
                Err(error) => return Err(error),
            }
        };
        if !packed.has_entries {
            return Ok(noted(packed.note, lock_file));
        }
        // Asked first: a server that refuses a large body may close the connection before
        // its answer is read, and the call would be repeated for ever.
        if self.fetch(TaskFile::PlanFiles).await?.is_none() {
            let why = "what the plan made, because the server is too old for that";
            return Ok(noted(Some(not_handed_over(why)), lock_file));
        }
        let size = file.as_file().metadata().context("cannot look at what the plan made")?.len();
        match self.put(TaskFile::PlanFiles, file.path()).await {
            Err(CallError::FileRefused(why)) => {
                let why = format!("what the plan made, {size} bytes when packed: {why}");
                Ok(noted(Some(not_handed_over(&why)), lock_file))
            }
            result => result.map(|()| noted(packed.note, lock_file)),
        }
    }

    /// Gives the server what Terraform says of a finished plan in JSON, without what is
    /// sensitive. That the server does not have it fails nothing.
    pub(super) async fn hand_over_plan_json(&self, end: &End) -> Result<PlanJson, CallError> {
        let Some(Container { id, .. }) = &self.entry.record().container else {
            return Ok(PlanJson::default());
        };
        if self.task().kind != Kind::Plan || end.outcome != Outcome::Finished {
            return Ok(PlanJson::default());
        }
        let unread = |error: anyhow::Error| PlanJson {
            summary: None,
            note: Some(format!(
                "The plan is not counted, because its JSON cannot be read: {error:#}"
            )),
        };
        let plan = match self.take_left(id, paths::PLAN_JSON, LARGE_FILE).await {
            Ok(Some(plan)) if file_size(plan.as_file())? > 0 => plan,
            // Terraform is too old, or was interrupted.
            Ok(_) => return Ok(PlanJson::default()),
            Err(error) if engine::is_away(&error) => return Err(error.into()),
            Err(error) => return Ok(unread(error)),
        };
        // A large one takes seconds.
        let content = plan.reopen().context(NO_JSON)?;
        let survey = tokio::task::spawn_blocking(move || plan_json::survey(content));
        let survey = match survey.await.context("the survey panicked")? {
            Ok(survey) => survey,
            Err(error) => return Ok(unread(error)),
        };
        let summary = Some(survey.summary);
        if self.fetch(TaskFile::PlanJson).await?.is_none() {
            return Ok(PlanJson { summary, note: None });
        }
        let masked = NamedTempFile::new_in(self.entry.directory()).context(NO_JSON)?;
        let why = match self.mask_plan_json(&plan, &masked, survey).await {
            Ok(()) if file_size(masked.as_file())? > MAX_FILE => {
                format!("it has more than {MAX_FILE} bytes")
            }
            Ok(()) => match self.put(TaskFile::PlanJson, masked.path()).await {
                Ok(()) => return Ok(PlanJson { summary, note: None }),
                Err(CallError::FileRefused(why)) => why,
                Err(error) => return Err(error),
            },
            Err(error) => format!("{error:#}"),
        };
        let note = Some(format!("The plan's JSON is not saved, only its numbers: {why}"));
        Ok(PlanJson { summary, note })
    }

    async fn mask_plan_json(
        &self,
        plan: &NamedTempFile,
        to: &NamedTempFile,
        survey: plan_json::Survey,
    ) -> Result<()> {
        let variables = self.task().variables.iter().filter(|variable| variable.sensitive);
        let sensitive = variables
            .map(|variable| {
                variable.key.strip_prefix("TF_VAR_").unwrap_or(&variable.key).to_owned()
            })
            .collect();
        let (from, to, redactor) = (plan.reopen()?, to.reopen()?, self.redactor());
        let masking = move || plan_json::mask(from, to, &survey, &sensitive, &redactor);
        tokio::task::spawn_blocking(masking).await.context("the masking panicked")?
    }

    /// Packs what the plan made into a file here; none if the container has no working
    /// directory any more.
    async fn pack_plan_files(
        &self,
        container: &str,
    ) -> Result<Option<(Packed, NamedTempFile, Option<NamedTempFile>)>, CallError> {
        let directory = directory_inside(self.task())?;
        let configuration = self.fetch(TaskFile::Configuration).await?;
        let configuration = configuration.context("the server has no configuration any more")?;
        let scratch = self.entry.directory().to_owned();
        let file = NamedTempFile::new_in(&scratch).context("cannot make a file")?;
        let to = file.reopen().context("cannot make a file")?;
        let pack = move |work: &mut dyn io::Read| {
            let before = Before::read(Reader::new(configuration, Some(&directory))?)?;
            let mut lock_file = None;
            let packed = pack(work, &before, &directory, &scratch, &to, &mut lock_file)?;
            Ok((packed, lock_file))
        };
        let packed = self.context.engine.archive_of(container, paths::WORK, pack).await?;
        Ok(packed.map(|(packed, lock_file)| (packed, file, lock_file)))
    }

    /// Notes in the end of the run that the server does not have a file. A state that it
    /// refused is kept here, one that can't be copied in its container.
    fn note_unsaved(&self, end: &mut End, file: TaskFile, unsaved: Unsaved) -> Result<()> {
        let (mut message, kept) = match unsaved {
            Unsaved::Refused { path, copy, why } => {
                let metadata = copy.as_file().metadata();
                let bytes = metadata.context("cannot look at what the run left")?.len();
                let kept = match file {
                    TaskFile::State => {
                        let Task { id, attempt, .. } = self.task();
                        let kept = lost::keep_state(&self.context, id, *attempt, &path, copy)?;
                        format!("It is kept in {} on the agent's host.", kept.display())
                    }
                    _ => String::new(),
                };
                (format!("cannot save the {file} of {bytes} bytes: {why}"), kept)
            }
            Unsaved::Unusable(error) => {
                let kept = format!(
                    "The container {0} is kept on the agent's host. Take from it what you need with `docker cp`, and remove it with `docker rm -v {0}`.",
                    self.container_name()
                );
                (format!("cannot save the {file}: {error}"), kept)
            }
        };
        if file == TaskFile::State {
            message.push_str(&format!("\n{kept}"));
            end.unsaved_state = Some(message.clone());
        }
        end.fail(format!("Error: {message}"));
        Ok(())
    }

    /// While an apply runs, gives the server each state that it writes.
    pub(super) async fn save_state_as_it_changes(
        &self,
        container: &str,
    ) -> std::convert::Infallible {
        if self.task().kind == Kind::Plan {
            return std::future::pending().await;
        }
        let mut sent = None;
        loop {
            let pause = self.context.intervals().state_milliseconds;
            tokio::time::sleep(Duration::from_millis(pause.into())).await;
            if let Err(error) = self.save_state(container, &mut sent).await {
                warn!("cannot save the state now: {error:#}");
            }
        }
    }

    async fn save_state(&self, container: &str, sent: &mut Option<String>) -> Result<()> {
        let Some(state) = self.copy_out(container, paths::STATE, LARGE_FILE).await? else {
            return Ok(());
        };
        let sum = sum::sha256(state.path())?;
        // Terraform writes the file in place: what does not parse is half of one.
        let json = io::BufReader::new(state.reopen()?);
        let whole = serde_json::from_reader::<_, serde::de::IgnoredAny>(json).is_ok();
        if whole && sent.as_ref() != Some(&sum) {
            let result = self.client.put(TaskFile::State, state.path()).await;
            // One that is refused is refused again; it may be large.
            if matches!(result, Ok(()) | Err(CallError::FileRefused(_))) {
                *sent = Some(sum);
            }
            result?;
        }
        Ok(())
    }

    async fn put(&self, file: TaskFile, content: &Path) -> Result<(), CallError> {
        self.progress.step(format!("upload {file}"), self.client.put(file, content)).await
    }

    /// Copies a file of the container into the task's folder, if there is such a file.
    pub(super) async fn copy_out(
        &self,
        container: &str,
        path: &str,
        limit: u64,
    ) -> Result<Option<NamedTempFile>> {
        let cannot = "cannot make a file for what the run left";
        let copy = NamedTempFile::new_in(self.entry.directory()).context(cannot)?;
        let to = copy.reopen().context(cannot)?;
        Ok(self.context.engine.copy_out(container, path, limit, to).await?.then_some(copy))
    }
}

fn file_size(file: &File) -> Result<u64> {
    Ok(file.metadata().context(NO_JSON)?.len())
}

/// Whether a plan is not whole: Terraform takes no notice when the end of it can't be
/// written, to a full disk for example. A plan is a zip archive.
fn is_cut_off(plan: &Path) -> Result<bool> {
    let mut plan = File::open(plan).context("cannot read the plan")?;
    let mut beginning = Vec::new();
    plan.by_ref().take(2).read_to_end(&mut beginning).context("cannot read the plan")?;
    // Not by a list of all that is in it: how long that is, the run decides.
    let is_whole = || ZipIterable::try_new(plan, Config::default()).is_ok();
    Ok(beginning.is_empty() || beginning == b"PK" && !is_whole())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_plan_without_its_end_is_cut_off() {
        let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        zip.start_file("tfplan", zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"a plan").unwrap();
        let whole = zip.finish().unwrap().into_inner();
        let is_cut_off = |content: &[u8]| {
            let file = NamedTempFile::new().unwrap();
            fs::write(file.path(), content).unwrap();
            is_cut_off(file.path()).unwrap()
        };
        assert!(!is_cut_off(&whole));
        assert!(is_cut_off(&whole[..whole.len() - 1]));
        assert!(is_cut_off(&[]));
        assert!(!is_cut_off(b"what another program calls a plan"));
    }
}
