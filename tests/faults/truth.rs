//! What the containers really wrote: links to the files that the engine writes their
//! output to, made while they run. A file outlives its container by its link. What the engine
//! has about a container is linked again when it changes: one that was started ahead gets its
//! attempt's name late.

use serde_json::Value;

use crate::engine::{Attempt, written};
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
         \x20   id=${{log##*/}} id=${{id%-json.log}}\n\
         \x20   about=${{log%/*}}/config.v2.json\n\
         \x20   [ -e \"$log\" ] && [ -e \"$about\" ] || continue\n\
         \x20   [ \"$about\" -ef \"{disk}/truth/$id.about\" ] ||\n\
         \x20     ln -f \"$about\" \"{disk}/truth/$id.about\" 2>/dev/null\n\
         \x20   [ -e \"{disk}/truth/$id\" ] || ln \"$log\" \"{disk}/truth/$id\" 2>/dev/null\n\
         \x20 done\n\
         \x20 for journal in /var/lib/scalr-agent/tasks/*/journal; do\n\
         \x20   name=${{journal%/journal}} name=${{name##*/}}\n\
         \x20   [ -s \"$journal\" ] && [ ! -e \"{disk}/truth/$name.journal\" ] || continue\n\
         \x20   head -n 1 \"$journal\" >\"{disk}/truth/new\" &&\n\
         \x20     mv \"{disk}/truth/new\" \"{disk}/truth/$name.journal\"\n\
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
            let journal = |name: &str| fleet.shell(&format!("cat {disk}/truth/{name}.journal"));
            let attempt = Attempt::of(&about, journal)?;
            if attempt.run != run.to_string() {
                return None;
            }
            let log = fleet.shell(&format!("cat {disk}/truth/{id}"));
            Some(Container {
                kind: attempt.kind,
                attempt: attempt.number,
                text: written(&about, &log),
            })
        })
        .collect();
    // One that was killed with the agent before it began wrote nothing; its successor may be the
    // same attempt.
    found.sort_by_key(|container| (container.attempt, container.text.len()));
    found
}
