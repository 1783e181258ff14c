//! What the end of a task's container means.

use std::time::Duration;

use super::interrupt::Interrupt;
use super::{disk, hooks, memory, time_limit};
use config::{Config, defaults};
use protocol::{EnvironmentHook, Kind, Outcome, Platform};

/// How a task's steps ended.
#[derive(Debug, PartialEq)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    pub(super) exit_code: Option<i64>,
    pub(super) oom_killed: bool,
    pub(super) has_changes: Option<bool>,
    pub(super) message: Option<String>,
    /// Why the server may not have the state that the apply left, and where that is kept.
    pub(super) unsaved_state: Option<String>,
}

impl End {
    /// Makes a failure of it, unless it was canceled, `why` being one more reason.
    pub(super) fn fail(&mut self, why: String) {
        if self.outcome != Outcome::Canceled {
            self.outcome = Outcome::Errored;
        }
        self.message = Some(match self.message.take() {
            Some(first) => format!("{first}\n{why}"),
            None => why,
        });
    }
}

/// What is known when a task's container has ended.
pub(super) struct Ending<'a> {
    pub(super) kind: Kind,
    /// What the entry point wrote: a line `STEP CODE` for each step, or `error WHY`
    /// for what it refused.
    pub(super) status: &'a str,
    /// The exit code of the container's first process.
    pub(super) exit_code: i64,
    /// Whether the kernel killed one of its processes for memory.
    pub(super) oom_killed: bool,
    /// Whether this agent interrupted it because its memory was nearly used up.
    pub(super) was_pressed: bool,
    /// Whether this agent interrupted it for what it had on the engine's disk.
    pub(super) was_over_disk: bool,
    /// How much it had on the engine's disk when it ended, in MB, if that is more than it
    /// may have and the engine refuses writes beyond that.
    pub(super) filled_disk: Option<u64>,
    /// The time limit, if this agent interrupted it because it reached that.
    pub(super) reached: Option<Duration>,
    /// Who else interrupted it, if anybody did.
    pub(super) interrupt: Option<Interrupt>,
    /// The image, where a program was not found in it.
    pub(super) image: Option<&'a str>,
    /// What the workspace asks for; none: what there is.
    pub(super) platform: Option<Platform>,
    /// The environment's hooks, in their order.
    pub(super) environment_hooks: &'a [EnvironmentHook],
}

impl Ending<'_> {
    /// Whether Terraform said that it has applied the plan, whatever came after that.
    pub(super) fn has_applied(&self) -> bool {
        self.kind == Kind::Apply && self.status.lines().any(|line| line == "apply 0")
    }
}

/// Whether the task's own step is the last one that ended, and succeeded.
pub(super) fn has_finished(kind: Kind, status: &str) -> bool {
    let last = status.lines().last();
    match kind {
        Kind::Plan => matches!(last, Some("plan 0" | "plan 2")),
        Kind::Apply => last == Some("apply 0"),
    }
}

/// What an ended container means for its task.
pub(super) fn outcome(ending: &Ending<'_>, config: &Config) -> End {
    let last = ending.status.lines().last().and_then(|line| line.split_once(' '));
    let code = last.and_then(|(_, code)| code.parse().ok()).unwrap_or(ending.exit_code);
    let end = End {
        outcome: Outcome::Errored,
        exit_code: Some(code),
        oom_killed: ending.oom_killed,
        has_changes: None,
        message: None,
        unsaved_state: None,
    };
    if has_finished(ending.kind, ending.status) {
        let has_changes = (ending.kind == Kind::Plan).then_some(code == 2);
        return End { outcome: Outcome::Finished, has_changes, ..end };
    }
    // Nobody canceled the run of an agent that was stopped: it failed.
    let outcome = match ending.interrupt {
        Some(Interrupt::Canceled) => Outcome::Canceled,
        _ => Outcome::Errored,
    };
    End { outcome, message: reason(ending, last, code, config), ..end }
}

/// Why a task did not finish, where its own log does not say it.
fn reason(
    ending: &Ending<'_>,
    last: Option<(&str, &str)>,
    code: i64,
    config: &Config,
) -> Option<String> {
    if let Some(interrupt) = ending.interrupt {
        return Some(format!("Interrupted: {}.", interrupt.why()));
    }
    if let Some(limit) = ending.reached {
        return Some(time_limit::reason(ending.kind, limit));
    }
    if ending.was_pressed {
        return Some(format!(
            "Error: the run was interrupted because it used more than {} % of its {} MB of memory. {}",
            memory::PRESSED_PERCENT,
            config.memory,
            memory::ADVICE
        ));
    }
    if ending.was_over_disk {
        return Some(format!(
            "Error: the run was interrupted because of the engine's disk, where a run may have {} MB; the warning in its log, or in the agent's journal if that disk was full, says why. {}",
            config.disk,
            disk::ADVICE
        ));
    }
    if let Some(used) = ending.filled_disk {
        return Some(format!(
            "Error: the run had {used} MB on the engine's disk when it failed, where a run may have {} MB; the engine refuses writes beyond {} MB in one folder. {}",
            config.disk,
            disk::engine_limit(config),
            disk::ADVICE
        ));
    }
    if let Some(("error", why)) = last {
        return Some(format!("Error: {why}."));
    }
    let of_environment = ending.environment_hooks;
    if let Some(hook) =
        last.and_then(|(name, why)| hooks::failure(name, why, of_environment, config))
    {
        return Some(hook);
    }
    if ending.oom_killed {
        return Some(format!(
            "Error: the kernel killed a process of the run, which used more than its {} MB of memory. {}",
            config.memory,
            memory::ADVICE
        ));
    }
    // The entry point writes down how a step ended before it ends itself.
    if ending.exit_code > 128 && last.is_none_or(|(_, code)| code == "0") {
        return Some(format!(
            "Error: the run's container was ended from outside (exit code {}), by a restart of its host for example.",
            ending.exit_code
        ));
    }
    (code == 127).then(|| without_program(ending))
}

/// What is wrong with an image that lacks the run's program.
fn without_program(ending: &Ending<'_>) -> String {
    let image = ending.image.unwrap_or("of this run");
    let advice =
        "for the workspace, the pool or the agent (`scalr-agent configure --image`), for example";
    let Some(platform) = ending.platform else {
        return format!(
            "Error: the image {image} has neither `terraform` nor `tofu` on its PATH. Name an image that has one of them {advice} {}.",
            defaults::IMAGE
        );
    };
    let example = match platform {
        Platform::Terraform => defaults::IMAGE,
        Platform::OpenTofu => defaults::OPENTOFU_IMAGE,
    };
    format!(
        "Error: the image {image} has no `{}` on its PATH, and the workspace's iac-platform is {}. Name an image that has it {advice} {example}, or change the workspace's iac-platform.",
        platform.program(),
        platform.name()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Settings;
    use protocol::Secret;

    fn config() -> Config {
        let settings = Settings {
            url: Some("https://pools.example.com".parse().unwrap()),
            token: Some(Secret::new("t")),
            ..Settings::default()
        };
        settings.resolve().unwrap()
    }

    /// A container that ended by itself.
    fn ended(kind: Kind, status: &str, exit_code: i64) -> Ending<'_> {
        Ending {
            kind,
            status,
            exit_code,
            oom_killed: false,
            was_pressed: false,
            was_over_disk: false,
            filled_disk: None,
            reached: None,
            interrupt: None,
            image: (exit_code == 127).then_some("alpine:3"),
            platform: None,
            environment_hooks: &[],
        }
    }

    #[test]
    fn each_way_to_end_has_its_outcome_and_its_reason() {
        use Interrupt::{Canceled, Hurried, Stopped};
        use Kind::{Apply, Plan};
        use Outcome::{Errored, Finished};
        let killed = |ending| Ending { oom_killed: true, ..ending };
        let pressed = |ending| Ending { was_pressed: true, ..ending };
        let late = |ending| Ending { reached: Some(Duration::from_secs(20)), ..ending };
        let filled = |ending| Ending { filled_disk: Some(200), ..ending };
        let over_disk = |ending| Ending { was_over_disk: true, ..ending };
        let interrupted = |who, ending| Ending { interrupt: Some(who), ..ending };
        for (ending, outcome_is, has_changes, reason_has) in [
            (ended(Plan, "init 0\nplan 0\n", 0), Finished, Some(false), None),
            (ended(Plan, "init 0\nplan 2\n", 0), Finished, Some(true), None),
            (ended(Apply, "init 0\napply 0\n", 0), Finished, None, None),
            // Terraform said why in the log.
            (ended(Plan, "init 0\nplan 1\n", 1), Errored, None, None),
            (ended(Plan, "init 1\n", 1), Errored, None, None),
            (ended(Apply, "init 0\napply 1\n", 1), Errored, None, None),
            // 2 means changes for a plan alone; a 0 of another step means nothing.
            (ended(Apply, "init 0\napply 2\n", 2), Errored, None, None),
            (ended(Plan, "init 0\n", 0), Errored, None, None),
            (ended(Plan, "", 0), Errored, None, None),
            (
                ended(Plan, "init 127\n", 127),
                Errored,
                None,
                Some("alpine:3 has neither `terraform` nor `tofu`"),
            ),
            (
                ended(Plan, "version 127\n", 127),
                Errored,
                None,
                Some("alpine:3 has neither `terraform` nor `tofu`"),
            ),
            (
                Ending { platform: Some(Platform::OpenTofu), ..ended(Plan, "version 127\n", 127) },
                Errored,
                None,
                Some(
                    "alpine:3 has no `tofu` on its PATH, and the workspace's iac-platform is opentofu. Name an image that has it for the workspace, the pool or the agent (`scalr-agent configure --image`), for example ghcr.io/opentofu/opentofu:{version}",
                ),
            ),
            (
                ended(Plan, "error no Terraform configuration in live: it is empty\n", 1),
                Errored,
                None,
                Some("Error: no Terraform configuration in live: it is empty."),
            ),
            (ended(Plan, "", 137), Errored, None, Some("from outside (exit code 137)")),
            (ended(Plan, "init 0\n", 143), Errored, None, Some("from outside")),
            (ended(Plan, "init 0\nplan 1\n", 143), Errored, None, None),
            (ended(Plan, "agent:pre-plan 3\n", 3), Errored, None, Some("pre-plan hook ended")),
            (killed(ended(Plan, "init 0\nplan 1\n", 1)), Errored, None, Some("the kernel killed")),
            (
                pressed(ended(Plan, "init 0\nplan 1\n", 1)),
                Errored,
                None,
                Some("80 % of its 512 MB"),
            ),
            (
                late(ended(Apply, "init 0\napply 1\n", 1)),
                Errored,
                None,
                Some(
                    "its time limit of 20 s. To allow more time, set the workspace's apply-timeout-seconds",
                ),
            ),
            (late(killed(ended(Plan, "", 137))), Errored, None, Some("plan-timeout-seconds")),
            (late(ended(Apply, "init 0\napply 0\n", 0)), Finished, None, None),
            // The hook ended because it was interrupted.
            (
                over_disk(ended(Plan, "init 0\nworkspace:pre-plan 143\n", 143)),
                Errored,
                None,
                Some("where a run may have 10240 MB"),
            ),
            (
                pressed(ended(Plan, "init 0\nworkspace:pre-plan 143\n", 143)),
                Errored,
                None,
                Some("80 % of its 512 MB"),
            ),
            (
                over_disk(ended(Plan, "init 0\nplan 1\n", 1)),
                Errored,
                None,
                Some("where a run may have 10240 MB"),
            ),
            (
                filled(ended(Plan, "init 0\nplan 1\n", 1)),
                Errored,
                None,
                Some(
                    "200 MB on the engine's disk when it failed, where a run may have 10240 MB; the engine refuses writes beyond 10368 MB in one folder. Let it write less",
                ),
            ),
            // The step finished before anything reached it.
            (killed(ended(Apply, "init 0\napply 0\n", 0)), Finished, None, None),
            (pressed(ended(Apply, "init 0\napply 0\n", 0)), Finished, None, None),
            (interrupted(Canceled, ended(Apply, "init 0\napply 0\n", 0)), Finished, None, None),
            (
                interrupted(Canceled, ended(Apply, "init 0\napply 1\n", 1)),
                Outcome::Canceled,
                None,
                Some("Interrupted: the run was canceled."),
            ),
            (
                interrupted(Stopped, ended(Apply, "init 0\napply 1\n", 1)),
                Errored,
                None,
                Some("Interrupted: the agent was stopped."),
            ),
            // An interrupt explains what it led to.
            (
                interrupted(Hurried, killed(ended(Plan, "", 137))),
                Errored,
                None,
                Some("Interrupted: the agent was stopped."),
            ),
        ] {
            let end = outcome(&ending, &config());
            let case = format!("{:?} {:?}: {end:?}", ending.kind, ending.status);
            assert_eq!((end.outcome, end.has_changes), (outcome_is, has_changes), "{case}");
            match (&end.message, reason_has) {
                (None, None) => {}
                (Some(message), Some(part)) => assert!(message.contains(part), "{case}"),
                _ => panic!("{case}"),
            }
        }
    }

    #[test]
    fn a_failed_hook_of_the_environment_is_named() {
        let hook = |name: &str| EnvironmentHook {
            name: name.to_owned(),
            interpreter: "sh".to_owned(),
            script: String::new(),
            events: Vec::new(),
        };
        let hooks = [hook("cost"), hook("policy")];
        let status = "init 0\nplan 0\nenvironment-01:post-plan 3\n";
        let ending = Ending { environment_hooks: &hooks, ..ended(Kind::Plan, status, 3) };
        assert_eq!(
            outcome(&ending, &config()).message.as_deref(),
            Some("Error: the environment's post-plan hook \"policy\" ended with exit code 3.")
        );
    }

    #[test]
    fn an_apply_has_applied_also_if_a_later_hook_failed() {
        assert!(ended(Kind::Apply, "init 0\napply 0\n", 0).has_applied());
        assert!(ended(Kind::Apply, "init 0\napply 0\nworkspace:post-apply 7\n", 7).has_applied());
        assert!(!ended(Kind::Apply, "init 0\napply 1\n", 1).has_applied());
        assert!(!ended(Kind::Plan, "init 0\nplan 0\n", 0).has_applied());
    }

    #[test]
    fn the_exit_code_is_that_of_the_last_step() {
        let config = config();
        assert_eq!(outcome(&ended(Kind::Plan, "init 3\n", 1), &config).exit_code, Some(3));
        assert_eq!(outcome(&ended(Kind::Plan, "", 9), &config).exit_code, Some(9));
        assert_eq!(
            outcome(&ended(Kind::Plan, "agent:pre-plan overdue\n", 9), &config).exit_code,
            Some(9)
        );
    }
}
