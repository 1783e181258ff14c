//! Where things are inside a task's container; the entry point knows the same.

/// Where all else of ours is: a volume.
pub(super) const SCALR: &str = "/scalr";
/// What the run and its agent exchange: a volume of its own, so that there is room for the
/// state when the run has filled the other one.
pub(super) const RUN: &str = "/scalr/run";
/// The folder for what is to be forgotten.
pub(super) const TMP: &str = "/tmp";
/// Where programs look users and groups up.
pub(super) const ETC: &str = "/etc";
/// The users.
pub(super) const PASSWD: &str = "/etc/passwd";
/// The groups.
pub(super) const GROUP: &str = "/etc/group";
/// The entry point's script.
pub(super) const ENTRYPOINT: &str = "/scalr/run/entrypoint.sh";
/// The entry point's command line, for a container that was started ahead of the run.
pub(super) const COMMAND: &str = "/scalr/run/command";
/// Made there when the run of such a container begins.
pub(super) const BEGUN: &str = "/scalr/run/begun";
/// The run's variables, sourced by the entry point.
pub(super) const ENVIRONMENT: &str = "/scalr/run/environment";
/// Puts the state where the agent finds it, whatever the configuration says: an
/// override file takes precedence over it, and replaces a `cloud` block too.
pub(super) const OVERRIDE: &str = "/scalr/run/override.tf";
/// The configuration's variables whose values are texts.
pub(super) const TEXTS: &str = "/scalr/run/variables.tfvars.json";
/// Those whose values are expressions.
pub(super) const EXPRESSIONS: &str = "/scalr/run/variables.tfvars";
/// The certificate authorities that the host trusts.
pub(super) const CERTIFICATES: &str = "/scalr/run/certificates.pem";
/// Terraform's CLI configuration, with the run's token for the server.
pub(super) const CREDENTIALS_CONFIG: &str = "/scalr/run/credentials.tfrc";
/// The same with the providers that the agent keeps; only for runs that have no plugins of
/// their own.
pub(super) const PROVIDERS_CONFIG: &str = "/scalr/run/providers.tfrc";
/// The same where a mirror has all providers.
pub(super) const MIRROR_CONFIG: &str = "/scalr/run/mirror.tfrc";
/// Hooks: a folder `agent` and a folder `workspace`, a file for each; and a folder
/// `environment-NN` for each of the environment's.
pub(super) const HOOKS: &str = "/scalr/run/hooks";
/// `ORIGIN HOOK` while a hook runs, else empty.
pub(super) const HOOK: &str = "/scalr/run/hook";
/// The saved plan.
pub(super) const PLAN: &str = "/scalr/run/plan";
/// What Terraform says of it in JSON; empty: nothing.
pub(super) const PLAN_JSON: &str = "/scalr/run/plan.json";
/// A line `STEP EXIT-CODE` for each step that ended.
pub(super) const STATUS: &str = "/scalr/run/status";
/// A line `COMMAND BEGIN END` for each command of Terraform that ended.
pub(super) const TIMES: &str = "/scalr/run/times";
/// Put there when the run is interrupted because it has nearly used up its
/// memory: the line that the entry point then prints.
pub(super) const MEMORY_NOTICE: &str = "/scalr/run/memory";
/// The same for a run that has reached its time limit.
pub(super) const TIME_NOTICE: &str = "/scalr/run/time";
/// The same for a run that has too much on the engine's disk.
pub(super) const DISK_NOTICE: &str = "/scalr/run/disk";
/// The state, which Terraform writes while it applies.
pub(super) const STATE: &str = "/scalr/run/terraform.tfstate";
/// The home directory.
pub(super) const HOME: &str = "/scalr/home";
/// The configuration. The same for plan and apply: a saved plan holds it.
pub(super) const WORK: &str = "/scalr/work";
/// In the directory where Terraform is started.
pub(super) const LOCK_FILE: &str = ".terraform.lock.hcl";
/// Written there when the state could not be written to where it belongs.
pub(super) const ERRORED_STATE: &str = "errored.tfstate";
