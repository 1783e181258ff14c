//! A message of each kind with all its fields, for tests.

use crate::{
    AgentMemory, Attempt, Category, CheckToken, Claimed, EnvironmentHook, Event, Events, Finish,
    Heartbeat, Hook, Identity, Intervals, Kind, LogOffset, Named, Operation, Outcome, PlanSummary,
    Platform, Poll, Problem, RanImage, Refresh, Register, Registered, Resume, Resumed, RunOptions,
    Secret, Status, Task, TaskState, TaskStatus, Variable,
};

pub(crate) fn check_token() -> CheckToken {
    CheckToken { token: Secret::new("at-1.secret") }
}

pub(crate) fn register() -> Register {
    Register {
        name: "agent-1".into(),
        version: "0.1.0".into(),
        os: "debian_12".into(),
        driver: "docker".into(),
        runtime: "vm".into(),
        platform: "linux_amd64".into(),
        concurrency: 5,
        identity: Some(Identity {
            machine_id: "0123456789abcdef0123456789abcdef".into(),
            boot_id: "6fd0a0f8-3c3c-4d5f-8a1e-0123456789ab".into(),
        }),
        memory: Some(AgentMemory { host_megabytes: 8192, run_megabytes: 512 }),
        level: crate::LEVEL,
    }
}

pub(crate) fn registered() -> Registered {
    Registered {
        agent_id: "agent-1".into(),
        pool_id: "apool-1".into(),
        session_token: Secret::new("sess-1.secret"),
        intervals: Intervals::default(),
    }
}

pub(crate) fn poll() -> Poll {
    Poll { free_slots: 1, tasks: vec![task_status()] }
}

pub(crate) fn heartbeat() -> Heartbeat {
    Heartbeat {
        status: Status::Errored,
        error_message: Some("the engine is away".into()),
        tasks: vec![task_status()],
    }
}

pub(crate) fn events() -> Events {
    Events {
        events: vec![
            Event::Offer { task_id: "task-1".into(), attempt: 1, kind: Kind::Plan },
            Event::Cancel { task_id: "task-2".into(), attempt: 1 },
            Event::Drain,
            Event::NewToken { session_token: Secret::new("sess-1.secret") },
            Event::NewIntervals(Intervals::default()),
        ],
    }
}

pub(crate) fn attempt() -> Attempt {
    Attempt { attempt: 1 }
}

pub(crate) fn resume() -> Resume {
    Resume { attempt: 1, started: true }
}

pub(crate) fn resumed() -> Resumed {
    Resumed { task_token: Secret::new("task-1.1.secret") }
}

pub(crate) fn claimed() -> Claimed {
    let named = |id: &str| Named { id: id.into(), name: "main".into() };
    let variable = Variable {
        key: "region".into(),
        value: Secret::new("eu"),
        category: Category::Shell,
        hcl: false,
        sensitive: true,
    };
    Claimed {
        task: Task {
            id: "task-1".into(),
            attempt: 1,
            kind: Kind::Apply,
            run_id: "run-1".into(),
            run_source: "api".into(),
            operation: Operation::Apply,
            options: RunOptions {
                refresh: Refresh::Skip,
                targets: vec!["aws_subnet.main[0]".into()],
                replace: vec!["aws_subnet.main".into()],
            },
            changes_nothing: true,
            workspace: named("ws-1"),
            environment: named("env-1"),
            platform: Some(Platform::OpenTofu),
            terraform_version: Some("1.9.8".into()),
            allow_other_terraform_version: false,
            image: Some("hashicorp/terraform".into()),
            image_id: Some(format!("sha256:{}", "0f".repeat(32))),
            image_content: Some("0f".repeat(32)),
            working_directory: Some("live/eu".into()),
            variables: vec![variable],
            hooks: Hook::ALL.map(|hook| (hook, "true".to_owned())).into(),
            environment_hooks: vec![EnvironmentHook {
                name: "policy".into(),
                interpreter: "python3".into(),
                script: "pass".into(),
                events: Hook::ALL.into(),
            }],
            timeout_seconds: Some(3600),
        },
        task_token: Secret::new("task-1.1.secret"),
        run_token: Some(Secret::new("run.task-1.1.secret")),
    }
}

pub(crate) fn log_offset() -> LogOffset {
    LogOffset { offset: 1, interval_milliseconds: Some(250) }
}

pub(crate) fn finish() -> Finish {
    Finish {
        attempt: 1,
        outcome: Outcome::Errored,
        message: Some("Error: it failed.".into()),
        exit_code: Some(1),
        oom_killed: false,
        has_changes: Some(true),
        log_bytes: 9,
        log_sha256: "0f".repeat(32),
        unsaved_state: Some("It is kept there.".into()),
        image: Some(RanImage {
            name: "terraform:1.11".into(),
            id: format!("sha256:{}", "0f".repeat(32)),
            digest: Some(format!("terraform@sha256:{}", "0f".repeat(32))),
            content: Some("0f".repeat(32)),
        }),
        summary: Some(PlanSummary { additions: 1, ..PlanSummary::default() }),
    }
}

/// Without a code: every text is one.
pub(crate) fn problem() -> Problem {
    Problem { error: "the attempt is over".into(), code: None }
}

fn task_status() -> TaskStatus {
    TaskStatus { task_id: "task-1".into(), attempt: 1, state: TaskState::Running }
}
