//! Follows a run: its status on standard error, its log on standard output.

use std::io::{Write as _, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::time::sleep;

use super::client::{Client, attribute, id, related};
use super::connection::Connection;
use cli::eprintln;

/// How often we ask for what is new.
const INTERVAL: Duration = Duration::from_millis(500);

/// After how long a run that waits is worth a hint.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints what the run does until it has ended or waits for a yes; gives the run.
/// `skip_plan` is for those who have seen the plan already.
///
/// # Errors
/// The server can't be reached.
pub(super) async fn follow(
    client: &Client,
    connection: &Connection,
    run: &str,
    skip_plan: bool,
) -> Result<Value> {
    let mut plan = Output::default();
    let mut apply = Output::default();
    let mut shown = Shown::new();
    loop {
        // Before the output: what comes after the end of a run is in it then.
        let found = client.get(&format!("/runs/{run}")).await?;
        shown.status(client, connection, &found).await?;
        let path = |kind, phase| -> Result<String> {
            let id = related(&found, phase).context("the server sent a run without its phases")?;
            Ok(format!("/{kind}/{id}/output"))
        };
        if !skip_plan {
            plan.print_new(client, &path("plans", "plan")?).await?;
        }
        apply.print_new(client, &path("applies", "apply")?).await?;
        if is_at_rest(&attribute(&found, "status")) {
            return Ok(found);
        }
        sleep(INTERVAL).await;
    }
}

/// Whether nothing happens to a run of this status by itself.
pub(super) fn is_at_rest(status: &str) -> bool {
    [
        "planned",
        "planned_and_saved",
        "applied",
        "planned_and_finished",
        "errored",
        "discarded",
        "canceled",
    ]
    .contains(&status)
}

/// The log of one phase, as far as it is printed.
#[derive(Default)]
struct Output {
    offset: usize,
}

impl Output {
    async fn print_new(&mut self, client: &Client, path: &str) -> Result<()> {
        let new = client.output(path, self.offset).await?;
        self.offset += new.len();
        let mut output = stdout().lock();
        output.write_all(&new).and_then(|()| output.flush()).context("cannot print the log")
    }
}

/// The status that was said last.
struct Shown {
    status: String,
    since: Instant,
    has_hinted: bool,
}

impl Shown {
    fn new() -> Self {
        Self { status: String::new(), since: Instant::now(), has_hinted: false }
    }

    async fn status(
        &mut self,
        client: &Client,
        connection: &Connection,
        run: &Value,
    ) -> Result<()> {
        let status = attribute(run, "status");
        if status != self.status {
            let reason = attribute(run, "pending-reason");
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            eprintln!("{}: {}{reason}", id(run), status.replace('_', " "));
            (self.status, self.since) = (status, Instant::now());
        } else if status.ends_with("_queued") && self.since.elapsed() > PATIENCE {
            self.hint(client, connection, run).await?;
        }
        Ok(())
    }

    /// Says once what a run waits for.
    async fn hint(&mut self, client: &Client, connection: &Connection, run: &Value) -> Result<()> {
        let pool = related(run, "agent-pool");
        let Some(pool) = pool.filter(|_| !self.has_hinted) else { return Ok(()) };
        self.has_hinted = true;
        let name = attribute(&client.get(&format!("/agent-pools/{pool}")).await?, "name");
        let agents = client.list("/agents", &[("agent-pool", &pool)]).await?;
        if agents.iter().any(|agent| attribute(agent, "status") != "offline") {
            eprintln!("It waits for a free slot in the pool {name}.");
        } else {
            eprintln!(
                "It waits for an agent: none of the pool {name} is online. How to install one:"
            );
            let file = format!("{name}.token");
            let words = ["pool", "token", name.as_str(), "--output", &file];
            eprintln!("  {}", connection.command(&words));
        }
        Ok(())
    }
}
