//! Two agents of one pool and more runs than slots: no slot is used twice, and no
//! slot is reported as free that is in use.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::engine::{Container, Engine};
use crate::fleet::{Fleet, creating};
use crate::machine::wait_for;
use crate::pool::{Pool, Run, Told, lines_with_end};

/// How many runs each machine takes at once.
const CONCURRENCY: [usize; 2] = [2, 3];

/// How many runs are queued at once, each in a workspace of its own.
const RUNS: usize = 8;

#[test]
#[ignore = "needs root and a kit: run scripts/test"]
fn two_agents_never_use_or_tell_more_slots_than_they_have() {
    let fleet = Fleet::boot_with_package();
    let pool = fleet.pool();
    let another = fleet.boot_another(&pool);
    fleet.shell(
        "mkdir -p /etc/scalr-agent && echo 'on_stop = \"drain\"' >/etc/scalr-agent/agent.toml",
    );
    let machines = [fleet.machine.as_str(), another.as_str()];
    for (machine, concurrency) in machines.into_iter().zip(CONCURRENCY) {
        fleet.install_on(machine, &format!("--concurrency {concurrency} --memory 256"));
        fleet.world.shell(machine, "systemctl stop scalr-agent");
    }
    let work = creating("work", "for step in 1 2 3; do echo step $step; sleep 1; done");
    let runs: Vec<(Pool<'_>, Run)> = (0..RUNS)
        .map(|number| {
            let pool = pool.with_workspace(&format!("work-{number}"), json!({"auto-apply": true}));
            let run = pool.start_run(work.path());
            (pool, run)
        })
        .collect();
    let told = pool.attributes();
    assert_eq!((count(&told, "queue-depth"), count(&told, "free-slots")), (RUNS, 0));
    assert!(told["oldest-wait-seconds"].is_u64(), "{told}");
    for machine in machines {
        fleet.world.shell(machine, "systemctl start --no-block scalr-agent");
    }
    let engines = machines.map(|machine| Engine::of(&fleet.world, machine));
    let seen = watch_until_all_is_done(&pool, &engines);

    println!(
        "the pool was asked {} times, {} ms apart; the engines {} times, {} ms apart",
        seen.samples.0,
        seen.apart.0.as_millis(),
        seen.samples.1,
        seen.apart.1.as_millis()
    );
    assert_eq!(seen.at_once, CONCURRENCY, "all slots were in use at some time");
    for (pool, run) in &runs {
        pool.wait_for_ended(run, "applied");
        let log = pool.log(run, "apply");
        assert_eq!(log.matches("Apply complete!").count(), 1, "{log}");
        assert_eq!(lines_with_end(&log, "step 3"), 1, "{log}");
    }
    let names: Vec<_> = seen.containers.iter().map(|container| &container.1).collect();
    assert_eq!(names.len(), 2 * RUNS, "a container for each plan and each apply: {names:?}");
    assert!(names.iter().all(|name| name.ends_with("-1")), "no second attempt: {names:?}");

    fleet.world.shell(&another, "systemctl stop scalr-agent");
    assert_eq!(number(&pool, "free-slots"), CONCURRENCY[0]);
    a_draining_agent_has_no_free_slots_and_hears_of_a_cancel(&fleet, &pool);
}

/// What was seen while the runs went on.
struct Seen {
    /// How often the pool and the engines were looked at.
    samples: (usize, usize),
    /// How far two of those are apart, on average.
    apart: (Duration, Duration),
    /// How many containers each machine had at once, at most.
    at_once: [usize; 2],
    /// Their ids and names.
    containers: BTreeSet<(String, String)>,
}

/// The containers of both machines, as they were at some time between two moments.
struct Look {
    begun: Duration,
    containers: [Vec<Container>; 2],
    ended: Duration,
}

/// Looks at the engines and asks the pool, side by side and without a pause.
fn watch_until_all_is_done(pool: &Pool<'_>, engines: &[Engine; 2]) -> Seen {
    let begun = Instant::now();
    let done = AtomicBool::new(false);
    let (looks, told) = std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut looks = vec![look(engines)];
            while !done.load(Ordering::Relaxed) {
                looks.push(look(engines));
            }
            // One look after the last report.
            looks.push(look(engines));
            looks
        });
        let mut told: Vec<Told> = Vec::new();
        while !told.last().is_some_and(is_done) && begun.elapsed() < Duration::from_secs(180) {
            told.extend(pool.attributes_often(20));
        }
        done.store(true, Ordering::Relaxed);
        (looking.join().expect("the engines answer"), told)
    });
    let took = begun.elapsed();
    let last = told.last().expect("the pool was asked");
    assert!(is_done(last), "the runs don't end: {}", last.attributes);
    assert_eq!(last.attributes["oldest-wait-seconds"], Value::Null, "{}", last.attributes);
    for told in &told {
        check_free_slots(told, &looks);
    }
    let mut at_once = [0; 2];
    let mut seen = BTreeSet::new();
    for (machine, containers) in looks.iter().flat_map(|look| look.containers.iter().enumerate()) {
        check_slots(containers, CONCURRENCY[machine]);
        at_once[machine] = at_once[machine].max(containers.len());
        seen.extend(containers.iter().map(|found| (found.id.clone(), found.name.clone())));
    }
    let apart = |samples: usize| took / u32::try_from(samples).expect("not as many");
    Seen {
        samples: (told.len(), looks.len()),
        apart: (apart(told.len()), apart(looks.len())),
        at_once,
        containers: seen,
    }
}

/// An apply is queued before the slot of its plan is free, so that this does not
/// come too early.
fn is_done(told: &Told) -> bool {
    let count = |name| count(&told.attributes, name);
    count("queue-depth") == 0 && count("free-slots") == CONCURRENCY.iter().sum::<usize>()
}

/// A slot is taken before its container is made, and free only after that is
/// removed. So a container that is there before *and* after the pool has been
/// asked was in a slot that the pool must not have reported as free: that holds
/// exactly, however long the asking takes.
fn check_free_slots(told: &Told, looks: &[Look]) {
    let Some(before) = looks.iter().rfind(|look| look.ended <= told.asked) else { return };
    let after = looks.iter().find(|look| look.begun >= told.answered).expect("a last look");
    let after: Vec<_> = after.containers.iter().flatten().map(|container| &container.id).collect();
    let before = before.containers.iter().flatten();
    let busy = before.filter(|container| after.contains(&&container.id)).count();
    let (free, all) = (count(&told.attributes, "free-slots"), CONCURRENCY.iter().sum::<usize>());
    assert!(free + busy <= all, "{free} slots are reported free while {busy} are in use");
}

fn look(engines: &[Engine; 2]) -> Look {
    let begun = now();
    let [one, other] = engines;
    let containers = std::thread::scope(|scope| {
        let one = scope.spawn(|| one.containers());
        let other = other.containers();
        [one.join().expect("the engine answers"), other]
    });
    Look { begun, containers, ended: now() }
}

/// The time since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

/// No more containers than slots, and no two on one network.
fn check_slots(containers: &[Container], concurrency: usize) {
    assert!(containers.len() <= concurrency, "more than {concurrency}: {containers:?}");
    // One that is about to come or to go has none.
    let networks: Vec<_> = containers.iter().flat_map(|container| &container.networks).collect();
    let different: BTreeSet<_> = networks.iter().collect();
    assert_eq!(different.len(), networks.len(), "two on one network: {containers:?}");
}

fn a_draining_agent_has_no_free_slots_and_hears_of_a_cancel(fleet: &Fleet, pool: &Pool<'_>) {
    let pool = pool.with_workspace("long", json!({"auto-apply": true}));
    let run = pool.start_run(creating("long", "echo begun; sleep 1000").path());
    wait_for("the apply to begin", Duration::from_secs(60), || {
        (lines_with_end(&pool.log(&run, "apply"), "begun") == 1).then_some(())
    });
    assert_eq!(number(&pool, "free-slots"), CONCURRENCY[0] - 1);
    fleet.shell("systemctl stop --no-block scalr-agent");
    wait_for("the agent to have no free slots", Duration::from_secs(5), || {
        (number(&pool, "free-slots") == 0).then_some(())
    });
    assert_eq!(pool.status(&run), "applying", "the agent waits for it");
    pool.cancel(&run);
    pool.wait_for_ended(&run, "canceled");
    wait_for("the agent to end", Duration::from_secs(30), || {
        (fleet.shell("systemctl is-active scalr-agent || :") == "inactive").then_some(())
    });
}

fn number(pool: &Pool<'_>, attribute: &str) -> usize {
    count(&pool.attributes(), attribute)
}

fn count(attributes: &Value, name: &str) -> usize {
    let number = attributes[name].as_u64().unwrap_or_else(|| panic!("no {name}: {attributes}"));
    usize::try_from(number).expect("a small number")
}
