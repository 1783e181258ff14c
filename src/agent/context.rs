//! What all tasks of this agent have in common.

use std::sync::{Arc, RwLock};

use anyhow::Result;
use tokio::sync::SetOnce;
use tracing::warn;

use crate::client::Client;
use crate::connection;
use crate::engine::Engine;
use crate::firewall::Firewall;
use crate::journal::Journal;
use crate::progress;
use crate::providers::Providers;
use crate::pulled_images::Images;
use crate::seen_images::SeenImages;
use crate::slots::Slots;
use crate::task::ahead::Ahead;
use crate::telemetry::Telemetry;
use cli::Failure;
use config::Config;
use protocol::{Intervals, Registered};

/// What all tasks of this agent have in common.
#[derive(Debug)]
pub(crate) struct Context {
    /// The settings.
    pub config: Config,
    /// The server.
    pub client: Client,
    /// The engine.
    pub engine: Engine,
    /// The firewall rules of runs.
    pub firewall: Firewall,
    /// The images that this agent has pulled.
    pub images: Images,
    /// What this agent has seen in images.
    pub seen_images: SeenImages,
    /// Terraform's providers that this agent keeps.
    pub providers: Providers,
    /// Where tasks fit.
    pub slots: Slots,
    /// The containers that wait for a task.
    pub ahead: Ahead,
    /// The running tasks.
    pub journal: Journal,
    /// The variables of the proxy, for the runs.
    pub proxy: Vec<(String, String)>,
    /// The certificate authorities that the host trusts, in PEM; none when it
    /// has no such file.
    pub certificates: Option<Vec<u8>>,
    /// Who a run is inside its container.
    pub user: RunUser,
    /// How we stand with the server, for people who ask.
    pub connection: connection::Keeper,
    /// What each task is at, likewise.
    pub progress: Arc<progress::Keeper>,
    /// What is measured.
    pub telemetry: Arc<Telemetry>,
    /// How often to call.
    pub intervals: RwLock<Intervals>,
    /// The agent's id and its pool's, once it has registered.
    pub registered: SetOnce<Registered>,
}

impl Context {
    /// How often to call, at present.
    pub(crate) fn intervals(&self) -> Intervals {
        *self.intervals.read().expect("nothing panics while it holds the intervals")
    }

    /// Sets how often to call.
    pub(crate) fn set_intervals(&self, intervals: Intervals) {
        *self.intervals.write().expect("nothing panics while it holds the intervals") = intervals;
    }
}

/// Who a run is inside its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunUser {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

impl RunUser {
    /// The user that the settings name: `root`, `UID[:GID]`, or a user of this
    /// host; without one, `account`, which the packages and the image make, or where it is
    /// missing the agent's own.
    ///
    /// # Errors
    /// This host has no such user.
    pub(crate) fn of(setting: Option<&str>, account: &str) -> Result<Self> {
        let Some(name) = setting else {
            if let Some(found) = users::get_user_by_name(account) {
                return Ok(Self { uid: found.uid(), gid: found.primary_group_id() });
            }
            warn!("this host has no user {account}, so runs have the agent's own");
            return Ok(Self { uid: users::get_effective_uid(), gid: users::get_effective_gid() });
        };
        let (user, group) = name.split_once(':').unwrap_or((name, ""));
        let unknown = || Failure::Usage.because(format!("`user`: this host has no user `{name}`"));
        if let Ok(uid) = user.parse() {
            let gid = if group.is_empty() { uid } else { group.parse().map_err(|_| unknown())? };
            return Ok(Self { uid, gid });
        }
        let found = users::get_user_by_name(user).ok_or_else(unknown)?;
        Ok(Self { uid: found.uid(), gid: found.primary_group_id() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_a_name_or_that_of_runs_and_else_the_agents_own() {
        let of = |setting| RunUser::of(setting, "nobody");
        let nobody = users::get_user_by_name("nobody").unwrap();
        let account = RunUser { uid: nobody.uid(), gid: nobody.primary_group_id() };
        assert_eq!(of(None).unwrap(), account);
        assert_eq!(of(Some("root")).unwrap(), RunUser { uid: 0, gid: 0 });
        assert_eq!(of(Some("990:991")).unwrap(), RunUser { uid: 990, gid: 991 });
        assert!(of(Some("no-such-user-here")).is_err());
        let own = RunUser { uid: users::get_effective_uid(), gid: users::get_effective_gid() };
        assert_eq!(RunUser::of(None, "no-such-user-here").unwrap(), own);
    }
}
