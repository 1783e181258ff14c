//! systemd: its version, and services.

use std::path::Path;
use std::process::Command;

use super::command::{CommandError, CommandExt as _, within};
use super::machine::Machine;

/// The version of the machine's systemd, for example 219.
///
/// On a directory tree nothing is run: the version is in the name of systemd's
/// private library; a systemd that has none is older than 231 and counts as 219.
/// `None` where there is no systemd.
pub fn version(machine: &Machine) -> Option<u32> {
    if machine.is_this_one() {
        let text = Command::new("systemctl").arg("--version").read().ok()?;
        return parse_version(&text);
    }
    let library = ["/usr/lib/systemd", "/lib/systemd"]
        .into_iter()
        .map(|directory| machine.path(directory))
        .chain(multiarch(machine))
        .find_map(|directory| library_version(&directory));
    let systemd = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
    library.or_else(|| systemd.iter().any(|file| machine.path(file).exists()).then_some(219))
}

/// Services of the machine that runs; on a directory tree each call does
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct Services {
    running: bool,
}

/// What systemd says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `active`, `activating`, `inactive`, `failed`, …
    pub active: String,
    /// `running`, `auto-restart`, …
    pub sub: String,
    /// `success`, `exit-code`, `timeout`, …
    pub result: String,
    /// The exit code of the last main process; 0 while it runs.
    pub exit_status: i32,
    /// When the main process was last started, in microseconds of the kernel's
    /// clock; 0 if it never was.
    pub started: u64,
    /// Since when it is active, as systemd prints times; empty if it never was.
    pub since: String,
    /// The main process; 0 if it has no process.
    pub pid: u32,
}

impl UnitState {
    /// Whether it is up or on its way up.
    pub fn is_up(&self) -> bool {
        ["active", "activating", "reloading"].contains(&self.active.as_str())
    }
}

impl Services {
    /// The machine's services.
    pub fn of(machine: &Machine) -> Self {
        Self { running: machine.has_running_systemd() }
    }

    /// Whether there is a systemd to talk to.
    pub fn can_run(self) -> bool {
        self.running
    }

    /// Runs [`daemon_reload`].
    ///
    /// # Errors
    /// systemctl fails.
    pub fn reload_units(self) -> Result<(), CommandError> {
        if self.running { daemon_reload().run() } else { Ok(()) }
    }

    /// Starts a unit and waits until it is up.
    ///
    /// # Errors
    /// systemctl fails, or the unit does.
    pub fn start(self, unit: &str) -> Result<(), CommandError> {
        self.call(&["start", unit])
    }

    /// Asks for a unit's (re)start without waiting for it.
    ///
    /// # Errors
    /// systemctl fails.
    pub fn begin_restart(self, unit: &str) -> Result<(), CommandError> {
        self.call(&["--no-block", "restart", unit])
    }

    /// Whether a unit is up.
    pub fn is_active(self, unit: &str) -> bool {
        self.state(unit).is_some_and(|state| state.active == "active")
    }

    /// Whether a unit is started at boot.
    pub fn is_enabled(self, unit: &str) -> bool {
        self.running
            && Command::new("systemctl")
                .args(["is-enabled", "--quiet", unit])
                .probe()
                .is_ok_and(|output| output.status.success())
    }

    /// What systemd says of a unit; `None` where none runs.
    pub fn state(self, unit: &str) -> Option<UnitState> {
        if !self.running {
            return None;
        }
        // `--value` does not exist on 219.
        let properties = "LoadState,ActiveState,SubState,Result,ExecMainStatus,\
             ExecMainStartTimestampMonotonic,ActiveEnterTimestamp,MainPID";
        let text = Command::new("systemctl").args(["show", "-p", properties, unit]).read().ok()?;
        Some(parse_state(&text))
    }

    /// A unit's file and its drop-ins, as systemd reads them.
    ///
    /// # Errors
    /// systemctl fails: there is no such unit, or no systemd.
    pub fn files_of(self, unit: &str) -> Result<String, CommandError> {
        within(10, "systemctl").args(["--no-pager", "cat", unit]).read()
    }

    /// Which of these units are up, asked for all at once.
    ///
    /// # Errors
    /// systemctl fails.
    pub fn active_of(self, units: &[&str]) -> Result<Vec<String>, CommandError> {
        if !self.running {
            return Ok(Vec::new());
        }
        let properties = ["show", "-p", "Id,ActiveState"];
        let text = Command::new("systemctl").args(properties).args(units).read()?;
        Ok(parse_active(&text))
    }

    /// Whether systemd stops a unit only to start it again: its job is a `restart`
    /// until the unit is down, also if a package or needrestart asked for it. Any
    /// user may ask.
    ///
    /// # Errors
    /// systemctl fails, or does not answer within 3 seconds.
    pub fn is_restarting(self, unit: &str) -> Result<bool, CommandError> {
        if !self.running {
            return Ok(false);
        }
        let list = ["--no-pager", "--no-legend", "--full", "list-jobs"];
        let text = within(3, "systemctl").args(list).read()?;
        Ok(has_restart_job(&text, unit))
    }

    fn call(self, arguments: &[&str]) -> Result<(), CommandError> {
        if self.running { systemctl(arguments).run() } else { Ok(()) }
    }
}

/// A call of systemctl, to be run or kept for later.
pub fn systemctl(arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(arguments);
    command
}

/// The command that enables a unit.
pub(crate) fn enable(unit: &str) -> Command {
    systemctl(&["enable", "--quiet", unit])
}

/// The same before a [`daemon_reload`]: by itself, each `enable` has systemd read all units again.
pub(crate) fn enable_before_reload(unit: &str) -> Command {
    systemctl(&["enable", "--quiet", "--no-reload", unit])
}

/// The command that disables a unit.
pub(crate) fn disable(unit: &str) -> Command {
    systemctl(&["disable", "--quiet", unit])
}

/// The command that stops units and waits until they are down.
pub fn stop(units: &[&str]) -> Command {
    systemctl(&[&["stop"], units].concat())
}

/// The command that makes systemd read its unit files again. It takes no unit:
/// naming one is an error on every version.
pub fn daemon_reload() -> Command {
    systemctl(&["daemon-reload"])
}

/// The last lines that a unit wrote to the journal, oldest first.
///
/// # Errors
/// journalctl fails.
pub fn journal(unit: &str, lines: usize) -> Result<String, CommandError> {
    Command::new("journalctl")
        .args(["--no-pager", "--output=cat", "--unit", unit, "--lines", &lines.to_string()])
        .read()
}

/// `systemd 219` or `systemd 252 (252.39-1~deb12u1)`.
fn parse_version(text: &str) -> Option<u32> {
    let word = text.lines().next()?.strip_prefix("systemd ")?.split_whitespace().next()?;
    leading_number(word)
}

/// Paragraphs with `Id=` and `ActiveState=`, in any order.
fn parse_active(text: &str) -> Vec<String> {
    text.split("\n\n")
        .filter(|unit| unit.lines().any(|line| line == "ActiveState=active"))
        .filter_map(|unit| unit.lines().find_map(|line| line.strip_prefix("Id=")))
        .map(str::to_owned)
        .collect()
}

/// Lines of a job's number, unit, type and state.
fn has_restart_job(jobs: &str, unit: &str) -> bool {
    jobs.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(unit) && words.next() == Some("restart")
    })
}

fn parse_state(text: &str) -> UnitState {
    let mut state = UnitState::default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "LoadState" => value.clone_into(&mut state.load),
            "ActiveState" => value.clone_into(&mut state.active),
            "SubState" => value.clone_into(&mut state.sub),
            "Result" => value.clone_into(&mut state.result),
            "ExecMainStatus" => state.exit_status = value.parse().unwrap_or(0),
            "ActiveEnterTimestamp" => value.clone_into(&mut state.since),
            "MainPID" => state.pid = value.parse().unwrap_or(0),
            "ExecMainStartTimestampMonotonic" => state.started = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    state
}

/// `libsystemd-shared-252.so`, `libsystemd-shared-239-82.el8.so`.
fn library_version(directory: &Path) -> Option<u32> {
    std::fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let name = entry.file_name();
        leading_number(name.to_str()?.strip_prefix("libsystemd-shared-")?)
    })
}

fn multiarch(machine: &Machine) -> Vec<std::path::PathBuf> {
    ["x86_64", "aarch64"]
        .map(|cpu| machine.path(format!("/usr/lib/{cpu}-linux-gnu/systemd")))
        .to_vec()
}

fn leading_number(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_of_several_units_are_up() {
        let text = "Id=a.service\nActiveState=active\n\nActiveState=inactive\nId=b.service\n\n\
                    ActiveState=active\nId=c.service\n";
        assert_eq!(parse_active(text), ["a.service", "c.service"]);
    }

    #[test]
    fn a_restart_is_no_stop_of_the_same_unit() {
        let jobs = "2412 scalr-docker.service    restart waiting\n\
                    2411 scalr-agent.service     restart running\n\
                    2413 my-scalr-agent.service  stop    running\n";
        assert!(has_restart_job(jobs, "scalr-agent.service"));
        assert!(!has_restart_job(jobs, "my-scalr-agent.service"));
        assert!(!has_restart_job(&jobs.replace("restart", "stop"), "scalr-agent.service"));
        assert!(!has_restart_job("No jobs running.\n", "scalr-agent.service"));
    }

    #[test]
    fn versions_of_old_and_new_hosts() {
        // CentOS 7, Ubuntu 18.04, CentOS 8, Debian 12, a release candidate.
        for (text, version) in [
            ("systemd 219\n+PAM +AUDIT +SELINUX +IMA -APPARMOR +SMACK\n", 219),
            ("systemd 237\n+PAM +AUDIT\n", 237),
            ("systemd 239 (239-45.el8)\n+PAM\n", 239),
            ("systemd 252 (252.39-1~deb12u1)\n+PAM\n", 252),
            ("systemd 255~rc2 (x)\n", 255),
        ] {
            assert_eq!(parse_version(text), Some(version));
        }
    }

    #[test]
    fn a_trees_version_is_in_the_librarys_name() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        assert_eq!(version(&machine), None);
        std::fs::create_dir_all(machine.path("/usr/lib/systemd")).unwrap();
        std::fs::write(machine.path("/usr/lib/systemd/systemd"), "").unwrap();
        assert_eq!(version(&machine), Some(219));
        std::fs::write(machine.path("/usr/lib/systemd/libsystemd-shared-239-82.el8.so"), "")
            .unwrap();
        assert_eq!(version(&machine), Some(239));
    }

    #[test]
    fn a_failed_units_state() {
        let text = "Result=exit-code\nExecMainStatus=7\nLoadState=loaded\n\
                    ActiveState=failed\nSubState=failed\n";
        let state = parse_state(text);
        assert_eq!((state.active.as_str(), state.exit_status), ("failed", 7));
    }
}
