//! How an agent introduces itself.

use serde::{Deserialize, Serialize};

use crate::Secret;

/// An agent introduces itself with its pool's token.
///
/// A second registration under the same name takes the first one's place, if it comes from
/// the same machine and boot, or the first one has missed three heartbeats, or did not say
/// its [`Identity`]: its session ends, and its tasks' leases are taken over. Else it is
/// refused with [`Code::NameTaken`](crate::Code::NameTaken).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The agent's name, unique in its pool.
    pub name: String,
    /// The agent's own version, for example `0.1.0`.
    pub version: String,
    /// The system's id and version, for example `centos_8`.
    pub os: String,
    /// How it runs tasks: `docker`.
    pub driver: String,
    /// What the agent itself runs in: `docker`, or `vm` for a machine, also a real one.
    #[serde(default = "machine")]
    pub runtime: String,
    /// System and processor as Go names them, for example `linux_amd64`.
    pub platform: String,
    /// How many tasks it runs at once, at least 1.
    pub concurrency: u32,
    /// Which machine it is on. None: the agent is too old to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Identity>,
    /// What its slots are set against. None: the agent is too old to say, or its kernel does
    /// not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<AgentMemory>,
    /// What it can do ([`LEVEL`](crate::LEVEL)).
    #[serde(default = "first_level")]
    pub level: u32,
}

fn machine() -> String {
    "vm".to_owned()
}

fn first_level() -> u32 {
    1
}

/// Asks whether a pool's token is accepted, before anything is installed.
///
/// The token is no bearer here: curl before 7.42.1, which Enterprise Linux 7 has, sends a
/// request's headers to a proxy as well (CVE-2015-3153).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckToken {
    /// The pool's token.
    pub token: Secret,
}

/// Tells machines with the same name from each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random, kept in the agent's data folder: the same after a restart.
    pub machine_id: String,
    /// Another one after each boot, of each clone of a machine, and of each copy of the data
    /// folder: the kernel's id of the boot, and the inode of the file with the machine's id.
    pub boot_id: String,
}

/// How much memory an agent's runs can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentMemory {
    /// What its host has, in MB (1024 × 1024 bytes).
    pub host_megabytes: u64,
    /// What each run may use, in MB.
    pub run_megabytes: u64,
}

/// The answer to [`Register`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The agent's id, `agent-…`.
    pub agent_id: String,
    /// The id of its pool, `apool-…`.
    pub pool_id: String,
    /// The bearer of all further calls but those of a task.
    pub session_token: Secret,
    /// How often to call.
    pub intervals: Intervals,
}

/// How often to call. The server sets them all, so that it can slow a large
/// fleet down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intervals {
    /// Between two heartbeats, in seconds.
    pub heartbeat_seconds: u32,
    /// How long a poll may be held by the server, in seconds. Up to twice the time between
    /// heartbeats, a poll stands for the heartbeats of an agent that is idle and well.
    pub poll_seconds: u32,
    /// Between the first uploads of a growing log, in milliseconds; the answer to
    /// each upload says how it goes on.
    pub log_milliseconds: u32,
    /// Between two looks at the state of a running apply, in milliseconds.
    pub state_milliseconds: u32,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            heartbeat_seconds: 10,
            poll_seconds: 25,
            log_milliseconds: 50,
            state_milliseconds: 2_000,
        }
    }
}
