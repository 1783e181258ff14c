//! Tests of containers that are started ahead of their task.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::watch;

use super::ahead::{Model, WAIT};
use super::ends::{Finishes, channels, choosy, context, framed, gzip, json, packed, tar_of};
use super::entry_point::SHELLS;
use super::interrupt::Interrupt;
use super::lost::end_forgotten;
use super::prepare::command_line;
use super::tests::claimed;
use super::{TaskChannels, run_task};
use crate::context::Context;
use crate::journal::Container;
use protocol::{Finish, Intervals, Outcome, Registered, Secret};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a run says in a container that waited for it.
const SAID: &str = "said by the run\n";

/// A container of the fake engine.
#[derive(Clone, Default)]
struct Fake {
    name: String,
    has_input: bool,
    state: &'static str,
    exit_code: i64,
    has_begun: bool,
    /// How many archives were unpacked in it while it waited.
    files: usize,
}

/// An engine whose containers wait for a line if they have an input.
#[derive(Default)]
struct World {
    containers: BTreeMap<String, Fake>,
    /// What happened, in order.
    events: Vec<String>,
    image_id: u32,
    /// Containers that were removed.
    removed: Vec<String>,
    /// Whether it takes a while to start and to remove a container.
    is_slow: bool,
    /// Whether the line that lets a container begin does not reach it, and it ends.
    is_deaf: bool,
    /// The agent's folder.
    folder: PathBuf,
}

#[derive(Clone, Default)]
struct FakeEngine(Arc<Mutex<World>>);

impl FakeEngine {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    fn router(&self) -> Router {
        let engine = self.clone();
        Router::new().fallback(async move |request: Request| engine.answer(request).await)
    }

    /// The id of a container that has this id or name.
    fn find(&self, key: &str) -> Option<String> {
        let world = self.world();
        let found = world.containers.iter().find(|(id, it)| *id == key || it.name == key);
        found.map(|(id, _)| id.clone())
    }

    async fn answer(&self, mut request: Request) -> Response {
        let (method, uri) = (request.method().to_string(), request.uri().clone());
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let Some((_, path)) = path.split_once("/containers/") else {
            return match path {
                path if path.contains("/images/") => {
                    json(&format!(r#"{{"Id": "sha256:{}"}}"#, self.world().image_id))
                }
                path if path.contains("/networks/") => {
                    json(r#"{"Options": {"com.docker.network.bridge.name": "scalr-slot-0"}}"#)
                }
                path if path.ends_with("/version") => json(r#"{"ApiVersion": "1.41"}"#),
                _ => json("{}"),
            };
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
        if path == "create" {
            return self.create(query, &body);
        }
        if path == "json" {
            return self.list(query);
        }
        let (key, call) = path.split_once('/').unwrap_or((path, ""));
        let Some(id) = self.find(key) else {
            return (StatusCode::NOT_FOUND, json(r#"{"message": "no such container"}"#))
                .into_response();
        };
        if self.world().is_slow && (call == "start" || method == "DELETE") {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        match (method.as_str(), call) {
            ("DELETE", _) => {
                let mut world = self.world();
                world.containers.remove(&id);
                world.events.push(format!("remove {id}"));
                world.removed.push(id);
            }
            ("POST", "start") => {
                let mut world = self.world();
                world.events.push(format!("start {id}"));
                let container = world.containers.get_mut(&id).unwrap();
                // Without an input, it ends at once.
                container.state = if container.has_input { "running" } else { "exited" };
            }
            ("POST", "attach") => {
                if self.world().containers[&id].has_input {
                    let engine = self.clone();
                    tokio::spawn(async move { engine.wait(&id, upgrade).await });
                }
                let headers = [("connection", "Upgrade"), ("upgrade", "tcp")];
                return (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
            }
            ("POST", "rename") => {
                let mut world = self.world();
                let name = query.split_once("name=").unwrap().1.to_owned();
                world.events.push(format!("rename {id} {name}"));
                world.containers.get_mut(&id).unwrap().name = name;
            }
            ("POST", "kill") => {
                let mut world = self.world();
                world.events.push(format!("kill {id} {query}"));
                let container = world.containers.get_mut(&id).unwrap();
                if container.state == "running" {
                    (container.state, container.exit_code) = ("exited", 125);
                }
            }
            ("PUT", "archive") => {
                let mut world = self.world();
                let container = world.containers.get_mut(&id).unwrap();
                container.files += usize::from(container.state == "running");
            }
            (_, "archive") => {
                let has = query.ends_with("begun") && self.world().containers[&id].has_begun;
                return match has {
                    true => packed("").into_response(),
                    false => {
                        (StatusCode::NOT_FOUND, json(r#"{"message": "no file"}"#)).into_response()
                    }
                };
            }
            ("GET", "json") => {
                let world = self.world();
                let Fake { state, exit_code, .. } = &world.containers[&id];
                return json(&format!(
                    r#"{{"State": {{"Status": "{state}", "Running": {}, "ExitCode": {exit_code}}},
                        "Config": {{"Image": "run:1"}}, "Image": "sha256:{}"}}"#,
                    *state == "running",
                    world.image_id
                ));
            }
            ("GET", "logs") => return Bytes::new().into_response(),
            ("GET", "stats") => {}
            ("POST", "wait") => {
                while self.world().containers.get(&id).is_some_and(|it| it.state == "running") {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                return json(r#"{"StatusCode": 0}"#);
            }
            other => panic!("{other:?}"),
        }
        json("{}")
    }

    fn create(&self, query: &str, body: &[u8]) -> Response {
        // It has no limits for a container's disk.
        let Some((_, name)) = query.split_once("name=") else { return json("{}") };
        let name = name.split('&').next().unwrap();
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let mut world = self.world();
        let id = format!("c{}", world.events.len());
        let has_input = body["OpenStdin"] == true;
        world.events.push(format!("create {id}"));
        let new = Fake { name: name.to_owned(), has_input, state: "created", ..Fake::default() };
        world.containers.insert(id.clone(), new);
        json(&format!(r#"{{"Id": "{id}", "Warnings": []}}"#))
    }

    /// All are this agent's, and have no task in their labels.
    fn list(&self, query: &str) -> Response {
        if !query.contains("scalr.agent") {
            return json("[]");
        }
        let world = self.world();
        let one = |(id, it): (&String, &Fake)| {
            format!(r#"{{"Id": "{id}", "Names": ["/{}"], "Labels": {{}}}}"#, it.name)
        };
        let all: Vec<String> = world.containers.iter().map(one).collect();
        json(&format!("[{}]", all.join(",")))
    }

    /// What the first process does of a container with an input.
    async fn wait(&self, id: &str, upgrade: hyper::upgrade::OnUpgrade) {
        let stream = TokioIo::new(upgrade.await.unwrap());
        let (read, mut write) = tokio::io::split(stream);
        let mut line = String::new();
        let read = BufReader::new(read).read_line(&mut line).await;
        let name = {
            let mut world = self.world();
            let journal = world.folder.join("tasks/task-1-1/journal");
            let is_deaf = world.is_deaf;
            let Some(container) = world.containers.get_mut(id) else { return };
            container.state = "exited";
            if !read.is_ok_and(|bytes| bytes > 0) || is_deaf {
                container.exit_code = 125;
                return;
            }
            container.has_begun = true;
            let (name, files) = (container.name.clone(), container.files);
            let journal = fs::read_to_string(journal).unwrap_or_default();
            let is_noted = journal.contains(&format!(r#""id":"{id}""#));
            world.events.push(format!("begin {id} {files} {is_noted}"));
            name
        };
        let text = framed(&format!("{SAID}end of output of {name}\n"));
        write.write_all(&text).await.unwrap();
        write.shutdown().await.unwrap();
    }
}

/// An agent with this engine, and with a server that notes how tasks end.
struct Agent {
    folder: tempfile::TempDir,
    engine: FakeEngine,
    finishes: Finishes,
    context: Arc<Context>,
}

impl Agent {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (engine, finishes) = (FakeEngine::default(), Finishes::default());
        folder.path().clone_into(&mut engine.world().folder);
        let server = with_configuration(&finishes);
        let context = context(folder.path(), server, engine.router()).await;
        let registered = Registered {
            agent_id: "agent-1".to_owned(),
            pool_id: "apool-1".to_owned(),
            session_token: Secret::new("s"),
            intervals: Intervals::default(),
        };
        context.registered.set(registered).unwrap();
        Self { folder, engine, finishes, context }
    }

    /// Runs the task of [`claimed`], and gives how it ended.
    async fn run(&self) -> (Finish, Option<Model>) {
        let entry = self.context.journal.begin(claimed(), 0).unwrap();
        self.go_on(entry, channels()).await
    }

    async fn go_on(
        &self,
        entry: crate::journal::Entry,
        channels: TaskChannels,
    ) -> (Finish, Option<Model>) {
        let slot = self.context.slots.take_again(0);
        let running = run_task(Arc::clone(&self.context), entry, slot, channels);
        let model = tokio::time::timeout(PATIENCE, running).await.unwrap();
        (self.finishes.lock().unwrap().pop().unwrap(), model)
    }

    /// Runs a task, and has a container started ahead of the next one; gives its id.
    async fn prepare(&self) -> (String, Model) {
        let model = self.run().await.1.unwrap();
        self.context.ahead.prepare(&self.context, model.clone()).await;
        let world = self.engine.world();
        let waiting = world.containers.iter().find(|(_, it)| it.has_input);
        let (id, waiting) = waiting.expect("one waits");
        assert!(waiting.name.starts_with("scalr-ahead-"), "{}", waiting.name);
        assert_eq!(waiting.state, "running");
        (id.clone(), model)
    }

    fn events(&self) -> Vec<String> {
        self.engine.world().events.clone()
    }

    async fn wait_for_removal(&self, id: &str) {
        let removed = async {
            while !self.engine.world().removed.iter().any(|removed| removed == id) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, removed).await.expect("it is removed");
    }
}

/// A server that has a configuration.
fn with_configuration(finishes: &Finishes) -> Router {
    choosy(finishes, |_| None).layer(from_fn(async |request: Request, next: Next| {
        match request.uri().path().ends_with("/configuration") {
            true => gzip(&tar_of("main.tf", "")).into_response(),
            false => next.run(request).await,
        }
    }))
}

#[tokio::test]
async fn a_task_begins_in_the_container_that_waits_once_that_has_its_files_and_is_noted() {
    let agent = Agent::start().await;
    let (id, _) = agent.prepare().await;
    let before = agent.events().len();
    let (finish, _) = agent.run().await;

    let expected =
        [format!("rename {id} task-1-1"), format!("begin {id} 1 true"), format!("remove {id}")];
    assert_eq!(agent.events()[before..], expected);
    assert_eq!(finish.log_bytes, SAID.len() as u64);
    assert!(agent.context.journal.entries().unwrap().is_empty());
    // It has had its run.
    let (_, model) = agent.run().await;
    assert_eq!(agent.events().last().unwrap().split(' ').next(), Some("remove"));
    assert!(model.is_some() && agent.engine.world().containers.is_empty());
}

#[tokio::test]
async fn a_container_that_is_not_as_the_task_needs_it_is_removed_and_another_one_made() {
    type Change = fn(&mut Agent, &str);
    let changes: [(&str, Change); 5] = [
        ("another image has the name", |agent, _| agent.engine.world().image_id += 1),
        ("more memory", |agent, _| {
            Arc::get_mut(&mut agent.context).unwrap().config.memory += 1;
        }),
        ("the host has other name servers", |agent, _| {
            fs::write(agent.folder.path().join("resolv.conf"), "nameserver 192.0.2.1").unwrap();
        }),
        ("it has ended", |agent, id| {
            agent.engine.world().containers.get_mut(id).unwrap().state = "exited";
        }),
        ("it was removed", |agent, id| drop(agent.engine.world().containers.remove(id))),
    ];
    for (what, change) in changes {
        let mut agent = Agent::start().await;
        let file = agent.folder.path().join("resolv.conf");
        Arc::get_mut(&mut agent.context).unwrap().ahead.name_servers = [file.clone(), file];
        let (id, _) = agent.prepare().await;
        change(&mut agent, &id);
        let before = agent.events().len();
        agent.run().await;
        let events = agent.events().split_off(before);
        assert!(events.iter().any(|event| event.starts_with("create ")), "{what}: {events:?}");
        assert!(!events.iter().any(|event| event.starts_with("begin ")), "{what}: {events:?}");
        if what != "it was removed" {
            agent.wait_for_removal(&id).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_started_ahead_where_that_is_not_wanted_or_the_slot_is_taken() {
    let mut agent = Agent::start().await;
    let model = agent.run().await.1.unwrap();
    let slot = agent.context.slots.take_again(0);
    agent.context.ahead.prepare(&agent.context, model.clone()).await;
    assert!(!agent.context.ahead.is_any(), "the next task has the slot");
    drop(slot);
    Arc::get_mut(&mut agent.context).unwrap().config.prepare_ahead = false;
    agent.context.ahead.prepare(&agent.context, model.clone()).await;
    assert!(!agent.context.ahead.is_any(), "it is switched off");
    Arc::get_mut(&mut agent.context).unwrap().config.prepare_ahead = true;
    agent.context.ahead.close().await;
    agent.context.ahead.prepare(&agent.context, model).await;
    assert!(!agent.context.ahead.is_any(), "the agent stops");
    assert!(agent.engine.world().containers.is_empty());
}

#[tokio::test]
async fn what_waits_is_removed_when_the_agent_stops_or_has_no_firewall() {
    let agent = Agent::start().await;
    let (id, model) = agent.prepare().await;
    agent.context.ahead.look(true);
    assert!(agent.context.ahead.is_any());
    agent.context.ahead.look(false);
    agent.wait_for_removal(&id).await;
    agent.context.ahead.prepare(&agent.context, model).await;
    assert!(agent.context.ahead.is_any());
    agent.context.ahead.close().await;
    assert!(agent.engine.world().containers.is_empty());
}

#[tokio::test]
async fn an_agent_that_stops_waits_for_the_removal_of_what_is_being_made() {
    let agent = Agent::start().await;
    let model = agent.run().await.1.unwrap();
    agent.engine.world().is_slow = true;
    let context = Arc::clone(&agent.context);
    let making = tokio::spawn(async move { context.ahead.prepare(&context, model).await });
    let made = async {
        while agent.engine.world().containers.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, made).await.expect("it is being made");
    agent.context.ahead.close().await;
    assert!(agent.engine.world().containers.is_empty());
    tokio::time::timeout(PATIENCE, making).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_run_that_had_not_begun_when_its_agent_died_gets_another_container() {
    for (state, exit_code, has_begun, is_replaced) in [
        ("exited", 125, false, true),
        ("exited", 125, true, false),
        ("exited", 1, false, false),
        // It waits for ever, since the engine was restarted.
        ("running", 0, false, true),
    ] {
        let agent = Agent::start().await;
        let left = Fake {
            name: "task-1-1".to_owned(),
            has_input: true,
            state,
            exit_code,
            has_begun,
            files: 1,
        };
        agent.engine.world().containers.insert("left".to_owned(), left);
        let mut entry = agent.context.journal.begin(claimed(), 0).unwrap();
        let container = Container {
            id: "left".into(),
            log_start: 0,
            state_sha256: None,
            started_at: None,
            is_ahead: true,
        };
        entry.note_container(container).unwrap();
        drop(entry);

        let entry = agent.context.journal.entries().unwrap().remove(0);
        agent.go_on(entry, channels()).await;
        let events = agent.events();
        let made = events.iter().filter(|event| event.starts_with("create ")).count();
        assert_eq!(made, usize::from(is_replaced), "{state} {exit_code} {has_begun}: {events:?}");
        assert!(events.contains(&"remove left".to_owned()), "{events:?}");
        assert!(agent.engine.world().containers.is_empty(), "{events:?}");
    }
}

#[tokio::test]
async fn a_container_that_ends_before_it_hears_that_it_may_begin_is_replaced() {
    let agent = Agent::start().await;
    let (id, _) = agent.prepare().await;
    agent.engine.world().is_deaf = true;
    let before = agent.events().len();
    agent.run().await;
    let events = agent.events().split_off(before);
    assert_eq!(events[..2], [format!("rename {id} task-1-1"), format!("remove {id}")]);
    assert!(events[2].starts_with("create ") && events[3].starts_with("start "), "{events:?}");
    assert!(agent.context.journal.entries().unwrap().is_empty());
}

#[tokio::test]
async fn a_canceled_task_that_needs_no_container_leaves_the_one_that_waits_to_the_next() {
    let agent = Agent::start().await;
    let (id, _) = agent.prepare().await;
    let (_order, orders) = watch::channel(Some(Interrupt::Canceled));
    let entry = agent.context.journal.begin(claimed(), 0).unwrap();
    let (finish, _) = agent.go_on(entry, TaskChannels { orders, ..channels() }).await;
    assert_eq!(finish.outcome, Outcome::Canceled);
    assert!(agent.engine.find(&id).is_some() && agent.context.ahead.is_any());
    let (finish, _) = agent.run().await;
    assert_ne!(finish.outcome, Outcome::Canceled);
    assert!(agent.engine.world().containers.is_empty());
}

#[tokio::test]
async fn what_an_earlier_agent_left_waiting_is_removed_and_its_own_is_not() {
    let agent = Agent::start().await;
    let (id, _) = agent.prepare().await;
    let left = Fake { name: "scalr-ahead-0a-0-1b".to_owned(), ..Fake::default() };
    agent.engine.world().containers.insert("left".to_owned(), left);
    // It became the container of a task that nobody knows any more.
    let forgotten = Fake { name: "task-9-2".to_owned(), state: "exited", ..Fake::default() };
    agent.engine.world().containers.insert("forgotten".to_owned(), forgotten);
    tokio::time::timeout(PATIENCE, end_forgotten(&agent.context)).await.unwrap();
    let world = agent.engine.world();
    assert_eq!(world.removed[world.removed.len() - 2..], ["forgotten", "left"]);
    assert!(world.containers.contains_key(&id));
    let lost = fs::read_dir(agent.folder.path().join("lost")).unwrap();
    assert_eq!(lost.count(), 0, "it has no state");
}

#[test]
fn a_shell_begins_at_a_line_and_else_ends_with_a_code_of_its_own() {
    for shell in SHELLS {
        for (line, signal, expected) in [
            (Some("begin\n"), None, (Some(7), "it's begun\n", true)),
            (Some(""), None, (Some(125), "", false)),
            (None, Some("TERM"), (Some(125), "", false)),
            (None, Some("INT"), (Some(125), "", false)),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path().to_str().unwrap();
            let words = ["/bin/sh", "-c", "echo \"$1\"; cat; exit 7", "sh", "it's begun"];
            let command = command_line(&words.map(str::to_owned));
            fs::write(folder.path().join("command"), command).unwrap();
            let wait = WAIT.replace("/scalr/run", run).replace("read -r", "echo waits; read -r");
            // As in a container: a shell can't trap what it was started to ignore.
            let mut child = Command::new("env")
                .arg("--default-signal")
                .args(shell)
                .args(["-c", &wait])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = child.stdin.take().unwrap();
            let mut said = std::io::BufReader::new(child.stdout.take().unwrap());
            let mut first = String::new();
            std::io::BufRead::read_line(&mut said, &mut first).unwrap();
            match (line, signal) {
                (Some(line), _) => {
                    input.write_all(line.as_bytes()).unwrap();
                    if line.is_empty() {
                        drop(input);
                    }
                }
                (None, signal) => {
                    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
                    let signal = format!("SIG{}", signal.unwrap()).parse().unwrap();
                    nix::sys::signal::kill(pid, Some::<nix::sys::signal::Signal>(signal)).unwrap();
                }
            }
            let mut rest = String::new();
            std::io::Read::read_to_string(&mut said, &mut rest).unwrap();
            let code = child.wait().unwrap().code();
            let has_begun = folder.path().join("begun").exists();
            assert_eq!((code, rest.as_str(), has_begun), expected, "{shell:?} {line:?} {signal:?}");
        }
    }
}
