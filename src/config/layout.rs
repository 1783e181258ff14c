//! Where an installation keeps what, and what it calls it: every path, unit,
//! account, label and network, once.

/// The package, the agent's user and that user's group.
pub const AGENT: &str = "scalr-agent";

/// The user that runs have unless a setting names another one, and that user's group: in
/// no other group, and the owner of no file.
pub const RUN_USER: &str = "scalr-run";

/// The group that may use the private engine's socket.
pub const ENGINE_GROUP: &str = "scalr-docker";

/// The agent's unit.
pub const AGENT_UNIT: &str = "scalr-agent.service";

/// The private engine's unit.
pub const ENGINE_UNIT: &str = "scalr-docker.service";

/// The unit of the private engine's containerd.
pub const CONTAINERD_UNIT: &str = "scalr-containerd.service";

/// The socket of the agent's that has the firewall rules of runs verified.
pub const NETWORK_UNIT: &str = "scalr-agent-network.socket";

/// Where [`NETWORK_UNIT`] listens.
pub const NETWORK_SOCKET: &str = "/run/scalr-agent-network.sock";

/// The folder of the settings.
pub const SETTINGS_DIR: &str = "/etc/scalr-agent";

/// The agent's settings.
pub const SETTINGS: &str = "/etc/scalr-agent/agent.toml";

/// The authorities that the setup program was given, for the agent, apt and yum: readable
/// by everybody, because apt downloads as a user of its own.
pub const CA_CERT: &str = "/etc/scalr-agent/ca.pem";

/// The private engine's settings.
pub const ENGINE_SETTINGS: &str = "/etc/scalr-agent/docker.json";

/// The proxy's variables, if they carry a password: a drop-in's are shown to every
/// user by `systemctl show`.
pub const PROXY_SECRETS: &str = "/etc/scalr-agent/proxy.env";

/// The drop-ins of the agent's unit, whoever wrote them.
pub const AGENT_DROP_INS: &str = "/etc/systemd/system/scalr-agent.service.d";

/// The drop-in that gives the agent its proxy.
pub const PROXY_DROP_IN: &str = "/etc/systemd/system/scalr-agent.service.d/proxy.conf";

/// The engine's: a symbolic link to [`PROXY_DROP_IN`].
pub const ENGINE_PROXY_DROP_IN: &str = "/etc/systemd/system/scalr-docker.service.d/proxy.conf";

/// The package's files besides its programs.
pub const LIBRARY_DIR: &str = "/usr/lib/scalr-agent";

/// The programs of the private engine.
pub const ENGINE_PROGRAMS: &str = "/usr/lib/scalr-agent/engine";

/// Where the agent keeps its data, unless a setting says otherwise.
pub const DATA_DIR: &str = "/var/lib/scalr-agent";

/// The committed changes of the setup program.
pub const SETUP_MANIFEST: &str = "/var/lib/scalr-agent/setup.json";

/// How to undo what the setup program is doing. Not in the agent's folder, which comes
/// and goes with the package.
pub const SETUP_UNFINISHED: &str = "/var/lib/scalr-agent-setup.unfinished";

/// The accounts and folders that were made for the agent. Not in the agent's folder: a purge
/// goes by it.
pub const CREATED: &str = "/var/lib/scalr-agent-setup.created";

/// What the commands of `check --fix` have changed. Not in the agent's folder, which comes and
/// goes with the package.
pub const SETUP_FIXES: &str = "/var/lib/scalr-agent-setup.fixes";

/// Held by the one setup program that changes the machine.
pub const SETUP_LOCK: &str = "/run/scalr-agent-setup.lock";

/// Where the private engine keeps its data.
pub const ENGINE_DATA_DIR: &str = "/var/lib/scalr-docker";

/// The private engine's sockets and the like.
pub const ENGINE_RUN_DIR: &str = "/run/scalr-docker";

/// The address of the private engine's socket.
pub const ENGINE_SOCKET: &str = "unix:///run/scalr-docker/docker.sock";

/// The socket of the private engine's containerd.
pub const CONTAINERD_SOCKET: &str = "/run/scalr-docker/containerd.sock";

/// How the names of the slots' networks begin.
pub const NETWORK_PREFIX: &str = "scalr-slot-";

/// How the names of the containers begin that wait for a task; then they have its name.
pub const AHEAD_PREFIX: &str = "scalr-ahead-";

/// The labels of a task's container.
pub mod label {
    /// The task's id.
    pub const TASK: &str = "scalr.task";
    /// The attempt, a number.
    pub const ATTEMPT: &str = "scalr.attempt";
    /// `plan` or `apply`.
    pub const KIND: &str = "scalr.kind";
    /// The run's id.
    pub const RUN: &str = "scalr.run";
    /// The agent's id.
    pub const AGENT: &str = "scalr.agent";
    /// The pool's id.
    pub const POOL: &str = "scalr.pool";
    /// On a container that was started ahead of its task, instead of the labels about that: its
    /// name is that of the attempt then.
    pub const AHEAD: &str = "scalr.ahead";
}

/// The files in the agent's data folder.
pub mod data {
    /// A folder for each running task.
    pub const TASKS: &str = "tasks";
    /// Results of tasks that the server did not accept.
    pub const LOST: &str = "lost";
    /// A random id: the agent's machine, as the server tells it from others.
    pub const MACHINE_ID: &str = "machine-id";
    /// How the server answers, for `status`.
    pub const CONNECTION: &str = "connection.json";
    /// What each slot does, for `status`.
    pub const PROGRESS: &str = "progress.json";
    /// When each image was used.
    pub const IMAGES: &str = "images.json";
    /// When each provider was used.
    pub const PROVIDER_LIST: &str = "providers.json";
    /// Downloaded providers.
    pub const PROVIDERS: &str = "providers";

    /// All of these.
    pub const ALL: [&str; 8] =
        [TASKS, LOST, MACHINE_ID, CONNECTION, PROGRESS, IMAGES, PROVIDER_LIST, PROVIDERS];
}

/// The files of the private engine and its containerd in [`ENGINE_DATA_DIR`].
pub const ENGINE_DATA: [&str; 13] = [
    "buildkit",
    "containerd",
    "containers",
    "engine-id",
    "image",
    "network",
    "overlay2",
    "plugins",
    "runtimes",
    "swarm",
    "tmp",
    "trust",
    "volumes",
];
