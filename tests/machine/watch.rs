//! Who shows a secret on a command line, if only for a moment.

use std::process::Child;

use crate::fleet::Fleet;

/// Looks for secrets on the machine's command lines, over and over.
pub(crate) struct Watch<'a> {
    fleet: &'a Fleet,
    process: Child,
}

impl<'a> Watch<'a> {
    /// Begins to look for the lines of the machine's file `secrets`.
    pub(crate) fn start(fleet: &'a Fleet, secrets: &str) -> Self {
        let look = format!(
            "until [ -e /root/seen-enough ]; do \
             grep --text --files-with-matches --fixed-strings --file={secrets} \
             /proc/[0-9]*/cmdline 2>/dev/null; done >/root/seen"
        );
        let process = fleet
            .world
            .command(&fleet.machine, &["sh", "-c", &look])
            .spawn()
            .expect("scripts/machine starts");
        Self { fleet, process }
    }

    /// Where one was seen.
    pub(crate) fn end(mut self) -> String {
        self.stop();
        self.fleet.shell("cat /root/seen")
    }

    fn stop(&mut self) {
        self.fleet.world.try_shell(&self.fleet.machine, "touch /root/seen-enough");
        self.process.wait().expect("it ends");
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.stop();
    }
}
