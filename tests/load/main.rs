//! Measures a server under simulated agents, and prints a table.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use load::figures::{growth, note, quantile, spread};
use load::fleet::{Fleet, Work};
use load::plot::plot;
use load::site::Site;
use tokio::task::JoinSet;

/// How long a fleet may take to register or to come back.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures a server under simulated agents, over TLS on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// The program scalr-server
    #[arg(long, value_name = "FILE")]
    server: PathBuf,
    /// How large the fleets are
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    agents: Vec<u32>,
    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Runs that are queued a second
    #[arg(long, default_value_t = 5)]
    rate: u32,
    /// For how long runs are queued, in seconds, and before that for how long nothing happens
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// How long a task runs, in milliseconds
    #[arg(long, default_value_t = 200)]
    think: u64,
    /// How long the log of a task is, in bytes
    #[arg(long, default_value_t = 4096)]
    log: usize,
    /// Draw how the figures grow with the fleet, as an SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What is measured, each with its unit.
const FIGURES: [&str; 10] = [
    "registrations, 1/s",
    "idle: processor of the server, % of a core",
    "idle: memory of the server for an agent, KiB",
    "POST /runs, median, ms",
    "POST /runs, p99, ms",
    "queued to offered, median, ms",
    "queued to offered, p99, ms",
    "runs ended, 1/s",
    "restart until all agents are back, s",
    "agents offline after that",
];

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.plot.is_none() || args.agents.len() > 1, "a plot takes fleets of two sizes");
    tokio::runtime::Runtime::new()?.block_on(measure(&args))
}

async fn measure(args: &Args) -> Result<()> {
    let mut columns = Vec::new();
    for &agents in &args.agents {
        let mut rounds = Vec::new();
        for round in 1..=args.rounds {
            eprintln!("{agents} agents, round {round} of {}", args.rounds);
            rounds.push(one_round(args, agents).await?);
        }
        columns.push(rounds);
    }
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "minimum / median / maximum of {} rounds, {} runs a second; load of the machine {load}",
        args.rounds, args.rate
    )?;
    let header: Vec<String> =
        args.agents.iter().map(|agents| format!(" {agents} agents |")).collect();
    writeln!(out, "| figure |{} growth |", header.concat())?;
    writeln!(out, "|---|{}---|", "---|".repeat(args.agents.len()))?;
    let mut lines = Vec::new();
    for (number, figure) in FIGURES.iter().enumerate() {
        let of = |rounds: &Vec<[f64; FIGURES.len()]>| -> Vec<f64> {
            rounds.iter().map(|round| round[number]).collect()
        };
        let cells: Vec<String> =
            columns.iter().map(|rounds| format!(" {} |", spread(&of(rounds)))).collect();
        let medians: Vec<(f64, f64)> = (args.agents.iter().zip(&columns))
            .map(|(&agents, rounds)| (agents.into(), quantile(&of(rounds), 0.5)))
            .collect();
        let growth = match medians[..] {
            [first, .., last] => growth(first, last),
            _ => "-".to_owned(),
        };
        writeln!(out, "| {figure} |{} {growth} |", cells.concat())?;
        lines.push((*figure, medians));
    }
    match &args.plot {
        Some(file) => plot(file, &lines).with_context(|| format!("cannot draw {}", file.display())),
        None => Ok(()),
    }
}

#[allow(clippy::cast_precision_loss)]
async fn one_round(args: &Args, agents: u32) -> Result<[f64; FIGURES.len()]> {
    let mut site = Site::start(&args.server, &[]).await?;
    let before = site.memory()?;
    let begun = Instant::now();
    let work = Work { think: Duration::from_millis(args.think), log: args.log };
    let fleet = Fleet::start(&site, agents, work)?;
    fleet.registered(PATIENCE).await?;
    let registrations = f64::from(agents) / begun.elapsed().as_secs_f64();

    // All have polled, and sent a heartbeat, so that both connections are there.
    fleet.restarting();
    fleet.back(PATIENCE).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (busy, begun) = (site.processor_seconds()?, Instant::now());
    tokio::time::sleep(Duration::from_secs(args.seconds.into())).await;
    let idle = (site.processor_seconds()? - busy) / begun.elapsed().as_secs_f64() * 100.0;
    let memory = (site.memory()? - before) / f64::from(agents);

    let site_shared = Arc::new(site);
    let fleet = Arc::new(fleet);
    let (posts, ended) = queue_runs(args, &site_shared, &fleet).await?;
    let pick_ups = fleet.pick_ups();
    site = Arc::into_inner(site_shared).expect("all runs are queued");
    let failures = fleet.failures();
    if !failures.is_empty() {
        eprintln!(
            "{} calls failed, the last one: {}",
            failures.len(),
            failures[failures.len() - 1]
        );
    }

    fleet.restarting();
    let begun = Instant::now();
    site.crash_and_restart()?;
    fleet.back(PATIENCE).await?;
    let back = begun.elapsed().as_secs_f64();
    let offline = site.agents("status").await?.iter().filter(|status| *status == "offline").count();
    let offline = offline as f64;
    let [pick_up, pick_up_p99] = [0.5, 0.99].map(|share| quantile(&pick_ups, share));
    for (name, value) in [
        (format!("queued to offered, {agents} agents, median, ms"), pick_up),
        (format!("queued to offered, {agents} agents, p99, ms"), pick_up_p99),
        (format!("restart until all of {agents} agents are back, s"), back),
        (format!("agents offline after that, of {agents}"), offline),
        (format!("{agents} idle agents: processor of the server, % of a core"), idle),
        (format!("an idle agent of {agents}: memory of the server, KiB"), memory),
    ] {
        note(&name, value)?;
    }
    Ok([
        registrations,
        idle,
        memory,
        quantile(&posts, 0.5),
        quantile(&posts, 0.99),
        pick_up,
        pick_up_p99,
        ended,
        back,
        offline,
    ])
}

/// Queues runs at the rate asked for, as long as a workspace without one is there. Gives how
/// long each request took, in milliseconds, and how many runs ended a second.
#[allow(clippy::cast_precision_loss)]
async fn queue_runs(args: &Args, site: &Arc<Site>, fleet: &Arc<Fleet>) -> Result<(Vec<f64>, f64)> {
    // A workspace has one run at a time.
    let mut idle = VecDeque::new();
    for number in 0..(args.rate * 4).max(10) {
        idle.push_back(site.workspace(&format!("workspace-{number}")).await?);
    }
    let mut busy: Vec<(String, String)> = Vec::new();
    let mut posting = JoinSet::new();
    let mut posts = Vec::new();
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / args.rate);
    for _ in 0..args.rate * args.seconds {
        tick.tick().await;
        while let Some(posted) = posting.try_join_next() {
            let (workspace, run, took): (String, String, f64) = posted??;
            posts.push(took);
            busy.push((workspace, run));
        }
        busy.retain(|(workspace, run)| {
            let has_ended = fleet.has_ended(run);
            if has_ended {
                idle.push_back(workspace.clone());
            }
            !has_ended
        });
        let Some(workspace) = idle.pop_front() else { continue };
        let (site, fleet) = (Arc::clone(site), Arc::clone(fleet));
        posting.spawn(async move {
            let begun = Instant::now();
            let run = site.run(&workspace).await?;
            let took = begun.elapsed();
            fleet.queued(&run, begun + took);
            anyhow::Ok((workspace, run, took.as_secs_f64() * 1000.0))
        });
    }
    let ended = fleet.ended() as f64 / begun.elapsed().as_secs_f64();
    while let Some(posted) = posting.join_next().await {
        posts.push(posted??.2);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok((posts, ended))
}
