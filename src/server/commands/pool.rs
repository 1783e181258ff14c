//! `scalr-server pool`: agent pools and their tokens.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::{Value, json};

use cli::whole_file::{WholeFile, folder_of};
use cli::{Failure, answer};

use super::client::{Client, POOL, attribute, id};
use super::connection::Connection;
use super::table;
use crate::args::{expiry, image};
use crate::install_line::{Server, TOKEN_ON_HOST};

/// What to do with agent pools.
#[derive(Debug, Subcommand)]
pub enum Pool {
    /// Create an agent pool
    #[command(after_help = "Examples:
  scalr-server pool create prod --image hashicorp/terraform:1.9
  scalr-server pool create prod --token-output prod.token")]
    Create {
        /// The pool's name
        #[arg(value_name = "NAME")]
        name: String,

        /// The image of runs whose workspace has none [default: the agent's]
        ///
        /// Anything with /bin/sh and terraform. {version} in it stands for the
        /// workspace's Terraform version.
        #[arg(long, value_name = "IMAGE", value_parser = image)]
        image: Option<String>,

        /// How many runs it executes at once, at most [default: as many as its agents
        /// have slots]
        #[arg(long, value_name = "N")]
        max_concurrency: Option<u32>,

        /// Also create a token, write it into this new file (mode 0600), and print
        /// the lines that install agents
        #[arg(long, value_name = "FILE")]
        token_output: Option<PathBuf>,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },

    /// List the agent pools
    List {
        /// Which server
        #[command(flatten)]
        connection: Connection,
    },

    /// Show a pool and its agents
    Show {
        /// The pool's name or id
        #[arg(value_name = "POOL")]
        pool: String,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },

    /// Delete a pool that no workspace uses
    Delete {
        /// The pool's name or id
        #[arg(value_name = "POOL")]
        pool: String,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },

    /// Create a token and print the lines that install agents with it
    #[command(after_help = "Examples:
  scalr-server pool token prod --output prod.token
  scalr-server pool token prod --print --expires-in 90d")]
    #[command(group = clap::ArgGroup::new("where").required(true))]
    Token {
        /// The pool's name or id
        #[arg(value_name = "POOL")]
        pool: String,

        /// Write the token into this new file (mode 0600)
        #[arg(long, value_name = "FILE", group = "where")]
        output: Option<PathBuf>,

        /// Print the token on standard output instead
        #[arg(long, group = "where")]
        print: bool,

        /// The token's name, for people
        #[arg(long, value_name = "NAME")]
        name: Option<String>,

        /// When it stops working, for example 90d, 12h or 30m [default: never]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires_in: Option<Duration>,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },
}

impl Pool {
    /// Does it.
    ///
    /// # Errors
    /// The server refuses it or can't be reached.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Create { name, image, max_concurrency, token_output, connection } => {
                let attributes =
                    json!({ "name": name, "image": image, "max-concurrency": max_concurrency });
                create(&connection, &name, attributes, token_output.as_deref()).await
            }
            Self::List { connection } => list(&connection.client()?).await,
            Self::Show { pool, connection } => show(&connection.client()?, &pool).await,
            Self::Delete { pool, connection } => {
                let client = connection.client()?;
                let pool = client.find(POOL, &pool, &[]).await?;
                client.delete(&format!("/agent-pools/{}", id(&pool))).await?;
                answer!("Deleted the pool {} ({}).", attribute(&pool, "name"), id(&pool));
                Ok(())
            }
            Self::Token { pool, output, print: _, name, expires_in, connection } => {
                let client = connection.client()?;
                let pool = client.find(POOL, &pool, &[]).await?;
                let new = NewToken { name, expires_in };
                token(&client, &pool, &new, output.as_deref()).await
            }
        }
    }
}

async fn create(
    connection: &Connection,
    name: &str,
    attributes: Value,
    token_output: Option<&Path>,
) -> Result<()> {
    let client = connection.client()?;
    if let Some(file) = token_output {
        require_new(file)?;
    }
    let pool = client.post("/agent-pools", attributes, &[]).await?;
    answer!("Created the pool {name} ({}).", id(&pool));
    if let Some(file) = token_output {
        return token(&client, &pool, &NewToken::default(), Some(file)).await;
    }
    answer!("\nNext, create a token and see how to install its agents:");
    let file = format!("{name}.token");
    answer!("  {}", connection.command(&["pool", "token", name, "--output", &file]));
    Ok(())
}

async fn list(client: &Client) -> Result<()> {
    let pools = client.list("/agent-pools", &[]).await?;
    let mut rows = Vec::new();
    for pool in &pools {
        let many = |name: &str| {
            let data = pool["relationships"][name]["data"].as_array();
            data.map_or(0, Vec::len).to_string()
        };
        rows.push([
            id(pool),
            many("agents"),
            attribute(pool, "free-slots"),
            attribute(pool, "queue-depth"),
            many("workspaces"),
            attribute(pool, "name"),
        ]);
    }
    table::print(["ID", "AGENTS", "FREE SLOTS", "WAITING RUNS", "WORKSPACES", "NAME"], &rows);
    Ok(())
}

async fn show(client: &Client, pool: &str) -> Result<()> {
    let pool = client.find(POOL, pool, &[]).await?;
    table::print_pairs(&[
        ("Name", attribute(&pool, "name")),
        ("Id", id(&pool)),
        ("Image", attribute(&pool, "image")),
        ("Runs at once, at most", attribute(&pool, "max-concurrency")),
        ("Created", attribute(&pool, "created-at")),
        ("Waiting runs", attribute(&pool, "queue-depth")),
        ("Free slots", attribute(&pool, "free-slots")),
    ]);
    let agents = client.list("/agents", &[("agent-pool", &id(&pool))]).await?;
    if agents.is_empty() {
        answer!("\nThe pool has no agents.");
        return Ok(());
    }
    answer!("");
    let row = |agent: &Value| {
        [
            attribute(agent, "status"),
            attribute(agent, "version"),
            attribute(agent, "last-seen-at"),
            attribute(agent, "name"),
        ]
    };
    let rows: Vec<_> = agents.iter().map(row).collect();
    table::print(["STATUS", "VERSION", "LAST SEEN", "AGENT"], &rows);
    Ok(())
}

#[derive(Debug, Default)]
struct NewToken {
    name: Option<String>,
    expires_in: Option<Duration>,
}

/// Creates a token, writes it into `file` or prints it, and prints what to do on a host.
async fn token(client: &Client, pool: &Value, new: &NewToken, file: Option<&Path>) -> Result<()> {
    if let Some(file) = file {
        require_new(file)?;
    }
    let server = client.get("/server").await?;
    let attributes = json!({
        "name": new.name,
        "expires-in": new.expires_in.map(|time| time.as_secs() / 60),
    });
    let path = format!("/agent-pools/{}/access-tokens", id(pool));
    let token = client.post(&path, attributes, &[]).await?;
    let secret = token["attributes"]["token"].as_str().context("the server sent no token")?;
    let (token_id, name) = (id(&token), attribute(pool, "name"));
    match file {
        Some(file) => {
            if let Err(error) = WholeFile::at(file).keep_existing().write(format!("{secret}\n")) {
                // Nobody has it.
                client.delete(&format!("/access-tokens/{token_id}")).await?;
                return Err(error);
            }
            answer!("The token {token_id} of the pool {name} is in {}.", file.display());
        }
        None => {
            answer!("The token {token_id} of the pool {name}, which is not shown again:");
            answer!("{secret}");
        }
    }
    print_install_lines(&server);
    Ok(())
}

fn print_install_lines(server: &Value) {
    answer!("\nOn each host, put the token into a file (paste it, Enter, Ctrl-D):");
    answer!("  sudo sh -c 'umask 077 && cat >{TOKEN_ON_HOST}'");
    answer!("\nThen install the agent:");
    let text = |name: &str| server["attributes"][name].as_str().map(str::to_owned);
    let pins = Server {
        url: attribute(server, "url"),
        ca_sha256: text("ca-sha256"),
        key_sha256: text("packages-key-sha256"),
    };
    answer!("  {}", pins.install_line(&[]));
    if server["attributes"]["packages-key-sha256"].is_null() {
        answer!(
            "\nThe server serves no packages yet, so this line fails: start it with --packages \
             (SCALR_SERVER_PACKAGES)."
        );
    }
}

/// Refuses a file that there is, or that can't be written, before there is a token for it.
fn require_new(file: &Path) -> Result<()> {
    if file.symlink_metadata().is_ok() {
        let text = format!("{} exists already: name another file, or remove it", file.display());
        return Err(Failure::Usage.because(text));
    }
    if !folder_of(file).is_dir() {
        bail!(Failure::Usage.because(format!(
            "cannot write {}: there is no folder {}",
            file.display(),
            folder_of(file).display()
        )));
    }
    Ok(())
}
