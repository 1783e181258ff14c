//! A machine's private engine, asked from this host and so without starting
//! anything on the machine.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::machine::{World, text};

/// The engine of one machine.
pub(crate) struct Engine {
    socket: PathBuf,
}

/// One of its containers, running or not.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// Its id.
    pub id: String,
    /// `TASK-ATTEMPT`.
    pub name: String,
    /// The names of its networks.
    pub networks: Vec<String>,
}

impl Engine {
    /// The engine of `machine`, as long as that runs.
    pub(crate) fn of(world: &World, machine: &str) -> Self {
        let root = world.root(machine);
        Self { socket: root.join("run/scalr-docker/docker.sock") }
    }

    /// All containers of runs that there are at this moment.
    pub(crate) fn containers(&self) -> Vec<Container> {
        let answer = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--unix-socket"])
            .arg(&self.socket)
            .arg("http://engine/containers/json?all=true")
            .output()
            .expect("curl starts");
        assert!(answer.status.success(), "{}", text(&answer));
        let all: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
        let all = all.as_array().expect("a list").iter().map(container);
        all.filter(|container| !container.name.starts_with(AHEAD)).collect()
    }
}

/// How the names of containers begin that wait for a run.
pub(crate) const AHEAD: &str = "scalr-ahead-";

/// What a container was for.
pub(crate) struct Attempt {
    /// The run.
    pub run: String,
    /// `plan` or `apply`.
    pub kind: String,
    /// Which attempt at that.
    pub number: u32,
}

impl Attempt {
    /// By what the engine has `about` a container: its labels, or, for one that was started
    /// ahead, the `journal` that the agent keeps of the attempt with the container's name. None
    /// for one that has had no run.
    pub(crate) fn of(about: &Value, journal: impl FnOnce(&str) -> String) -> Option<Self> {
        let label = |name: &str| about["Config"]["Labels"][name].as_str();
        let name = about["Name"].as_str().expect("a name").trim_start_matches('/');
        if let (Some(run), Some(kind)) = (label("scalr.run"), label("scalr.kind")) {
            let number = label("scalr.attempt")?.parse().expect("a number");
            return Some(Self { run: run.to_owned(), kind: kind.to_owned(), number });
        }
        label("scalr.ahead").filter(|_| !name.starts_with(AHEAD))?;
        let journal = journal(name);
        let first = journal.lines().next().expect("the task was noted before its container");
        let claimed: Value = serde_json::from_str(first).expect("JSON");
        let task = &claimed["claimed"]["claim"]["task"];
        let text = |name: &str| task[name].as_str().expect("a text").to_owned();
        let number = task["attempt"].as_u64().and_then(|number| number.try_into().ok());
        Some(Self { run: text("run_id"), kind: text("kind"), number: number.expect("a number") })
    }
}

/// What a run's container wrote, from the engine's file of it (lines of `{"log": …,
/// "stream": …, "time": …}`) and from what the engine has `about` it, its
/// `config.v2.json`. Without the entry point's last line, which is for the agent alone.
///
/// A line of the file that a full disk has cut off is left out: with any other fault,
/// the log that the server has is then not what is found here.
pub(crate) fn written(about: &Value, file: &str) -> String {
    let text: String = file
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|line| line["log"].as_str().expect("a text").to_owned())
        .collect();
    let name = about["Name"].as_str().expect("a name").trim_start_matches('/');
    text.replace(&format!("end of output of {name}\n"), "")
}

fn container(value: &Value) -> Container {
    let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let networks = value["NetworkSettings"]["Networks"].as_object();
    Container {
        id: string(&value["Id"]),
        name: string(&value["Names"][0]).trim_start_matches('/').to_owned(),
        networks: networks.map(|all| all.keys().cloned().collect()).unwrap_or_default(),
    }
}
