//! `scalr-server trial`: a server, a pool, a workspace and an agent on this machine, until
//! Ctrl-C.

mod agent;
mod child;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use serde_json::json;
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use url::Url;

use cli::{Failure, println};
use protocol::Secret;

use super::archive;
use super::client::{Client, ENVIRONMENT, attribute, id};
use super::connection;
use super::run::upload;
use super::workspace::DEFAULT_ENVIRONMENT;
use crate::args::image;
use agent::Needs;
use child::Child;

/// What the workspace runs; it needs no provider.
const CONFIGURATION: &str = include_str!("hello.tf");

/// The name of the pool, and of its agent.
const POOL: &str = "trial";

const WORKSPACE: &str = "hello";

/// How long the server may take to start.
const START: Duration = Duration::from_secs(30);

/// How long the agent may take to end what it runs, and the server after it.
const STOP_AGENT: Duration = Duration::from_secs(60);
const STOP_SERVER: Duration = Duration::from_secs(15);

/// The options of `trial`.
#[derive(Debug, Args)]
pub struct Trial {
    /// Address and port to listen on, of this machine alone
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8480")]
    listen: SocketAddr,

    /// The agent's program [default: scalr-agent beside this program or on PATH]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,

    /// Docker's socket [default: /run/docker.sock]
    #[arg(long, value_name = "SOCKET")]
    engine: Option<PathBuf>,

    /// The image of runs, with /bin/sh and terraform [default: the agent's]
    #[arg(long, value_name = "IMAGE", value_parser = image)]
    image: Option<String>,
}

impl Trial {
    /// Runs until it is stopped, and removes what it made.
    ///
    /// # Errors
    /// The server cannot be started, or ends by itself.
    pub(crate) async fn run(self) -> Result<()> {
        if !self.listen.ip().is_loopback() {
            return Err(Failure::Usage.because(format!(
                "cannot listen on {}: a trial is for this machine alone\n\
                 Give an address of the loopback interface, such as 127.0.0.1:8480",
                self.listen
            )));
        }
        let mut stop = Stop::catch()?;
        let folder = tempfile::Builder::new().prefix("scalr-trial-").tempdir();
        let folder = folder.context("cannot make a temporary folder")?;
        let mut children = Children::default();
        let ended = tokio::select! {
            ended = self.serve(folder.path(), &mut children) => ended,
            () = stop.asked() => Ok(()),
        };
        println!("Stopping. Press Ctrl-C again to stop at once.");
        tokio::select! {
            () = children.stop() => {}
            // The programs are killed.
            () = stop.asked() => {}
        }
        folder.close().context("cannot remove the trial's folder")?;
        println!("Removed the trial.");
        ended
    }

    /// Runs until the server ends, which it should not.
    async fn serve(&self, folder: &Path, children: &mut Children) -> Result<()> {
        let data = folder.join("server");
        let server = children.server.insert(self.start_server(folder, &data)?);
        let client = until_up(server, &data).await?;
        let (pool_id, token) = self.create_pool(&client).await?;
        create_workspace(&client, &pool_id, folder).await?;
        let made = client.post("/sign-in-links", json!({}), &[]).await?;
        let link = attribute(&made, "link");
        let url = Url::parse(&link).context("the server sent no link")?.origin();
        let url = url.ascii_serialization();
        println!("Open this link in a browser and press Sign in. It works once, for 15 minutes:");
        println!("  {link}\n");
        println!("Workspace: {WORKSPACE}, with a small configuration. Start a run on its page.");
        match Needs::find(self.agent.as_deref(), self.engine.as_deref()) {
            Ok(needs) => {
                children.agent = Some(start_agent(&needs, &url, &token, folder)?);
                println!("Agent: {} with {}", needs.program.display(), needs.engine.display());
            }
            Err(why) => println!("Agent: none, so runs wait. Cause: {why}"),
        }
        println!("Logs: {}/*.log", folder.display());
        println!("\nPress Ctrl-C to stop the trial and to remove everything that it has made.");
        children.until_server_ends().await
    }

    fn start_server(&self, folder: &Path, data: &Path) -> Result<Child> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(own);
        command.args(["serve", "--insecure-http", "--listen", &self.listen.to_string(), "--data"]);
        command.arg(data);
        Child::start("server", command, folder.join("server.log"))
    }

    /// A pool; its id and a token of it.
    async fn create_pool(&self, client: &Client) -> Result<(String, Secret)> {
        let attributes = json!({ "name": POOL, "image": self.image });
        let pool_id = id(&client.post("/agent-pools", attributes, &[]).await?);
        let path = format!("/agent-pools/{pool_id}/access-tokens");
        let token = client.post(&path, json!({}), &[]).await?;
        Ok((pool_id, Secret::new(attribute(&token, "token"))))
    }
}

/// The programs that run.
#[derive(Default)]
struct Children {
    server: Option<Child>,
    agent: Option<Child>,
}

impl Children {
    async fn until_server_ends(&mut self) -> Result<()> {
        let server = self.server.as_mut().context("there is no server")?;
        if let Some(agent) = &mut self.agent {
            tokio::select! {
                why = server.ended() => bail!(why),
                why = agent.ended() => println!("Runs wait from now on: {why}"),
            }
        }
        bail!(server.ended().await)
    }

    /// Stops the agent first: it hands the server what its runs have left.
    async fn stop(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.stop(STOP_AGENT).await;
        }
        if let Some(server) = self.server.take() {
            server.stop(STOP_SERVER).await;
        }
    }
}

/// The signals that stop the trial.
struct Stop([Signal; 3]);

impl Stop {
    fn catch() -> Result<Self> {
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self([
            catch(SignalKind::interrupt())?,
            catch(SignalKind::terminate())?,
            catch(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// A client for the server once it is up.
async fn until_up(server: &mut Child, data: &Path) -> Result<Client> {
    let begun = Instant::now();
    loop {
        if let Ok(client) = connection::local(data, "") {
            return Ok(client);
        }
        if let Some(why) = server.has_ended() {
            return Err(anyhow!(why));
        }
        if begun.elapsed() > START {
            bail!("the server does not answer after {} s", START.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn create_workspace(client: &Client, pool_id: &str, folder: &Path) -> Result<()> {
    let environment = id(&client.find(ENVIRONMENT, DEFAULT_ENVIRONMENT, &[]).await?);
    let related = [("environment", environment.as_str()), ("agent-pool", pool_id)];
    let workspace = client.post("/workspaces", json!({ "name": WORKSPACE }), &related).await?;
    let configuration = folder.join("configuration");
    fs::create_dir(&configuration)
        .and_then(|()| fs::write(configuration.join("main.tf"), CONFIGURATION))
        .context("cannot write the configuration")?;
    let archive = archive::open(&configuration)?;
    upload(client, &id(&workspace), &configuration, archive).await.map(drop)
}

fn start_agent(needs: &Needs, url: &str, token: &Secret, folder: &Path) -> Result<Child> {
    let settings = folder.join("agent.toml");
    fs::write(&settings, "").context("cannot write the agent's settings")?;
    Child::start("agent", needs.command(url, token, folder), folder.join("agent.log"))
}
