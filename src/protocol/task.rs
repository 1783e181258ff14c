//! A task: the plan or the apply of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{RunOptions, Secret};

/// Plan or apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `terraform init` and `terraform plan`.
    Plan,
    /// `terraform init` and `terraform apply` of the saved plan.
    Apply,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Plan => "plan",
            Kind::Apply => "apply",
        })
    }
}

/// The attempt that a write belongs to, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The number.
    pub attempt: u32,
}

/// An agent wants to continue a task that was begun on another boot or another machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The attempt that its journal has.
    pub attempt: u32,
    /// Whether the task's container was started where the agent is now.
    pub started: bool,
}

/// The answer to [`Resume`]: the task is the agent's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// The task's bearer from now on. The earlier one is refused: a clone of the machine
    /// may have it.
    pub task_token: Secret,
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// What to do.
    pub task: Task,
    /// The bearer of the calls about this task, and of no others.
    pub task_token: Secret,
    /// What the run itself may read the pool API with, for as long as this
    /// attempt goes on. None: the server is too old to give one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_token: Option<Secret>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its id, `task-…`.
    pub id: String,
    /// Which attempt at it this is, from 1.
    pub attempt: u32,
    /// Plan or apply.
    pub kind: Kind,
    /// The run that it is part of.
    pub run_id: String,
    /// Where the run came from: `api`, `cli`, ….
    pub run_source: String,
    /// Apply or destroy.
    pub operation: Operation,
    /// What else it asks of Terraform; an apply does what was planned, without them.
    #[serde(default)]
    pub options: RunOptions,
    /// Whether the plan that an apply does changes nothing, so that the state may stay as it
    /// is.
    #[serde(default)]
    pub changes_nothing: bool,
    /// The run's workspace.
    pub workspace: Named,
    /// The workspace's environment.
    pub environment: Named,
    /// What runs the configuration; none: what the image has, Terraform if it has both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The version of Terraform or OpenTofu that the workspace asks for; none: the image's.
    pub terraform_version: Option<String>,
    /// Whether a run goes on when its image has another version.
    #[serde(default)]
    pub allow_other_terraform_version: bool,
    /// The workspace's image, else the pool's, if either has one; it takes precedence over
    /// the agent's.
    pub image: Option<String>,
    /// The engine's id of the image that the plan ran, for an apply: no other image is
    /// used. An engine that does not have it pulls `image`, which then has a digest. None:
    /// of a plan, or the plan's agent did not report its image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The plan's [`RanImage::content`], for an apply: an image with the same is the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_content: Option<String>,
    /// Where in the configuration Terraform is started, relative; none: at its
    /// top.
    pub working_directory: Option<String>,
    /// The workspace's variables.
    pub variables: Vec<Variable>,
    /// What the workspace runs before and after the steps: shell commands, or a
    /// script with its `#!` line.
    #[serde(default)]
    pub hooks: BTreeMap<Hook, String>,
    /// The hooks of the environment, which run before the workspace's, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_hooks: Vec<EnvironmentHook>,
    /// How long its container may run, in seconds, until the agent interrupts it. None: the
    /// server is too old to set a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u32>,
}

/// A place between the steps of a task where commands can be put; written as
/// `pre-init` everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Before `terraform init`, of a plan and of an apply.
    PreInit,
    /// Before `terraform plan`.
    PrePlan,
    /// After a plan that succeeded.
    PostPlan,
    /// Before `terraform apply`.
    PreApply,
    /// After an apply that succeeded.
    PostApply,
}

impl Hook {
    /// All there are.
    pub const ALL: [Hook; 5] =
        [Hook::PreInit, Hook::PrePlan, Hook::PostPlan, Hook::PreApply, Hook::PostApply];

    /// Its name, `pre-init`.
    pub fn name(self) -> &'static str {
        match self {
            Hook::PreInit => "pre-init",
            Hook::PrePlan => "pre-plan",
            Hook::PostPlan => "post-plan",
            Hook::PreApply => "pre-apply",
            Hook::PostApply => "post-apply",
        }
    }

    /// The hook of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.name() == name)
    }
}

/// A script that all runs of an environment execute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentHook {
    /// As its owner called it.
    pub name: String,
    /// The program that reads the script: see [`is_interpreter`](Self::is_interpreter).
    pub interpreter: String,
    /// The script.
    pub script: String,
    /// Where it runs.
    pub events: Vec<Hook>,
}

impl EnvironmentHook {
    /// Whether a text is the name or the path of a program, 1 to 255 ASCII letters, digits and
    /// `. _ / + -`: the agent writes it into a shell script as it is.
    pub fn is_interpreter(text: &str) -> bool {
        (1..=255).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/+-".contains(&byte))
    }
}

/// What a run does with its resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Brings them to what the configuration says.
    Apply,
    /// Destroys them all.
    Destroy,
}

/// What runs a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Platform {
    /// Terraform.
    Terraform,
    /// OpenTofu.
    OpenTofu,
}

impl Platform {
    /// As it is written in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terraform => "terraform",
            Self::OpenTofu => "opentofu",
        }
    }

    /// The program on an image's PATH.
    pub fn program(self) -> &'static str {
        match self {
            Self::Terraform => "terraform",
            Self::OpenTofu => "tofu",
        }
    }
}

/// An id with its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// For example `ws-…`.
    pub id: String,
    /// As its owner called it.
    pub name: String,
}

/// A variable of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    pub key: String,
    /// Its value; it may be sensitive, so it never shows in a log.
    pub value: Secret,
    /// What kind of variable it is.
    pub category: Category,
    /// Whether the value of a Terraform variable is an expression, not a text.
    pub hcl: bool,
    /// Whether the value is masked in logs.
    pub sensitive: bool,
}

/// What kind of variable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A variable of the configuration.
    Terraform,
    /// A variable of the run's environment.
    Shell,
}

/// How much of a log the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOffset {
    /// In bytes: the offset at which the next write has to start.
    pub offset: u64,
    /// How long to collect before the next write, in milliseconds: short while
    /// somebody watches. None: as before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_milliseconds: Option<u32>,
}

/// A task has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// The attempt.
    pub attempt: u32,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong, in a sentence, when Terraform's own log does not say.
    pub message: Option<String>,
    /// The exit code of the step that ended it; none when no step ran.
    pub exit_code: Option<i64>,
    /// Whether the kernel killed it for memory.
    pub oom_killed: bool,
    /// Whether a finished plan changes anything.
    pub has_changes: Option<bool>,
    /// The length of the whole log in bytes.
    pub log_bytes: u64,
    /// The SHA-256 of the whole log, in lower-case hex.
    pub log_sha256: String,
    /// Why the server may not have the state that an apply left, and where that is
    /// kept: sentences for people. The workspace then stays locked. None: the state is
    /// saved, nothing was applied, or the agent is too old to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved_state: Option<String>,
    /// The image that a finished plan ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<RanImage>,
    /// What a finished plan does, as its JSON says. None: it has no JSON, or the agent is too
    /// old to read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<PlanSummary>,
}

/// What a plan does, in numbers of resources; a replacement is an addition and a destruction,
/// too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanSummary {
    /// How many are created.
    pub additions: u32,
    /// How many are changed in place.
    pub changes: u32,
    /// How many are destroyed.
    pub destructions: u32,
    /// How many are destroyed and created again.
    pub replacements: u32,
    /// How many come into the state from outside.
    pub imports: u32,
    /// How many have changed outside of Terraform.
    pub drifted: u32,
    /// How many outputs change.
    pub output_changes: u32,
}

/// The image that a task ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RanImage {
    /// As it was asked for: `terraform:1.11`.
    pub name: String,
    /// The engine's id of it: `sha256:…`.
    pub id: String,
    /// Its name in its registry, `NAME@sha256:…`. None: it has never been in one.
    pub digest: Option<String>,
    /// The SHA-256, in hex, of its layers' digests and its settings: the same on each host
    /// that it was imported on, where its id differs. None: the engine names no layers.
    #[serde(default)]
    pub content: Option<String>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As asked for.
    Finished,
    /// Terraform or the agent failed.
    Errored,
    /// It was interrupted, by its pool or by its agent's stop.
    Canceled,
}
