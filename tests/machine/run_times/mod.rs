//! How long a run takes beside its commands in plain Docker, and where its time goes.
//!
//! `scripts/bench runs` is the same with more rounds.

mod plot;
mod spans;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use load::figures::{note, quantile, spread};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::ahead::waiting;
use crate::client::{client, enter_network};
use crate::fleet::{DOCKER, Fleet, IMAGE, URL, setting};
use plot::plot;
use spans::{Collector, Span};

/// How many runs are timed: the variable that says so, and what holds without it.
const ROUNDS: (&str, u32) = ("SCALR_RUN_ROUNDS", 1);

/// Whether each run's container is started ahead of it, likewise.
const AHEAD: (&str, u32) = ("SCALR_RUN_AHEAD", 1);

/// The variable that names the file of the plot, if one is wanted.
const PLOT: &str = "SCALR_RUN_PLOT";

/// How often a run is asked whether it is planned.
const BETWEEN_ASKING: Duration = Duration::from_millis(5);

/// What a run does without hooks, variables and providers.
const COMMANDS: &str = "mkdir /tmp/work && cd /tmp/work && : >main.tf && \
    terraform init -input=false && terraform plan -input=false -out=plan && \
    terraform show -json plan >plan.json";

/// Prints what the agent has in memory, in KiB.
const MEMORY: &str = "awk '/VmRSS/ { print $2 }' \
    /proc/$(systemctl show --property=MainPID --value scalr-agent)/status";

/// A run, by the clock of this host.
struct TimedRun {
    id: String,
    posted: SystemTime,
    answered: SystemTime,
    planned: SystemTime,
}

/// The steps of that name of all runs, in milliseconds.
pub(crate) struct Step {
    name: String,
    /// The step that it is a part of; empty: none.
    part_of: String,
    /// Since the runs were posted.
    begun: Vec<f64>,
    took: Vec<f64>,
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn a_run_is_traced_from_its_offer_to_its_end() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install("");
    let is_ahead = setting(AHEAD) == 1;
    fleet.shell(&format!(
        "scalr-agent configure --telemetry-url=http://{} --prepare-ahead={is_ahead}",
        Collector::ADDRESS
    ));
    fleet.shell("systemctl restart scalr-agent");
    fleet.wait_for_agent(&pool, "idle");
    let version = pool.upload(&empty_configuration());
    let document = pool.run_document(&version, json!({"is-dry": true}));

    let rounds = setting(ROUNDS);
    let measure = || {
        enter_network(&fleet);
        // Its threads are in that network, too.
        let runtime = Runtime::new().expect("a runtime");
        let collector = runtime.block_on(Collector::start());
        let client = client(&fleet);
        let (mut runs, mut alone) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let took = docker_run(&fleet);
            let run = runtime.block_on(time_run(&client, &fleet.admin_token(), &document));
            fleet.wait_for_agent(&pool, "idle");
            // Neither is measured while the next run's container is made.
            if is_ahead {
                waiting(&fleet);
            }
            // The first one of each fills caches.
            if round > 0 {
                alone.push(took);
                runs.push(run);
            }
        }
        let memory: f64 = fleet.shell(MEMORY).parse().expect("a number of KiB");
        note("memory of an agent after its runs, MB", memory * 1024.0 / 1e6).expect("a file");
        // It sends what it has not sent yet.
        fleet.shell("systemctl stop scalr-agent");
        (runs, alone, collector.spans())
    };
    let (runs, alone, spans) = std::thread::scope(|scope| scope.spawn(measure).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));

    let steps = steps(&runs, &spans);
    let ratio = print_overhead(&runs, &alone);
    let container = if is_ahead { "started ahead" } else { "of its own" };
    note(&format!("run, container {container}, against docker run"), ratio).expect("a file");
    print_steps(&steps);
    if let Some(path) = std::env::var_os(PLOT) {
        std::fs::write(path, plot(&steps)).expect("the plot can be written");
    }
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let of_container = match is_ahead {
        true => ["take waiting container", "begin"],
        false => ["create container", "start container"],
    };
    for name in of_container.into_iter().chain([
        "claim",
        "prepare",
        "download configuration",
        "init",
        "plan",
        "show",
        "upload plan",
        "report outcome",
    ]) {
        assert!(names.contains(&name), "no step {name} in {names:?}");
    }
}

/// An archive with an empty `main.tf`.
fn empty_configuration() -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(0);
    archive.append_data(&mut header, "main.tf", std::io::empty()).expect("it is in memory");
    archive.into_inner().and_then(GzEncoder::finish).expect("it is in memory")
}

/// How long the commands of a run take in a container with a run's limits, in milliseconds.
fn docker_run(fleet: &Fleet) -> f64 {
    let line = format!(
        "begun=$(date +%s%N) && {DOCKER} run --rm --memory=512m --memory-swap=512m --cpus=1 \
         --pids-limit=2048 --cap-drop=ALL --security-opt=no-new-privileges \
         --user=$(id -u scalr-run):$(id -g scalr-run) --env=CHECKPOINT_DISABLE=1 \
         --env=HOME=/tmp {IMAGE} sh -c '{COMMANDS}' >/dev/null && \
         echo $(($(date +%s%N) - begun))"
    );
    let nanoseconds: f64 = fleet.shell(&line).parse().expect("a number");
    nanoseconds / 1e6
}

/// Queues a run and waits until it is planned.
async fn time_run(client: &Client, token: &str, document: &Value) -> TimedRun {
    let call = async |method: Method, path: &str, document: &Value| {
        let url = format!("{URL}/api/iacp/v3{path}");
        let request = client.request(method, url).bearer_auth(token);
        let request = if document.is_null() { request } else { request.json(document) };
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        answer.expect("the server answers").json::<Value>().await.expect("JSON")
    };
    let posted = SystemTime::now();
    let run = call(Method::POST, "/runs", document).await;
    let answered = SystemTime::now();
    let id = run["data"]["id"].as_str().expect("a run has an id").to_owned();
    loop {
        let run = call(Method::GET, &format!("/runs/{id}"), &Value::Null).await;
        match run["data"]["attributes"]["status"].as_str() {
            Some("planned_and_finished") => break,
            Some("errored" | "canceled") => panic!("{run}"),
            _ => tokio::time::sleep(BETWEEN_ASKING).await,
        }
    }
    TimedRun { id, posted, answered, planned: SystemTime::now() }
}

/// The runs' steps in the order in which they begin, each after what it is a part of.
fn steps(runs: &[TimedRun], spans: &[Span]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for run in runs {
        let TimedRun { posted, answered, planned, .. } = *run;
        let mut seen = HashSet::new();
        let mut add = |name: &str, part_of: &str, begun: SystemTime, ended: SystemTime| {
            let is_it = |step: &Step| step.name == name && step.part_of == part_of;
            let at = steps.iter().position(is_it).unwrap_or_else(|| {
                let (name, part_of) = (name.to_owned(), part_of.to_owned());
                steps.push(Step { name, part_of, begun: Vec::new(), took: Vec::new() });
                steps.len() - 1
            });
            let took = milliseconds(begun, ended);
            let is_first = seen.insert(at);
            match steps[at].took.last_mut() {
                // What is done in two parts begins with the first one.
                Some(first) if !is_first => *first += took,
                _ => {
                    steps[at].begun.push(milliseconds(posted, begun));
                    steps[at].took.push(took);
                }
            }
        };
        let task = spans.iter().find(|span| span.run.as_deref() == Some(run.id.as_str()));
        let task = task.unwrap_or_else(|| panic!("no trace of run {}", run.id));
        add("all, until planned", "", posted, planned);
        add("answer to POST", "", posted, answered);
        add("offer", "", posted, task.begun);
        let is_part = |span: &&Span| span.trace == task.trace && span.id != task.id;
        let mut parts: Vec<&Span> = spans.iter().filter(is_part).collect();
        parts.sort_by_key(|span| span.begun);
        for span in &parts {
            let phase = parts.iter().find(|phase| phase.id == span.parent);
            add(&span.name, phase.map_or("", |phase| &phase.name), span.begun, span.ended);
        }
    }
    let begun = |step: &Step| quantile(&step.begun, 0.5);
    let phases: HashMap<String, f64> = steps
        .iter()
        .filter(|step| step.part_of.is_empty())
        .map(|step| (step.name.clone(), begun(step)))
        .collect();
    steps.sort_by(|one, other| {
        let of_phase = |step: &Step| phases.get(&step.part_of).copied().unwrap_or(begun(step));
        let order = of_phase(one).total_cmp(&of_phase(other));
        order.then(one.part_of.cmp(&other.part_of)).then(begun(one).total_cmp(&begun(other)))
    });
    steps
}

/// Less than none where the second is the earlier one.
fn milliseconds(from: SystemTime, to: SystemTime) -> f64 {
    let seconds = to
        .duration_since(from)
        .map_or_else(|error| -error.duration().as_secs_f64(), |later| later.as_secs_f64());
    seconds * 1e3
}

/// Gives the ratio of the medians.
fn print_overhead(runs: &[TimedRun], alone: &[f64]) -> f64 {
    let planned: Vec<f64> = runs.iter().map(|run| milliseconds(run.posted, run.planned)).collect();
    println!("\nms, minimum / median / maximum of {} rounds", runs.len());
    println!("| | ms |\n|---|---|");
    println!("| `docker run` | {} |", spread(alone));
    println!("| `POST /runs` to planned | {} |", spread(&planned));
    let ratio = quantile(&planned, 0.5) / quantile(alone, 0.5);
    println!("| ratio of the medians | {ratio:.2} |");
    ratio
}

fn print_steps(steps: &[Step]) {
    println!("\n| step | begins, ms after `POST /runs` | takes, ms |\n|---|---|---|");
    for step in steps {
        let indent = if step.part_of.is_empty() { "" } else { "– " };
        let begins = quantile(&step.begun, 0.5);
        println!("| {indent}{} | {begins:.1} | {} |", step.name, spread(&step.took));
    }
}
