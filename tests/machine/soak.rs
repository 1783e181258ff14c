//! Many runs under an agent that is killed again and again: each is applied once,
//! no byte of a log is lost or doubled, and nothing is left.
//!
//! `scripts/bench soak` is the same with other numbers.

mod killer;
mod record;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fleet::{DOCKER, Fleet, creating, setting};
use crate::machine::wait_for;
use crate::pool::{Pool, Run, lines_with_end};
use killer::{Kill, Killer};
use record::{Recorded, Recorder};

/// How many runs, and how far two kills are apart on average, in seconds: the
/// variables that say so, and what holds without them.
const RUNS: (&str, u32) = ("SCALR_SOAK_RUNS", 12);
const BETWEEN_KILLS: (&str, u32) = ("SCALR_SOAK_KILL_SECONDS", 5);

/// How many tasks the agent has at once.
const CONCURRENCY: u32 = 4;

/// How many workspaces take turns. More than slots: a run waits for the one
/// before it in its workspace.
const WORKSPACES: u32 = 8;

/// How many lines each apply writes besides what Terraform says.
const LINES: u32 = 2000;

/// What the agent may need at most, in kB.
const MOST_MEMORY: u64 = 40 * 1024;

/// A run, and what has come of it.
struct Outcome {
    name: String,
    id: Run,
    status: String,
    /// The logs that the server has, by phase.
    logs: BTreeMap<&'static str, String>,
}

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn runs_outlive_an_agent_that_is_killed_again_and_again() {
    let (count, seconds) = (setting(RUNS), setting(BETWEEN_KILLS));
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    fleet.install(&format!("--concurrency {CONCURRENCY} --memory 256"));
    fleet.wait_for_agent(&pool, "idle");
    let workspaces: Vec<Pool<'_>> = (0..WORKSPACES.min(count))
        .map(|number| pool.with_workspace(&format!("soak-{number}"), json!({"auto-apply": true})))
        .collect();

    let recorder = Recorder::start(&fleet.world.root(&fleet.machine));
    let begun = Instant::now();
    let killer = Killer::new(Duration::from_secs(seconds.into()));
    let (outcomes, kills) = std::thread::scope(|scope| {
        let killing = scope.spawn(|| killer.kill_agents(&fleet));
        // However this ends, the killing ends with it.
        let _stop = killer.stop_at_end();
        let runs: Vec<_> = (0..count)
            .map(|number| {
                let pool = &workspaces[(number % WORKSPACES) as usize];
                let name = format!("run_{number}");
                let id = pool.start_run(creating(&name, &writing(&name)).path());
                (pool, name, id)
            })
            .collect();
        let ended: Vec<_> =
            runs.into_iter().map(|(pool, name, id)| (pool.end(&id), pool, name, id)).collect();
        killer.stop();
        let outcomes: Vec<Outcome> = ended
            .into_iter()
            .map(|(status, pool, name, id)| {
                let log = |phase| (phase, pool.log(&id, phase));
                let logs = ["plan", "apply"].map(log).into();
                Outcome { name, id, status, logs }
            })
            .collect();
        (outcomes, killing.join().expect("the killer ends well"))
    });
    let took = begun.elapsed();
    fleet.wait_for_agent(&pool, "idle");
    let broken = sum_up(&fleet, &outcomes, &recorder.end(), &kills, took);
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What an apply does: it writes numbered lines for some seconds, and that it is
/// through, each at once.
fn writing(name: &str) -> String {
    format!(
        "awk 'BEGIN {{ for (n = 1; n <= {LINES}; n++) {{ print \"{name} line \" n; fflush(); \
         if (n % 500 == 0) system(\"sleep 0.7\") }} }}'; echo {name} is applied"
    )
}

/// Prints the figures; gives the promises that were broken.
fn sum_up(
    fleet: &Fleet,
    outcomes: &[Outcome],
    recorded: &[Recorded],
    kills: &[Kill],
    took: Duration,
) -> Vec<String> {
    let mut broken = Vec::new();
    let (mut bytes, mut lost, mut doubled, mut again) = (0, 0, 0, 0);
    for run in outcomes {
        let Outcome { name, id, status, logs } = run;
        if status != "applied" {
            broken.push(format!("{name} ({id}) ended as {status}: {logs:#?}"));
        }
        let of_phase = |phase| {
            recorded.iter().filter(move |other| other.run == id.to_string() && other.phase == phase)
        };
        let says_so = format!("{name} is applied");
        let applied = of_phase("apply").map(|apply| lines_with_end(&apply.log, &says_so));
        let applied: usize = applied.sum();
        if applied != 1 {
            broken.push(format!("{name} was applied {applied} times"));
        }
        for (phase, log) in logs {
            again += of_phase(phase).count().saturating_sub(1);
            // A claim whose answer was lost is given again, as the same attempt; what was killed
            // with the agent before it began wrote nothing.
            let newest = of_phase(phase).max_by_key(|one| (one.attempt, one.log.len()));
            let Some(truth) = newest else {
                broken.push(format!("the engine had no {phase} of {name}"));
                continue;
            };
            bytes += log.len();
            let (missing, more) = difference(&truth.log, log);
            (lost, doubled) = (lost + missing, doubled + more);
            if missing + more > 0 {
                broken
                    .push(format!("the {phase} of {name} lacks {missing} bytes, has {more} more"));
            }
        }
        // Not only what the engine kept: also what Terraform wrote.
        if !written(&logs["apply"]).contains(&lines(name)) {
            broken.push(format!("{name}: not each line is there once and in order"));
        }
    }
    // Before the agent is stopped.
    let memory = killer::memory(fleet);
    let left = left(fleet);
    if !left.is_empty() {
        broken.push(format!("left behind: {left}"));
    }
    let peak = kills.iter().map(|kill| kill.memory).chain([memory]).max();
    let peak = peak.unwrap_or_default();
    if peak >= MOST_MEMORY {
        broken.push(format!("the agent needed {peak} kB of memory"));
    }
    let mut silences = killer::silences(fleet, kills);
    silences.sort_unstable();
    let seconds = |silence: Option<&Duration>| {
        silence.map_or_else(|| "?".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()))
    };
    println!(
        "{} runs in {} s, {CONCURRENCY} at once; the agent was killed {} times\n\
         containers: {}, {again} of them because a claim was lost with the agent\n\
         logs: {bytes} bytes, {lost} lost, {doubled} doubled\n\
         from a kill until the agent was heard again: {} in the median, {} at most\n\
         the agent's memory: {peak} kB at most\n\
         left behind: {}\n\
         promises broken: {}",
        outcomes.len(),
        took.as_secs(),
        kills.len(),
        recorded.len(),
        seconds(silences.get(silences.len() / 2)),
        seconds(silences.last()),
        if left.is_empty() { "nothing" } else { &left },
        broken.len(),
    );
    if kills.is_empty() {
        broken.push("the agent was never killed, so this showed nothing".to_owned());
    }
    broken
}

/// What is on the machine that no run needs any more; empty when nothing is.
fn left(fleet: &Fleet) -> String {
    // The agent is idle for the server before it has cleaned up.
    wait_for("the last clean-up", Duration::from_secs(30), || {
        fleet.shell("ls -A /var/lib/scalr-agent/tasks").is_empty().then_some(())
    });
    // With it goes what waits for the next run.
    fleet.shell("systemctl stop scalr-agent");
    let slots: String = (0..CONCURRENCY).map(|slot| format!(" -e scalr-slot-{slot}")).collect();
    fleet.shell(&format!(
        "{DOCKER} ps --all --quiet; {DOCKER} volume ls --quiet; \
         {DOCKER} network ls --format '{{{{.Name}}}}' | grep -vx -e none -e host -e bridge{slots}; \
         ls -d /var/lib/scalr-agent/lost 2>/dev/null || :"
    ))
}

/// How many bytes of `truth` are not in `log`, and how many more that has, if
/// they differ in one place.
fn difference(truth: &str, log: &str) -> (usize, usize) {
    let (truth, log) = (truth.as_bytes(), log.as_bytes());
    let same =
        |pairs: &mut dyn Iterator<Item = (&u8, &u8)>| pairs.take_while(|(a, b)| a == b).count();
    let begin = same(&mut truth.iter().zip(log));
    let (truth, log) = (&truth[begin..], &log[begin..]);
    let end = same(&mut truth.iter().rev().zip(log.iter().rev()));
    (truth.len() - end, log.len() - end)
}

/// What a run's command wrote, by an apply's log: without space, since Terraform makes
/// two lines of one that takes it more than 0.1 s to read.
fn written(log: &str) -> String {
    let text = anstream::adapter::strip_str(log).to_string();
    let of_command = |line: &str| Some(without_space(line.split_once("(local-exec):")?.1));
    text.lines().filter_map(of_command).collect()
}

/// What it was to write, in the same form.
fn lines(name: &str) -> String {
    (1..=LINES).map(|number| without_space(&format!("{name} line {number}"))).collect()
}

fn without_space(text: &str) -> String {
    text.split_whitespace().collect()
}
