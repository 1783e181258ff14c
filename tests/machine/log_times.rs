//! How far a log that is followed through the server is behind `docker logs --follow` of the
//! same container.
//!
//! `scripts/bench logs` runs this.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use load::figures::{note, quantile, spread};
use reqwest::Client;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::client::{client, enter_network};
use crate::fleet::{DOCKER, Fleet, URL, configuration};
use crate::pool::Run;

/// How many lines come one by one, 20 ms apart, after others by which the agent learns that the
/// log is watched; how many come after them at once, and how long each of those is, in bytes.
const PACED: u32 = 500;
const LEAD: u32 = 100;
const AT_ONCE: u32 = 500_000;
const LENGTH: u32 = 100;

/// The last line.
const END: &str = "that was the last line";

/// When lines arrived.
#[derive(Default)]
struct Arrivals {
    /// The paced ones, by their numbers.
    paced: BTreeMap<u32, Instant>,
    end: Option<Instant>,
}

impl Arrivals {
    fn note(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(number) = line.strip_prefix("paced ").and_then(|number| number.parse().ok()) {
            self.paced.insert(number, Instant::now());
        } else if line == END {
            self.end = Some(Instant::now());
        }
    }

    /// MB a second of the lines that came at once.
    fn throughput(&self) -> f64 {
        let (_, begun) = self.paced.last_key_value().expect("paced lines");
        let took = self.end.expect("the last line") - *begun;
        f64::from(AT_ONCE * LENGTH) / 1e6 / took.as_secs_f64()
    }
}

fn follow_beside_docker() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    pool.variable("greeting", "terraform", false, "hello");
    fleet.install("");
    fleet.wait_for_agent(&pool, "idle");
    let line = "x".repeat(LENGTH as usize - 1);
    let script = format!(
        "#!/bin/sh\nuntil [ -e /tmp/begin ]; do usleep 20000; done\n\
         say() {{ i=0; while [ $i -lt $2 ]; do i=$((i + 1)); echo \"$1 $i\"; usleep 20000; done; }}\n\
         say lead {LEAD}\nsay paced {PACED}\n\
         yes {line} | head -n {AT_ONCE}\necho {END}\n"
    );
    pool.hooks(serde_json::json!({ "pre-plan": script }));
    let run = pool.start_run(&configuration());
    let container = fleet.running_container();
    let container = container["Id"].as_str().expect("a container has an id");
    let through_server = || {
        enter_network(&fleet);
        // Its threads are in that network, too.
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(follow(&client(&fleet), &fleet.admin_token(), &run))
    };
    let (server, docker) = std::thread::scope(|scope| {
        let server = scope.spawn(through_server);
        let docker = scope.spawn(|| follow_container(&fleet, container));
        fleet.shell(&format!("{DOCKER} exec {container} touch /tmp/begin"));
        (server.join(), docker.join())
    });
    let (server, docker) = (server.expect("the log ends"), docker.expect("the log ends"));
    pool.wait_for_status(&run, "planned");

    assert_eq!(server.paced.len(), PACED as usize);
    let lags: Vec<f64> = server
        .paced
        .iter()
        .map(|(number, at)| {
            let in_docker = docker.paced[number];
            at.saturating_duration_since(in_docker).as_secs_f64() * 1e3
                - in_docker.saturating_duration_since(*at).as_secs_f64() * 1e3
        })
        .collect();
    let (ours, theirs) = (server.throughput(), docker.throughput());
    println!("\n| | |\n|---|---|");
    println!(
        "| ms behind `docker logs --follow`, minimum / median / maximum of {PACED} lines | {} |",
        spread(&lags)
    );
    println!("| p99 | {:.1} |", quantile(&lags, 0.99));
    println!(
        "| MB/s of {} MB at once, through the server | {ours:.1} |",
        AT_ONCE * LENGTH / 1_000_000
    );
    println!("| `docker logs --follow` | {theirs:.1} |");
    println!("| ratio | {:.2} |", ours / theirs);
    note("a followed log behind docker logs, p99, ms", quantile(&lags, 0.99)).expect("a file");
}

/// Reads the log of a run's plan by the plan's link, as Terraform does.
async fn follow(client: &Client, token: &str, run: &Run) -> Arrivals {
    let get = async |path: String| {
        let request = client.get(format!("{URL}/api/v2{path}")).bearer_auth(token);
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        answer.expect("the server answers").json::<Value>().await.expect("JSON")
    };
    let run = get(format!("/runs/{run}")).await;
    let plan = run["data"]["relationships"]["plan"]["data"]["id"].as_str().expect("a plan");
    let plan = get(format!("/plans/{plan}")).await;
    let link = plan["data"]["attributes"]["log-read-url"].as_str().expect("a plan has a log");
    let (mut arrivals, mut offset, mut rest) = (Arrivals::default(), 0, Vec::new());
    while arrivals.end.is_none() {
        let part = client.get(format!("{link}?offset={offset}&limit=65536"));
        let answer = part.send().await.and_then(reqwest::Response::error_for_status);
        let piece = answer.expect("the server answers").bytes().await.expect("a piece");
        offset += piece.len();
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            arrivals.note(&String::from_utf8_lossy(&line));
        }
    }
    arrivals
}

fn follow_container(fleet: &Fleet, container: &str) -> Arrivals {
    let follow = format!("{DOCKER} logs --follow {container}");
    let mut docker = fleet
        .world
        .command(&fleet.machine, &["sh", "-c", &follow])
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/machine starts");
    let mut arrivals = Arrivals::default();
    for line in BufReader::new(docker.stdout.take().expect("it is piped")).lines() {
        arrivals.note(&line.expect("a line"));
    }
    docker.wait().expect("it ends");
    arrivals
}

mod full {
    #[test]
    #[ignore = "needs root and a kit: run scripts/test --full"]
    fn a_log_is_followed_to_its_end_beside_docker() {
        super::follow_beside_docker();
    }
}
