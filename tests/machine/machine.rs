//! `scripts/machine`, for one world.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long [`wait_for`] pauses at least and at most.
const SOONEST: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_millis(500);

/// A world of machines; dropped, all of it is removed.
pub(crate) struct World {
    name: String,
}

impl World {
    /// A world of its own for the calling test.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("test-{}-{number}", std::process::id()) }
    }

    /// Boots a machine that is called like its flavour; the world ends with
    /// this process, even if it is killed.
    pub(crate) fn boot(&self, flavour: &str, options: &[&str]) {
        let owner = std::process::id().to_string();
        let output = self
            .script()
            .args(["boot", flavour, "--owner", &owner])
            .args(options)
            .output()
            .expect("scripts/machine starts");
        assert!(output.status.success(), "boot {flavour}: {}", text(&output));
    }

    /// What [`World::boot`] takes as `--like` for a copy of that machine.
    pub(crate) fn like(&self, machine: &str) -> String {
        format!("{}/{machine}", self.name)
    }

    /// Cuts a machine's power (`off`), or boots it again (`on`).
    pub(crate) fn power(&self, machine: &str, state: &str) {
        let output = self.script().args([state, machine]).output().expect("scripts/machine starts");
        assert!(output.status.success(), "{state} {machine}: {}", text(&output));
    }

    /// Whether a machine has shut itself down.
    pub(crate) fn is_off(&self, machine: &str) -> bool {
        let output = self.script().args(["pid", machine]).output().expect("scripts/machine starts");
        !output.status.success()
    }

    /// A command in a machine, or in the namespaces `server` and `proxy`.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, place: &str, command: &[S]) -> Command {
        let mut script = self.script();
        script.args(["run", place, "--"]).args(command);
        script
    }

    /// Runs a shell line in a machine, whatever comes of it.
    pub(crate) fn try_shell(&self, machine: &str, line: &str) -> Output {
        self.command(machine, &["sh", "-c", line]).output().expect("scripts/machine starts")
    }

    /// Runs a shell line in a machine and gives its standard output, trimmed.
    pub(crate) fn shell(&self, machine: &str, line: &str) -> String {
        let output = self.try_shell(machine, line);
        assert!(
            output.status.success(),
            "{line:?} on {machine}: {}: {}\n{}",
            output.status,
            text(&output),
            self.journal_end(machine),
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs a shell line in a machine with `input` as its standard input.
    pub(crate) fn feed(&self, machine: &str, line: &str, input: &[u8]) {
        let mut child = self
            .command(machine, &["sh", "-c", line])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("scripts/machine starts");
        child.stdin.take().expect("it is piped").write_all(input).expect("it reads its input");
        assert!(child.wait().expect("it ends").success(), "{line:?} on {machine}");
    }

    /// Writes a file of a machine, with the folders that it lies in; `mode` as `chmod` has it.
    pub(crate) fn put(&self, machine: &str, path: &str, mode: &str, content: &[u8]) {
        self.feed(machine, &format!("install -D -m {mode} /dev/stdin {path}"), content);
    }

    /// Starts a program in the namespace `server` or `proxy`, its output going
    /// to `log`.
    pub(crate) fn start(&self, place: &str, command: &[&OsStr], log: &Path) -> Child {
        let log = std::fs::File::create(log).expect("the log can be made");
        self.command(place, command)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("scripts/machine starts")
    }

    /// Waits until a program in the namespace `server` or `proxy` takes what comes to `address`
    /// over `tcp` or `udp`: an IP address and a port as `ss` has them, or `:` and a port.
    pub(crate) fn wait_until_taken(&self, place: &str, protocol: &str, address: &str) {
        let command = ["ss", "--no-header", "--listening", "--numeric", &format!("--{protocol}")];
        wait_for(&format!("{address} in {place} to be taken"), Duration::from_secs(30), || {
            let output = self.command(place, &command).output().expect("scripts/machine starts");
            assert!(output.status.success(), "ss in {place}: {}", text(&output));
            let said = String::from_utf8_lossy(&output.stdout);
            let mut local = said.lines().filter_map(|line| line.split_whitespace().nth(3));
            local.any(|local| local.ends_with(address)).then_some(())
        });
    }

    /// The process id of a machine's first process, as this host counts.
    pub(crate) fn pid(&self, machine: &str) -> String {
        let output = self.script().args(["pid", machine]).output().expect("scripts/machine starts");
        assert!(output.status.success(), "pid {machine}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A machine's root folder with all that is mounted in it, as long as it runs.
    pub(crate) fn root(&self, machine: &str) -> PathBuf {
        Path::new("/proc").join(self.pid(machine)).join("root")
    }

    /// The last lines of a machine's journal, to go with a failure.
    pub(crate) fn journal_end(&self, machine: &str) -> String {
        let output = self
            .script()
            .args(["journal", machine, "--lines=60"])
            .output()
            .expect("scripts/machine starts");
        format!("--- the end of the journal of {machine}:\n{}", text(&output))
    }

    fn script(&self) -> Command {
        let path = tests::checkout("scripts/machine");
        let mut command = Command::new(path);
        command.args(["--world", &self.name]);
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let stopped = self.script().arg("stop").output();
        if !stopped.is_ok_and(|output| output.status.success()) {
            eprintln!("the world {} could not be removed", self.name);
        }
    }
}

/// Asks `condition` until it gives something, for at most `limit`; the longer it has waited, the
/// longer between two questions, since each takes a program or two.
///
/// # Panics
/// When it never does; `what` says what was waited for.
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        let waited = begun.elapsed();
        assert!(waited < limit, "waited {limit:?} for {what}");
        std::thread::sleep((waited / 10).clamp(SOONEST, LATEST));
    }
}

/// Standard output and error of a command, for a person.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
