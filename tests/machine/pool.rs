//! The server's pool API, called by curl from the server's own namespace.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::machine::{World, text, wait_for};

/// An agent pool with a workspace that uses it.
#[derive(Clone)]
pub(crate) struct Pool<'a> {
    world: &'a World,
    api: String,
    ca: PathBuf,
    authorization: PathBuf,
    id: String,
    workspace: String,
    /// What an agent registers with.
    pub token: String,
}

/// What the pool has told, between two moments: each is the time since 1970.
pub(crate) struct Told {
    /// Before it was asked.
    pub asked: Duration,
    /// The pool's attributes.
    pub attributes: Value,
    /// After it had answered.
    pub answered: Duration,
}

/// A run, by its id.
#[derive(Clone)]
pub(crate) struct Run(String);

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'a> Pool<'a> {
    /// Makes the pool and the workspace on the server at `url`. `authorization`
    /// is a file with the admin's header.
    pub(crate) fn make(world: &'a World, url: &str, ca: &Path, authorization: &Path) -> Self {
        let mut pool = Self {
            world,
            api: format!("{url}/api/iacp/v3"),
            ca: ca.into(),
            authorization: authorization.into(),
            id: String::new(),
            workspace: String::new(),
            token: String::new(),
        };
        pool.id = id(&pool.post(
            "/agent-pools",
            "agent-pools",
            json!({"name": "tests", "is-shared": true}),
            json!({}),
        ));
        pool.token = pool.new_token();
        pool.with_workspace("tests", json!({"auto-apply": false}))
    }

    /// The same pool with a workspace of its own, which has these attributes
    /// besides its name.
    pub(crate) fn with_workspace(&self, name: &str, mut attributes: Value) -> Self {
        attributes["name"] = name.into();
        let environment = id(&self.get("/environments?filter%5Bname%5D=default")["data"][0]);
        let links = json!({"environment": to("environments", &environment),
                           "agent-pool": to("agent-pools", &self.id)});
        let workspace = id(&self.post("/workspaces", "workspaces", attributes, links));
        Self { workspace, ..self.clone() }
    }

    /// Another token of the pool.
    pub(crate) fn new_token(&self) -> String {
        let path = format!("/agent-pools/{}/access-tokens", self.id);
        let token = self.post(&path, "access-tokens", json!({}), json!({}));
        string(&token["attributes"]["token"])
    }

    /// Deletes all tokens of the pool.
    pub(crate) fn revoke_tokens(&self) {
        let tokens = self.get(&format!("/agent-pools/{}/access-tokens", self.id));
        for token in tokens["data"].as_array().expect("a list of tokens") {
            let address = format!("{}/access-tokens/{}", self.api, id(token));
            let authorization = format!("@{}", self.authorization.display());
            self.curl(&["--request", "DELETE", "--header", &authorization, &address], b"");
        }
    }

    /// The pool's attributes.
    pub(crate) fn attributes(&self) -> Value {
        self.get(&format!("/agent-pools/{}", self.id))["data"]["attributes"].take()
    }

    /// The pool's attributes again and again, with no pause.
    pub(crate) fn attributes_often(&self, times: u32) -> Vec<Told> {
        let line = format!(
            "for n in $(seq {times}); do date +%s%N; curl --silent --show-error --fail-with-body \
             --cacert {} --header @{} {}/agent-pools/{} || exit; echo; date +%s%N; done",
            self.ca.display(),
            self.authorization.display(),
            self.api,
            self.id
        );
        let said = self.world.shell("server", &line);
        let lines: Vec<_> = said.lines().collect();
        let time = |line: &str| Duration::from_nanos(line.parse().expect("a time"));
        lines
            .chunks(3)
            .map(|told| Told {
                asked: time(told[0]),
                attributes: parse(told[1].as_bytes())["data"]["attributes"].take(),
                answered: time(told[2]),
            })
            .collect()
    }

    /// Gives the workspace a variable: a `terraform` or a `shell` one.
    pub(crate) fn variable(&self, key: &str, category: &str, sensitive: bool, value: &str) {
        self.post(
            "/vars",
            "vars",
            json!({"key": key, "value": value, "category": category,
                   "sensitive": sensitive, "hcl": false}),
            json!({"workspace": to("workspaces", &self.workspace)}),
        );
    }

    /// Gives the workspace these hooks and no others.
    pub(crate) fn hooks(&self, hooks: Value) {
        self.patch_workspace(json!({"hooks": hooks}));
    }

    /// Links a new shell script to the environment, at these events.
    pub(crate) fn environment_hook(&self, name: &str, script: &str, events: &[&str]) {
        let environment = id(&self.get("/environments?filter%5Bname%5D=default")["data"][0]);
        let attributes = json!({"name": name, "interpreter": "sh", "script": script});
        let hook = id(&self.post("/hooks", "hooks", attributes, json!({})));
        let links = json!({"environment": to("environments", &environment),
                           "hook": to("hooks", &hook)});
        let kind = "hook-environment-links";
        self.post("/hook-environment-links", kind, json!({"events": events}), links);
    }

    /// Changes attributes of the workspace.
    pub(crate) fn patch_workspace(&self, attributes: Value) {
        let body = json!({"data": {"type": "workspaces", "attributes": attributes}});
        let authorization = format!("@{}", self.authorization.display());
        let address = format!("{}/workspaces/{}", self.api, self.workspace);
        let arguments = [
            "--request",
            "PATCH",
            "--header",
            &authorization,
            "--header",
            "Content-Type: application/vnd.api+json",
            "--data-binary",
            "@-",
            &address,
        ];
        self.curl(&arguments, body.to_string().as_bytes());
    }

    /// Uploads a configuration folder and queues a run of it.
    pub(crate) fn start_run(&self, configuration: &Path) -> Run {
        self.start_run_with(configuration, json!({}))
    }

    /// The same, the run having these attributes.
    pub(crate) fn start_run_with(&self, configuration: &Path, attributes: Value) -> Run {
        let archive = std::process::Command::new("tar")
            .args(["--create", "--gzip", "--directory"])
            .arg(configuration)
            .arg(".")
            .output()
            .expect("tar starts");
        assert!(archive.status.success(), "{}", text(&archive));
        self.queue_run_of(&archive.stdout, attributes)
    }

    /// Uploads an archive, a tar.gz, and queues a run of it.
    pub(crate) fn start_run_of(&self, archive: &[u8]) -> Run {
        self.queue_run_of(archive, json!({}))
    }

    fn queue_run_of(&self, archive: &[u8], attributes: Value) -> Run {
        let document = self.run_document(&self.upload(archive), attributes);
        Run(id(&parse(&self.curl_api("/runs", Some(&document)))["data"]))
    }

    /// Uploads an archive, a tar.gz; gives the id of the configuration version.
    pub(crate) fn upload(&self, archive: &[u8]) -> String {
        let workspace = json!({"workspace": to("workspaces", &self.workspace)});
        let version = self.post(
            "/configuration-versions",
            "configuration-versions",
            json!({"auto-queue-runs": false}),
            workspace,
        );
        let upload = string(&version["links"]["upload"]);
        self.curl(&["--upload-file", "-", &upload], archive);
        id(&version)
    }

    /// What a run of a configuration version is made of.
    pub(crate) fn run_document(&self, version: &str, mut attributes: Value) -> Value {
        attributes["message"] = json!("a test");
        json!({"data": {
            "type": "runs",
            "attributes": attributes,
            "relationships": {
                "workspace": to("workspaces", &self.workspace),
                "configuration-version": to("configuration-versions", version),
            },
        }})
    }

    /// Confirms a planned run.
    pub(crate) fn apply(&self, run: &Run) {
        self.curl_api(&format!("/runs/{}/actions/apply", run.0), Some(&json!({})));
    }

    /// Cancels a run.
    pub(crate) fn cancel(&self, run: &Run) {
        self.curl_api(&format!("/runs/{}/actions/cancel", run.0), Some(&json!({})));
    }

    /// The run's status.
    pub(crate) fn status(&self, run: &Run) -> String {
        string(&self.get(&format!("/runs/{}", run.0))["data"]["attributes"]["status"])
    }

    /// Waits until the run's status is `wanted`; panics if it ends otherwise.
    pub(crate) fn wait_for_status(&self, run: &Run, wanted: &str) {
        wait_for(&format!("the run to be {wanted}"), Duration::from_secs(180), || {
            let status = self.status(run);
            let ended = ["errored", "canceled", "discarded", "planned_and_finished", "applied"];
            assert!(
                status == wanted || !ended.contains(&status.as_str()),
                "the run is {status}; its plan:\n{}\nits apply:\n{}",
                self.log(run, "plan"),
                self.log(run, "apply"),
            );
            (status == wanted).then_some(())
        });
    }

    /// Waits until the run has ended, which has to be as `wanted`.
    pub(crate) fn wait_for_ended(&self, run: &Run, wanted: &str) {
        assert_eq!(self.end(run), wanted);
    }

    /// Waits until the run has ended, and tells how.
    pub(crate) fn end(&self, run: &Run) -> String {
        let ends = ["applied", "errored", "canceled", "discarded", "planned_and_finished"];
        wait_for("the run to end", Duration::from_secs(240), || {
            Some(self.status(run)).filter(|status| ends.contains(&status.as_str()))
        })
    }

    /// The attributes of the workspace's newest run.
    pub(crate) fn newest_run(&self) -> Value {
        let path = format!("/runs?filter%5Bworkspace%5D={}&sort=-created-at", self.workspace);
        self.get(&path)["data"][0]["attributes"].take()
    }

    /// Waits until the workspace's newest run has this status.
    pub(crate) fn wait_for_newest_run(&self, status: &str) {
        wait_for(&format!("the newest run to be {status}"), Duration::from_secs(60), || {
            (self.newest_run()["status"] == status).then_some(())
        });
    }

    /// The log of the run's `plan` or `apply`; empty when it has none yet.
    pub(crate) fn log(&self, run: &Run, kind: &str) -> String {
        self.phase(run, kind).map_or_else(String::new, |phase| {
            String::from_utf8_lossy(&self.curl_api(&format!("{phase}/output"), None)).into_owned()
        })
    }

    /// The status of the run's `plan` or `apply`; empty when it has none yet.
    pub(crate) fn phase_status(&self, run: &Run, kind: &str) -> String {
        self.phase(run, kind).map_or_else(String::new, |phase| {
            string(&self.get(&phase)["data"]["attributes"]["status"])
        })
    }

    /// The attributes of the run's `plan`, and what Terraform says of it in JSON.
    pub(crate) fn plan(&self, run: &Run) -> (Value, Value) {
        let plan = self.phase(run, "plan").expect("a run has a plan");
        let json = self.curl_api(&format!("{plan}/json-output"), None);
        (self.get(&plan)["data"]["attributes"].take(), parse(&json))
    }

    fn phase(&self, run: &Run, kind: &str) -> Option<String> {
        let run = self.get(&format!("/runs/{}", run.0));
        let id = run["data"]["relationships"][kind]["data"]["id"].as_str()?;
        let folder = if kind == "plan" { "plans" } else { "applies" };
        Some(format!("/{folder}/{id}"))
    }

    /// The workspace's output of that name.
    pub(crate) fn output(&self, name: &str) -> Value {
        let outputs = self.get(&format!("/workspaces/{}/outputs", self.workspace));
        let all = outputs["data"].as_array().expect("a list of outputs");
        all.iter()
            .map(|output| output.get("attributes").unwrap_or(output))
            .find(|output| output["name"] == name)
            .map_or_else(
                || panic!("no output {name} in {outputs}"),
                |output| output["value"].clone(),
            )
    }

    /// Whether the workspace is locked.
    pub(crate) fn is_locked(&self) -> bool {
        let workspace = self.get(&format!("/workspaces/{}", self.workspace));
        workspace["data"]["attributes"]["locked"].as_bool().expect("a workspace says it")
    }

    /// How many state versions the workspace has.
    pub(crate) fn states(&self) -> usize {
        self.state_versions().len()
    }

    /// How many resources the workspace's state has; none without a state.
    pub(crate) fn resources(&self) -> u64 {
        let newest = self
            .state_versions()
            .into_iter()
            .max_by_key(|version| version["attributes"]["serial"].as_i64());
        newest.map_or(0, |version| {
            version["attributes"]["resource-count"].as_u64().expect("a number of resources")
        })
    }

    fn state_versions(&self) -> Vec<Value> {
        let path = format!("/state-versions?filter%5Bworkspace%5D={}", self.workspace);
        let mut versions = self.get(&path);
        versions["data"].as_array_mut().map(std::mem::take).expect("a list of state versions")
    }

    /// The status of each of the pool's agents.
    pub(crate) fn agents(&self) -> Vec<String> {
        let agents = self.get(&format!("/agents?filter%5Bagent-pool%5D={}", self.id));
        let all = agents["data"].as_array().expect("a list of agents");
        all.iter().map(|agent| string(&agent["attributes"]["status"])).collect()
    }

    /// What the pool's only agent reports as wrong; empty if nothing is.
    pub(crate) fn agent_message(&self) -> String {
        self.agent()["error-message"].as_str().unwrap_or_default().to_owned()
    }

    /// The attributes of the pool's only agent.
    pub(crate) fn agent(&self) -> Value {
        let mut agents = self.get(&format!("/agents?filter%5Bagent-pool%5D={}", self.id));
        agents["data"][0]["attributes"].take()
    }

    fn get(&self, path: &str) -> Value {
        parse(&self.curl_api(path, None))
    }

    fn post(&self, path: &str, kind: &str, attributes: Value, relationships: Value) -> Value {
        let body = json!({"data": {
            "type": kind, "attributes": attributes, "relationships": relationships,
        }});
        parse(&self.curl_api(path, Some(&body)))["data"].take()
    }

    fn curl_api(&self, path: &str, body: Option<&Value>) -> Vec<u8> {
        let authorization = format!("@{}", self.authorization.display());
        let address = format!("{}{path}", self.api);
        let mut arguments = vec!["--header", &authorization, &address];
        if body.is_some() {
            arguments.extend([
                "--header",
                "Content-Type: application/vnd.api+json",
                "--data-binary",
                "@-",
            ]);
        }
        self.curl(&arguments, body.map_or_else(String::new, Value::to_string).as_bytes())
    }

    fn curl(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let ca = self.ca.to_str().expect("a plain path");
        let mut command =
            vec!["curl", "--silent", "--show-error", "--fail-with-body", "--cacert", ca];
        command.extend(arguments);
        let mut child = self
            .world
            .command("server", &command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("scripts/machine starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        let output = std::thread::scope(|scope| {
            // Written aside, so that neither waits for the other.
            scope.spawn(move || std::io::Write::write_all(&mut stdin, input));
            child.wait_with_output().expect("curl ends")
        });
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        output.stdout
    }
}

/// How many lines of a log end with `end`: what a command in it wrote, since
/// Terraform puts more before that.
pub(crate) fn lines_with_end(log: &str, end: &str) -> usize {
    log.lines().filter(|line| line.trim_end().ends_with(end)).count()
}

fn to(kind: &str, id: &str) -> Value {
    json!({"data": {"type": kind, "id": id}})
}

fn parse(answer: &[u8]) -> Value {
    serde_json::from_slice(answer)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(answer)))
}

fn id(object: &Value) -> String {
    string(&object["id"])
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text, not {value}")).to_owned()
}
