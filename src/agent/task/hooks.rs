//! Hooks: commands of the agent's owner and of the workspace, which the entry
//! point runs between the steps.
//!
//! They run in the run's container, as the run's user and with the run's
//! environment; nothing of them runs on the host.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::Instant;
use tracing::warn;

use super::{Job, paths};
use crate::trusted;
use config::Config;
use protocol::Hook;

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

/// What to tell when a task's last line of status is a failed hook's.
pub(super) fn failure(name: &str, why: &str, config: &Config) -> Option<String> {
    let (origin, hook) = name.split_once(':')?;
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
    Some(format!("Error: the {origin}'s {hook} hook {what}.{applied}"))
}

impl Job {
    /// Ends hooks that take too long. The time is counted from when this agent
    /// first saw the hook, so a restart of the agent gives it more.
    pub(super) async fn end_overdue_hooks(&self, container: &str) -> std::convert::Infallible {
        let config = &self.context.config;
        if config.hooks_dir.is_none() && self.task().hooks.is_empty() {
            return std::future::pending().await;
        }
        let mut seen = (Vec::new(), Instant::now());
        loop {
            tokio::time::sleep(LOOK).await;
            // An engine that is away is waited for elsewhere.
            let Ok(now) = self.context.engine.read(container, paths::HOOK).await else {
                continue;
            };
            let now = now.unwrap_or_default();
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
    let cannot = || format!("cannot read {}; it has to be readable by the agent", path.display());
    let file = fs::File::open(&path).with_context(cannot)?;
    if !file.metadata().with_context(cannot)?.is_file() {
        bail!("{} is not a file", path.display());
    }
    let mut content = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut content).with_context(cannot)?;
    if content.len() as u64 > LARGEST {
        bail!("{} is larger than {LARGEST} bytes", path.display());
    }
    Ok(content)
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
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::log::end_mark::EndMark;

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
    fn a_missing_folder_and_a_misspelt_name_are_told() {
        let folder = folder();
        assert!(refusal(&folder.path().join("none")).contains("No such file"));
        for wrong in ["pre_apply", "pre-apply.sh", "Post-Plan"] {
            fs::write(folder.path().join(wrong), "").unwrap();
            assert!(refusal(folder.path()).contains("did you mean"), "{wrong}");
            fs::remove_file(folder.path().join(wrong)).unwrap();
        }
    }

    /// A container's folder, and the entry point made to work there.
    struct Run(tempfile::TempDir);

    impl Run {
        /// Its `terraform` says what it was told, and knows WORD.
        fn new(hooks: &[(&str, &str)]) -> Self {
            let run = Self(tempfile::tempdir().unwrap());
            for folder in ["bin", "work", "hooks/agent", "hooks/workspace"] {
                fs::create_dir_all(run.path(folder)).unwrap();
            }
            run.script("bin/terraform", "#!/bin/sh\necho \"terraform $1 WORD=$WORD\"\n");
            for (name, text) in hooks {
                run.script(&format!("hooks/{name}"), text);
            }
            let environment = "WORD='as set'\n_x='1'\nkind='apply'\nname='mine'\n";
            fs::write(run.path("environment"), environment).unwrap();
            let script = include_str!("../../../templates/run/entrypoint.sh");
            let script = script.replace("/scalr/run", run.path("").to_str().unwrap());
            fs::write(run.path("entrypoint.sh"), script).unwrap();
            run
        }

        fn path(&self, name: &str) -> PathBuf {
            if name.is_empty() { self.0.path().to_owned() } else { self.0.path().join(name) }
        }

        fn script(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
            chmod(&self.path(name), 0o755);
        }

        fn start(&self, kind: &str) -> Child {
            let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
            // As in a container: a shell can't trap what it was started to ignore, as
            // everything in the background is.
            Command::new("env")
                .args(["--default-signal", "/bin/sh"])
                .arg(self.path("entrypoint.sh"))
                .args([kind, "apply"])
                .arg(self.path("work"))
                .arg("task-1-1")
                .env("PATH", path)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        }

        /// Waits until a file is there that a hook or `terraform` makes where it works.
        /// Those that then go on do so until it is gone, at the latest with this folder.
        fn wait_for(&self, name: &str) {
            let since = Instant::now();
            while !self.path("work").join(name).exists() {
                assert!(since.elapsed() < Duration::from_secs(60), "{name} is not there");
                std::thread::yield_now();
            }
        }

        /// What it said, which has to be whole, and its lines of status.
        fn end(&self, child: Child) -> (String, String) {
            let output = child.wait_with_output().unwrap();
            let status = fs::read_to_string(self.path("status")).unwrap_or_default();
            let mut end = EndMark::new("task-1-1");
            let said = [end.push(&output.stdout), end.finish()].concat();
            assert!(end.is_seen(), "it has no end: {}", String::from_utf8_lossy(&said));
            (String::from_utf8(said).unwrap(), status)
        }
    }

    #[test]
    fn hooks_run_between_the_steps_and_pass_variables_on() {
        let run = Run::new(&[
            ("agent/pre-init", "echo 'WORD=it'\"'\"'s $HOME' >>\"$SCALR_ENV_FILE\""),
            ("agent/pre-plan", "echo agent; printf 'WORD=of the agent' >>$SCALR_ENV_FILE"),
            ("workspace/pre-plan", "#!/bin/sh\necho \"workspace $WORD\""),
            ("workspace/post-plan", "echo after the plan"),
            ("workspace/pre-apply", "echo never"),
        ]);
        let (said, status) = run.end(run.start("plan"));
        assert_eq!(
            said,
            "Running the agent's pre-init hook\nterraform init WORD=it's $HOME\n\
             Running the agent's pre-plan hook\nagent\n\
             Running the workspace's pre-plan hook\nworkspace of the agent\n\
             terraform plan WORD=of the agent\n\
             Running the workspace's post-plan hook\nafter the plan\n"
        );
        assert_eq!(status, "init 0\nplan 0\n");
    }

    #[test]
    fn a_failed_hook_ends_the_task() {
        let run = Run::new(&[("workspace/pre-apply", "exit 3")]);
        let (said, status) = run.end(run.start("apply"));
        assert!(!said.contains("terraform apply"), "{said}");
        assert_eq!(status, "init 0\nworkspace:pre-apply 3\n");
        let run = Run::new(&[("agent/post-apply", "no-such-program")]);
        assert_eq!(run.end(run.start("apply")).1, "init 0\napply 0\nagent:post-apply 127\n");
        for line in ["word", "=x", "1A=x", "a-b=x", "$(id)=x"] {
            let run = Run::new(&[("agent/pre-init", &format!("echo '{line}' >$SCALR_ENV_FILE"))]);
            assert_eq!(run.end(run.start("plan")).1, "agent:pre-init environment\n", "{line}");
        }
    }

    #[test]
    fn terraform_looks_for_providers_where_the_agent_has_put_them() {
        // What the agent has put there, what else there is, what Terraform is told.
        for (agents, own, told) in [
            ("providers.tfrc", "work/main.tf", "providers.tfrc"),
            ("mirror.tfrc", "work/main.tf", "mirror.tfrc"),
            ("nothing", "work/main.tf", ""),
            ("providers.tfrc", "work/terraform.d/plugins/own", ""),
            ("providers.tfrc", "home/.terraform.d/plugins/own", ""),
            ("providers.tfrc", "home/.local/share/terraform/plugins/own", ""),
            ("mirror.tfrc", "work/terraform.d/plugins/own", "mirror.tfrc"),
            ("providers.tfrc", "home/.terraformrc", ""),
            ("mirror.tfrc", "home/.terraform.d/own.tfrc", ""),
        ] {
            let run = Run::new(&[]);
            run.script("bin/terraform", "#!/bin/sh\necho \"$1 ${TF_CLI_CONFIG_FILE##*/}\"\n");
            fs::create_dir_all(run.path(own).parent().unwrap()).unwrap();
            for file in [agents, own] {
                fs::write(run.path(file), "").unwrap();
            }
            let home = run.path("home");
            let environment = format!(
                "HOME='{}'\nTF_CLI_CONFIG_FILE=\nXDG_DATA_DIRS=\nXDG_DATA_HOME=\n",
                home.display()
            );
            fs::write(run.path("environment"), &environment).unwrap();
            let (said, _) = run.end(run.start("plan"));
            assert_eq!(said, format!("init {told}\nplan {told}\n"), "{agents} {own}");
            let environment = environment.replace("CONFIG_FILE=", "CONFIG_FILE=/my/own");
            fs::write(run.path("environment"), environment).unwrap();
            let (said, _) = run.end(run.start("plan"));
            assert_eq!(said, "init own\nplan own\n", "{agents} {own}");
        }
    }

    #[test]
    fn an_overdue_hook_is_ended_even_if_it_does_not_want_to() {
        let hook = "trap 'echo x >told' TERM; echo x >ready; while [ -e ready ]; do :; done";
        let run = Run::new(&[("agent/pre-init", hook)]);
        let child = run.start("plan");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Told once, it goes on.
        for sign in ["ready", "told"] {
            run.wait_for(sign);
            assert_eq!(fs::read_to_string(run.path("hook")).unwrap(), "agent pre-init\n", "{sign}");
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
        }
        assert_eq!(run.end(child).1, "agent:pre-init overdue\n");
    }

    #[test]
    fn a_stop_ends_a_hook_and_what_was_not_checked_did_not_pass() {
        let run = Run::new(&[("agent/post-plan", "echo x >ready; while [ -e ready ]; do :; done")]);
        let child = run.start("plan");
        run.wait_for("ready");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
        assert_eq!(run.end(child).1, "init 0\nplan 0\nagent:post-plan 143\n");
    }

    #[test]
    fn a_run_that_lists_its_processes_does_not_say_its_last_line() {
        let run = Run::new(&[]);
        run.script("bin/terraform", "#!/bin/sh\nxargs -0 echo </proc/$PPID/cmdline\n");
        let (said, _) = run.end(run.start("plan"));
        assert_eq!(said.lines().filter(|line| line.ends_with("task-1-1")).count(), 2, "{said}");
    }

    #[test]
    fn an_interrupt_that_is_said_twice_reaches_terraform_once() {
        let run = Run::new(&[]);
        // Not a shell: one in the background could not heed an interrupt.
        let terraform = r#"#!/usr/bin/perl
exit 0 if $ARGV[0] eq "init";
sub note { open my $file, ">>", $_[0]; print $file "x" }
$SIG{INT} = sub { note("interrupts") };
$SIG{TERM} = sub { note("terminated") };
note("ready");
select undef, undef, undef, 0.01 until -e "end" or not -e "ready";
"#;
        run.script("bin/terraform", terraform);
        let child = run.start("apply");
        let signal = |signal| {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
            nix::sys::signal::kill(pid, signal).unwrap();
        };
        run.wait_for("ready");
        signal(nix::sys::signal::Signal::SIGINT);
        run.wait_for("interrupts");
        signal(nix::sys::signal::Signal::SIGINT);
        // Handed on after it, since shells take signals by their numbers.
        signal(nix::sys::signal::Signal::SIGTERM);
        run.wait_for("terminated");
        fs::write(run.path("work/end"), "").unwrap();
        assert_eq!(run.end(child).1, "init 0\napply 0\n");
        assert_eq!(fs::read_to_string(run.path("work/interrupts")).unwrap(), "x");
    }
}
