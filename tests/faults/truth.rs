//! What the containers really wrote: links to the files that the engine writes their
//! output to, made while they run. A file outlives its container by its link.

use serde_json::Value;

use crate::engine::written;
use crate::fleet::Fleet;
use crate::pool::Run;

/// A container that there was.
pub(super) struct Container {
    /// `plan` or `apply`.
    pub kind: String,
    /// Which attempt at the task it was.
    pub attempt: u32,
    /// All that it wrote; see [`written`].
    pub text: String,
}

/// Begins to link the files of all containers of the engine whose data is in
/// `disk/scalr-docker`, also after a restart of the machine.
pub(super) fn record(fleet: &Fleet, disk: &str) {
    let script = format!(
        "#!/bin/sh\n\
         mkdir -p {disk}/truth\n\
         while :; do\n\
         \x20 for log in {disk}/scalr-docker/containers/*/*-json.log; do\n\
         \x20   id=$(basename \"$log\" -json.log)\n\
         \x20   [ -e \"$log\" ] && [ ! -e \"{disk}/truth/$id\" ] || continue\n\
         \x20   ln \"${{log%/*}}/config.v2.json\" \"{disk}/truth/$id.about\" 2>/dev/null\n\
         \x20   ln \"$log\" \"{disk}/truth/$id\" 2>/dev/null\n\
         \x20 done\n\
         \x20 sleep 0.1\n\
         done\n"
    );
    fleet.put("/usr/local/bin/truth", "0755", script.as_bytes());
    fleet.shell(
        "printf '[Service]\\nExecStart=/usr/local/bin/truth\\n[Install]\\nWantedBy=multi-user.target\\n' \
         >/etc/systemd/system/truth.service && systemctl daemon-reload && \
         systemctl enable --now truth",
    );
}

/// The containers of a run, in the order of their attempts.
pub(super) fn of_run(fleet: &Fleet, disk: &str, run: &Run) -> Vec<Container> {
    let ids =
        fleet.shell(&format!("cd {disk}/truth && ls *.about 2>/dev/null | sed 's/.about$//'"));
    let mut found: Vec<Container> = ids
        .lines()
        .filter_map(|id| {
            let about = fleet.shell(&format!("cat {disk}/truth/{id}.about"));
            let about: Value = serde_json::from_str(&about).expect("the engine writes JSON");
            let label = |name: &str| about["Config"]["Labels"][name].as_str().unwrap_or_default();
            if label("scalr.run") != run.to_string() {
                return None;
            }
            let log = fleet.shell(&format!("cat {disk}/truth/{id}"));
            Some(Container {
                kind: label("scalr.kind").to_owned(),
                attempt: label("scalr.attempt").parse().expect("a number"),
                text: written(&about, &log),
            })
        })
        .collect();
    found.sort_by_key(|container| container.attempt);
    found
}
