//! `scalr-server run`.

use std::io::{BufRead as _, IsTerminal as _, Write as _, stderr, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use cli::{Failure, answer, eprintln};

use super::archive;
use super::client::{Client, POOL, WORKSPACE, attribute, id, related};
use super::connection::Connection;
use super::follow::{follow, is_at_rest};
use super::table;
use super::workspace::{self, DEFAULT_ENVIRONMENT};

/// What to do with runs.
#[derive(Debug, Subcommand)]
pub enum Run {
    /// Start a run and follow its log
    ///
    /// When its plan is done, it asks whether to apply it, if it runs on a terminal.
    /// Ctrl-C ends this command and not the run.
    #[command(after_help = "Examples:
  scalr-server run start --workspace network ./network
  scalr-server run start --workspace network --apply network.tar.gz
  scalr-server run start --workspace network --destroy")]
    Start(Box<Start>),

    /// Show a run
    Show(Chosen),

    /// Apply a run's plan and follow the log
    Apply(Chosen),

    /// Discard a run's plan
    Discard(Chosen),

    /// Cancel a run
    Cancel(Chosen),

    /// Print a run's log, and follow it while the run is under way
    Log(Chosen),
}

/// The options of `run start`.
#[derive(Debug, Args)]
pub struct Start {
    /// The workspace's name or id
    #[arg(long, value_name = "WORKSPACE")]
    workspace: String,

    /// Create the workspace in this pool if it does not exist yet
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,

    /// The workspace's environment [default: where the workspace is; `default` for
    /// a new one]
    #[arg(long, value_name = "ENVIRONMENT")]
    environment: Option<String>,

    /// A folder or a tar.gz archive with the configuration [default: the
    /// workspace's latest]
    #[arg(value_name = "CONFIGURATION")]
    configuration: Option<PathBuf>,

    /// Apply the plan without asking
    #[arg(long)]
    apply: bool,

    /// Destroy what the workspace has made
    #[arg(long)]
    destroy: bool,

    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,

    /// Start the run and do not follow it
    #[arg(long, conflicts_with = "apply")]
    detach: bool,

    /// Which server
    #[command(flatten)]
    connection: Connection,
}

/// Which run.
#[derive(Debug, Args)]
pub struct Chosen {
    /// The run's id, run-…
    #[arg(value_name = "RUN")]
    run: String,

    /// Which server
    #[command(flatten)]
    connection: Connection,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// The server refuses it or can't be reached; the run that is followed fails.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Start(options) => start(&options).await,
            Self::Show(chosen) => show(&chosen).await,
            Self::Apply(Chosen { run, connection }) => {
                let client = connection.client()?;
                act(&client, &run, "apply").await?;
                Watched { client: &client, connection: &connection, run: &run }.apply().await
            }
            Self::Discard(chosen) => chosen.act("discard").await,
            Self::Cancel(chosen) => chosen.act("cancel").await,
            Self::Log(Chosen { run, connection }) => {
                let client = connection.client()?;
                let watched = Watched { client: &client, connection: &connection, run: &run };
                let run = watched.until_at_rest(false).await?;
                watched.say_end(&run)
            }
        }
    }
}

impl Chosen {
    /// An action that is not followed.
    async fn act(&self, action: &str) -> Result<()> {
        let run = act(&self.connection.client()?, &self.run, action).await?;
        answer!("{}: {}", id(&run), status(&run));
        Ok(())
    }
}

async fn start(options: &Start) -> Result<()> {
    let connection = &options.connection;
    let client = connection.client()?;
    let configuration = match &options.configuration {
        Some(path) => Some((path, archive::open(path)?)),
        None => None,
    };
    let workspace = the_workspace(&client, options).await?;
    let workspace_id = id(&workspace);
    let mut related = vec![("workspace", workspace_id.as_str())];
    let version = match configuration {
        Some((path, archive)) => Some(upload(&client, &workspace_id, path, archive).await?),
        None => {
            require_configuration(&client, &workspace).await?;
            None
        }
    };
    related.extend(version.as_deref().map(|version| ("configuration-version", version)));
    let attributes = json!({ "message": options.message, "is-destroy": options.destroy });
    let run = id(&client.post("/runs", attributes, &related).await?);
    let watched = Watched { client: &client, connection, run: &run };
    if options.detach {
        answer!("Started the run {run}. To follow it:");
        answer!("  {}", watched.command("log"));
        return Ok(());
    }
    eprintln!("Started the run {run}.");
    let found = watched.until_at_rest(false).await?;
    if status(&found) != "planned" {
        return watched.say_end(&found);
    }
    let applies = options.apply || (is_interactive() && asks_to_apply()?);
    if !applies {
        return watched.say_end(&found);
    }
    act(&client, &run, "apply").await?;
    watched.apply().await
}

/// The workspace of a new run, which `--pool` permits to create.
async fn the_workspace(client: &Client, options: &Start) -> Result<Value> {
    let Start { workspace: named, environment, .. } = options;
    let Some(pool) = &options.pool else {
        return workspace::find(client, named, environment.as_deref()).await;
    };
    let environment = environment.as_deref().unwrap_or(DEFAULT_ENVIRONMENT);
    let environment_id = id(&client.find(super::client::ENVIRONMENT, environment, &[]).await?);
    let filters = [("environment", environment_id.as_str())];
    let Some(found) = client.find_if_there(WORKSPACE, named, &filters).await? else {
        return workspace::create(client, json!({ "name": named }), Some(pool), environment).await;
    };
    let pool = client.find(POOL, pool, &[]).await?;
    if related(&found, "agent-pool") != Some(id(&pool)) {
        return Err(Failure::Usage.because(format!(
            "the workspace {named} exists already, and is not in the pool {}\n\
             Leave out --pool to run it where it is",
            attribute(&pool, "name")
        )));
    }
    Ok(found)
}

/// Refuses a run of a workspace that nothing was uploaded to.
async fn require_configuration(client: &Client, workspace: &Value) -> Result<()> {
    let versions = client.list("/configuration-versions", &[("workspace", &id(workspace))]).await?;
    if versions.iter().any(|version| attribute(version, "status") == "uploaded") {
        return Ok(());
    }
    Err(Failure::Usage.because(format!(
        "the workspace {} has no configuration yet
         Name a folder with one at the end of the command",
        attribute(workspace, "name")
    )))
}

/// Uploads a configuration; gives the id of its version.
pub(super) async fn upload(
    client: &Client,
    workspace: &str,
    path: &Path,
    archive: std::fs::File,
) -> Result<String> {
    let related = [("workspace", workspace)];
    let created = client.post("/configuration-versions", json!({}), &related).await?;
    let link = created["links"]["upload"].as_str();
    let link = link.context("the server sent no upload link")?;
    client
        .upload(link, archive)
        .await
        .with_context(|| format!("cannot upload the configuration {}", path.display()))?;
    Ok(id(&created))
}

async fn show(chosen: &Chosen) -> Result<()> {
    let client = chosen.connection.client()?;
    let run = client.get(&format!("/runs/{}", chosen.run)).await?;
    let name = |resource: Value| attribute(&resource, "name");
    let workspace = related(&run, "workspace").unwrap_or_default();
    let workspace = name(client.get(&format!("/workspaces/{workspace}")).await?);
    let pool = match related(&run, "agent-pool") {
        Some(pool) => name(client.get(&format!("/agent-pools/{pool}")).await?),
        None => String::new(),
    };
    table::print_pairs(&[
        ("Run", id(&run)),
        ("Status", status(&run)),
        ("Reason", attribute(&run, "pending-reason")),
        ("Error", attribute(&run, "error-message")),
        ("Workspace", workspace),
        ("Pool", pool),
        ("Message", attribute(&run, "message")),
        ("Destroys", attribute(&run, "is-destroy")),
        ("Created", attribute(&run, "created-at")),
        ("Updated", attribute(&run, "updated-at")),
    ]);
    let watched = Watched { client: &client, connection: &chosen.connection, run: &chosen.run };
    watched.print_next(&run);
    Ok(())
}

async fn act(client: &Client, run: &str, action: &str) -> Result<Value> {
    client.post(&format!("/runs/{run}/actions/{action}"), json!({}), &[]).await
}

/// A run that is followed.
struct Watched<'a> {
    client: &'a Client,
    connection: &'a Connection,
    run: &'a str,
}

impl Watched<'_> {
    /// Follows an apply to its end.
    async fn apply(&self) -> Result<()> {
        let run = self.until_at_rest(true).await?;
        self.say_end(&run)
    }

    async fn until_at_rest(&self, skip_plan: bool) -> Result<Value> {
        tokio::select! {
            run = follow(self.client, self.connection, self.run, skip_plan) => run,
            _ = tokio::signal::ctrl_c() => Err(Failure::Failed.because(format!(
                "interrupted; the run {} goes on\nTo follow it, or to cancel it:\n  {}\n  {}",
                self.run,
                self.command("log"),
                self.command("cancel"),
            ))),
        }
    }

    /// Says how the run ended, or what it waits for.
    fn say_end(&self, run: &Value) -> Result<()> {
        match attribute(run, "status").as_str() {
            "errored" => {
                let why = attribute(run, "error-message");
                Err(Failure::Failed.because(format!("the run {} failed: {why}", self.run)))
            }
            "canceled" => {
                Err(Failure::Failed.because(format!("the run {} was canceled", self.run)))
            }
            _ => {
                self.print_next(run);
                Ok(())
            }
        }
    }

    fn print_next(&self, run: &Value) {
        let status = attribute(run, "status");
        if ["planned", "planned_and_saved"].contains(&status.as_str()) {
            eprintln!("\nThe plan waits. To apply it, or to discard it:");
            eprintln!("  {}", self.command("apply"));
            eprintln!("  {}", self.command("discard"));
        } else if !is_at_rest(&status) {
            eprintln!("\nTo follow it, or to cancel it:");
            eprintln!("  {}", self.command("log"));
            eprintln!("  {}", self.command("cancel"));
        }
    }

    fn command(&self, verb: &str) -> String {
        self.connection.command(&["run", verb, self.run])
    }
}

/// A run's status as people read it.
fn status(run: &Value) -> String {
    attribute(run, "status").replace('_', " ")
}

fn is_interactive() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}

fn asks_to_apply() -> Result<bool> {
    eprint!("\nApply this plan? Only `yes` applies it: ");
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim() == "yes")
}
