//! The guard over applies: one that succeeded has changed the workspace's state. If it
//! has not, its state went elsewhere, and what was made is in no state that the server
//! knows.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;
use tracing::warn;

use super::{End, Job, paths};
use crate::engine::{self, LARGE_FILE};
use crate::journal::Container;
use crate::sum;
use cli::whole_file::WholeFile;

/// How long the search for states may take: a run can leave a file that never ends.
const SEARCH: Duration = Duration::from_secs(300);

/// How much of a file tells whether it is a state, in bytes: version and lineage stand
/// at its beginning.
const BEGINNING: u64 = 4096;

impl Job {
    /// Makes a failure of an apply that succeeded and left the state as it was.
    pub(super) async fn check_state_moved(
        &self,
        container: &Container,
        end: &mut End,
    ) -> Result<()> {
        if self.task().changes_nothing {
            return Ok(());
        }
        let state = NamedTempFile::new_in(self.entry.directory())
            .context("cannot make a file for what the run left")?;
        let to = state.reopen()?;
        let copied = self.context.engine.copy_out(&container.id, paths::STATE, LARGE_FILE, to);
        let there = match copied.await {
            // What is handed over finds it too, and says so.
            Err(error) if engine::is_unusable(&error) => return Ok(()),
            there => there?,
        };
        let moved = there && Some(sum::sha256(state.path())?) != container.state_sha256;
        if moved {
            return Ok(());
        }
        let why = format!(
            "Terraform says that the apply succeeded, but the workspace's state is as it was before, so the server has no state of what was made. {}",
            self.keep_states(&container.id).await?
        );
        warn!("{why}");
        end.fail(format!("Error: {why}"));
        end.unsaved_state = Some(why);
        Ok(())
    }

    /// Keeps the files of a container that look like states, and says where.
    ///
    /// # Errors
    /// The engine doesn't answer, or the disk is full. The container has to stay then: it
    /// may hold the only state.
    async fn keep_states(&self, container: &str) -> Result<String> {
        let task = self.task();
        let directory = self.context.journal.lost(&task.id, task.attempt)?;
        let search = tokio::time::timeout(SEARCH, self.search(container, &directory)).await;
        let searched = match search {
            Ok(result) => result.map(|()| "The run's container".to_owned())?,
            Err(_) => format!(
                "The search in the run's container was not complete after {} s, and what it saw of it",
                SEARCH.as_secs()
            ),
        };
        let kept = files(&directory)?;
        if kept.is_empty() {
            // Nothing is kept. With an earlier file in it, it stays.
            let _ = fs::remove_dir(&directory);
            return Ok(format!("{searched} has no file that looks like a state."));
        }
        let kept: Vec<_> = kept.iter().map(|path| format!("/{}", path.display())).collect();
        Ok(format!(
            "{searched} has files that look like states; they are kept in {} on the agent's host: {}.",
            directory.display(),
            kept.join(", ")
        ))
    }

    async fn search(&self, container: &str, to: &Path) -> Result<()> {
        let engine = &self.context.engine;
        let mut places = vec![paths::SCALR.to_owned(), paths::TMP.to_owned()];
        places.extend(engine.added(container).await?);
        let left = Arc::new(AtomicU64::new(LARGE_FILE));
        for place in places {
            let parent = Path::new(&place).parent().unwrap_or(Path::new("/")).to_owned();
            let (to, left) = (to.to_owned(), Arc::clone(&left));
            let keep = move |path: &Path, content: &mut dyn Read| {
                let path = parent.join(path);
                if path == Path::new(paths::STATE) || is_terraforms_own(&path) {
                    return Ok(());
                }
                keep_if_state(&path, content, &to, &left)
            };
            engine.each_file(container, &place, keep).await?;
        }
        Ok(())
    }
}

/// Whether a file is in a folder of what Terraform installs, which is large and holds no
/// state.
fn is_terraforms_own(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == ".terraform")
}

/// Copies a file of a container into `to`, below its path, if it looks like a state; `left`
/// is how many bytes may still be copied.
fn keep_if_state(path: &Path, content: &mut dyn Read, to: &Path, left: &AtomicU64) -> Result<()> {
    let mut beginning = Vec::new();
    content.take(BEGINNING).read_to_end(&mut beginning)?;
    if !looks_like_state(&beginning) {
        return Ok(());
    }
    let inside = configuration::inside(path.strip_prefix("/").unwrap_or(path));
    let path = to.join(inside.with_context(|| format!("{} leads out", path.display()))?);
    let folder = path.parent().unwrap_or(to);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let limit = left.load(Ordering::Relaxed);
    let mut content = beginning.as_slice().chain(content).take(limit);
    let mut kept = WholeFile::at(&path).draft()?;
    let copied = io::copy(&mut content, &mut kept)
        .with_context(|| format!("cannot write {}", path.display()))?;
    left.store(limit - copied, Ordering::Relaxed);
    if copied == limit {
        warn!("{} is not kept: the states have too much together", path.display());
        return Ok(());
    }
    WholeFile::at(&path).put(kept)
}

fn looks_like_state(beginning: &[u8]) -> bool {
    let text: String = String::from_utf8_lossy(beginning).split_whitespace().collect();
    text.starts_with('{') && text.contains("\"version\":4") && text.contains("\"lineage\":")
}

/// The files below a folder, relative to it, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("cannot read {}", folder.display()))?;
        if entry.file_type().is_file() {
            files.push(entry.path().strip_prefix(folder)?.to_owned());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_kept_below_its_path_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let state = r#"{
  "version": 4, "terraform_version": "1.11.4", "serial": 3, "lineage": "5b1c"
}"#;
        for (path, content) in [
            ("/tmp/x", state),
            ("/scalr/work/terraform.tfstate.d/prod/terraform.tfstate", state),
            ("/tmp/plan.json", r#"{"format_version": "1.2", "lineage": "no"}"#),
            ("/tmp/backend", r#"{"version": 3, "lineage": "a backend's"}"#),
            ("/tmp/text", "version lineage"),
        ] {
            let left = AtomicU64::new(LARGE_FILE);
            keep_if_state(Path::new(path), &mut content.as_bytes(), folder.path(), &left).unwrap();
        }
        let kept = files(folder.path()).unwrap();
        let of_workspace = "scalr/work/terraform.tfstate.d/prod/terraform.tfstate";
        assert_eq!(kept, [Path::new(of_workspace), Path::new("tmp/x")]);
        assert_eq!(fs::read_to_string(folder.path().join("tmp/x")).unwrap(), state);
    }

    #[test]
    fn a_copy_that_an_agent_was_killed_in_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = r#"{"version": 4, "lineage": "5b1c"}"#;
        fs::create_dir(folder.path().join("tmp")).unwrap();
        WholeFile::at(&folder.path().join("tmp/x")).draft().unwrap().keep().unwrap();
        let left = AtomicU64::new(LARGE_FILE);
        keep_if_state(Path::new("/tmp/x"), &mut state.as_bytes(), folder.path(), &left).unwrap();
        assert_eq!(files(folder.path()).unwrap(), [Path::new("tmp/x")]);
    }

    #[test]
    fn states_that_have_too_much_together_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let left = AtomicU64::new(5000);
        let begin = r#"{"version": 4, "lineage": "5b1c"}"#;
        for (path, padding) in [("/tmp/small", 1000), ("/tmp/endless", u64::MAX), ("/tmp/one", 1)] {
            let mut content = begin.as_bytes().chain(io::repeat(b' ').take(padding));
            keep_if_state(Path::new(path), &mut content, folder.path(), &left).unwrap();
        }
        assert_eq!(files(folder.path()).unwrap(), [Path::new("tmp/small")]);
    }
}
