//! Hooks: commands of the agent's owner, of the environment and of the workspace, which the
//! entry point runs between the steps.
//!
//! They run in the run's container, as the run's user and with the run's
//! environment; nothing of them runs on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;
use tracing::warn;

use super::{Job, paths};
use crate::engine;
use crate::trusted;
use cli::untrusted_file;
use config::Config;
use protocol::{EnvironmentHook, Hook};

/// The largest hook, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// How often the hook that runs is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long an overdue hook has to end by itself.
const BEFORE_KILL: Duration = Duration::from_secs(5);

/// The hooks in `directory`.
///
/// # Errors
/// The folder is not there; it, a hook or a folder above them is not `owner`'s
/// (or root's), or can be changed by others; a file has a name that is almost a
/// hook's; a hook can't be read or is too large.
pub(super) fn of_agent(directory: &Path, owner: u32) -> Result<Vec<(Hook, Vec<u8>)>> {
    let in_hooks = || format!("the agent's hooks in {} can't be used", directory.display());
    let directory = fs::canonicalize(directory).with_context(in_hooks)?;
    trusted::check(&directory, owner).with_context(in_hooks)?;
    let mut hooks = Vec::new();
    for entry in fs::read_dir(&directory).with_context(in_hooks)? {
        let name = entry.with_context(in_hooks)?.file_name();
        let name = name.to_string_lossy();
        match Hook::named(&name) {
            Some(hook) => {
                hooks.push((hook, read(&directory.join(&*name), owner).with_context(in_hooks)?));
            }
            None => refuse_misspelt(&name).with_context(in_hooks)?,
        }
    }
    Ok(hooks)
}

/// The folder of the environment's hook with this number, counted from 0, below
/// [`paths::HOOKS`]. The entry point takes the folders in the order of their names.
pub(super) fn folder_of_environment(number: usize) -> String {
    format!("environment-{number:02}")
}

/// The files of an environment's hook in this folder, and what is in them.
pub(super) fn files_of_environment(
    hook: &EnvironmentHook,
    folder: &str,
) -> Vec<(&'static str, String)> {
    let run = format!("#!/bin/sh\nexec {} {folder}/script\n", hook.interpreter);
    let events = hook.events.iter().map(|event| (event.name(), run.clone()));
    let rest = [("name", format!("{}\n", hook.name)), ("script", hook.script.clone())];
    rest.into_iter().chain(events).collect()
}

/// What to tell when a task's last line of status is a failed hook's.
pub(super) fn failure(
    name: &str,
    why: &str,
    of_environment: &[EnvironmentHook],
    config: &Config,
) -> Option<String> {
    let (origin, hook) = name.split_once(':')?;
    let mut numbered = of_environment.iter().enumerate();
    let found = numbered.find(|(number, _)| folder_of_environment(*number) == origin);
    let called = match found {
        Some((_, found)) => format!("environment's {hook} hook \"{}\"", found.name),
        None => format!("{origin}'s {hook} hook"),
    };
    let applied = match hook {
        "post-apply" => " The apply had ended, and its state is saved.",
        _ => "",
    };
    let what = match why {
        "overdue" => format!(
            "took longer than {} s and was ended; `scalr-agent configure --hook-timeout SECONDS` gives hooks more time",
            config.hook_timeout.as_secs()
        ),
        "environment" => {
            "wrote something else to $SCALR_ENV_FILE than lines of NAME=VALUE".to_owned()
        }
        "126" | "127" => format!(
            "ended with exit code {why}: the image lacks a program that it calls, or that is named in its first line"
        ),
        code => format!("ended with exit code {code}"),
    };
    Some(format!("Error: the {called} {what}.{applied}"))
}

impl Job {
    /// Ends hooks that take too long. The time is counted from when this agent
    /// first saw the hook, so a restart of the agent gives it more.
    pub(super) async fn end_overdue_hooks(&self, container: &str) -> std::convert::Infallible {
        let config = &self.context.config;
        let task = self.task();
        let has_hooks = !task.hooks.is_empty() || !task.environment_hooks.is_empty();
        if config.hooks_dir.is_none() && !has_hooks {
            return std::future::pending().await;
        }
        let mut seen = (Vec::new(), Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            let now = match self.context.engine.read(container, paths::HOOK).await {
                Ok(now) => now.unwrap_or_default(),
                // A hook that hides that it runs has as much time as another.
                Err(error) if engine::is_unusable(&error) => error.to_string().into_bytes(),
                // An engine that is away is waited for elsewhere.
                Err(_) => continue,
            };
            if now != seen.0 {
                seen = (now, Instant::now());
            } else if !now.is_empty() && seen.1.elapsed() > config.hook_timeout {
                // The first one asks the hook to end, the second one ends it.
                warn!("ending a hook that takes too long");
                if let Err(error) = self.context.engine.signal(container, "SIGUSR1").await {
                    warn!("cannot end the hook: {error:#}");
                }
                tokio::time::sleep(BEFORE_KILL).await;
            }
        }
    }
}

fn read(path: &Path, owner: u32) -> Result<Vec<u8>> {
    let path = fs::canonicalize(path).with_context(|| format!("{}", path.display()))?;
    trusted::check(&path, owner)?;
    untrusted_file::read(&path, LARGEST).with_context(|| {
        format!(
            "cannot read {}; it has to be a file of at most {LARGEST} bytes that the agent can read",
            path.display()
        )
    })
}

/// A check that never runs because of a letter would be worse than an error.
fn refuse_misspelt(name: &str) -> Result<()> {
    let plain = PathBuf::from(name.replace('_', "-").to_lowercase());
    let stem = plain.file_stem().unwrap_or_default().to_string_lossy();
    match Hook::named(&stem) {
        Some(hook) if !name.starts_with('.') => {
            bail!("`{name}` is not a hook's name; did you mean `{}`?", hook.name())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn own() -> u32 {
        users::get_effective_uid()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("pre-plan"), "echo hello").unwrap();
        fs::write(folder.path().join("README.md"), "what these are").unwrap();
        folder
    }

    fn refusal(folder: &Path) -> String {
        format!("{:#}", of_agent(folder, own()).unwrap_err())
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_folders_hooks_are_read() {
        let hooks = of_agent(folder().path(), own()).unwrap();
        assert_eq!(hooks, [(Hook::PrePlan, b"echo hello".to_vec())]);
    }

    #[test]
    fn what_others_can_change_is_refused() {
        let folder = folder();
        let hook = folder.path().join("pre-plan");
        chmod(&hook, 0o775);
        assert!(refusal(folder.path()).contains("pre-plan can be written by others"));
        chmod(&hook, 0o755);
        chmod(folder.path(), 0o777);
        assert!(refusal(folder.path()).contains("chmod go-w"));
        // Sticky does not help for the folder itself: others can add hooks.
        chmod(folder.path(), 0o1777);
        assert!(refusal(folder.path()).contains("chmod go-w"));
        chmod(folder.path(), 0o755);
        let elsewhere = tempfile::tempdir().unwrap();
        let open = elsewhere.path().join("open");
        fs::write(&open, "").unwrap();
        chmod(&open, 0o666);
        fs::remove_file(&hook).unwrap();
        std::os::unix::fs::symlink(&open, &hook).unwrap();
        assert!(refusal(folder.path()).contains("open can be written by others"));
    }

    #[test]
    fn another_owner_is_refused() {
        if !host::users::are_root() {
            println!("skipped: only root can give a file to somebody else");
            return;
        }
        let folder = folder();
        std::os::unix::fs::chown(folder.path().join("pre-plan"), Some(65534), None).unwrap();
        assert!(refusal(folder.path()).contains("is not owned by root"));
    }

    #[test]
    fn an_environments_hook_is_read_by_its_interpreter_at_each_of_its_events() {
        let hook = EnvironmentHook {
            name: "policy".to_owned(),
            interpreter: "python3".to_owned(),
            script: "print('$HOME')".to_owned(),
            events: vec![Hook::PrePlan, Hook::PostPlan],
        };
        let run = "#!/bin/sh\nexec python3 /hooks/environment-01/script\n";
        assert_eq!(
            files_of_environment(&hook, "/hooks/environment-01"),
            [
                ("name", "policy\n".to_owned()),
                ("script", "print('$HOME')".to_owned()),
                ("pre-plan", run.to_owned()),
                ("post-plan", run.to_owned()),
            ]
        );
    }

    #[test]
    fn a_missing_folder_and_a_misspelt_name_are_reported() {
        let folder = folder();
        assert!(refusal(&folder.path().join("none")).contains("No such file"));
        for wrong in ["pre_apply", "pre-apply.sh", "Post-Plan"] {
            fs::write(folder.path().join(wrong), "").unwrap();
            assert!(refusal(folder.path()).contains("did you mean"), "{wrong}");
            fs::remove_file(folder.path().join(wrong)).unwrap();
        }
    }
}
