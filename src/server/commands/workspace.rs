//! `scalr-server workspace`.

use std::collections::HashMap;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Client, ENVIRONMENT, POOL, WORKSPACE, attribute, id, related};
use super::connection::Connection;
use super::table;
use crate::args::image;
use cli::answer;

/// The environment that a new server has.
pub(super) const DEFAULT_ENVIRONMENT: &str = "default";

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum Workspace {
    /// Create a workspace
    #[command(after_help = "Example:
  scalr-server workspace create network --pool prod --terraform-version 1.9.8")]
    Create {
        /// The workspace's name
        #[arg(value_name = "NAME")]
        name: String,

        /// The pool whose agents take its runs, by name or id [default: the
        /// environment's or the account's default pool]
        #[arg(long, value_name = "POOL")]
        pool: Option<String>,

        /// Its environment, by name or id
        #[arg(long, value_name = "ENVIRONMENT", default_value = DEFAULT_ENVIRONMENT)]
        environment: String,

        /// The Terraform version of its runs, for example 1.9.8 [default: the image's]
        #[arg(long, value_name = "VERSION")]
        terraform_version: Option<String>,

        /// The image of its runs [default: the pool's or the agent's]
        #[arg(long, value_name = "IMAGE", value_parser = image)]
        image: Option<String>,

        /// The folder of the configuration in which Terraform starts
        #[arg(long, value_name = "DIR")]
        working_directory: Option<String>,

        /// Apply plans without asking
        #[arg(long)]
        auto_apply: bool,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },

    /// List the workspaces
    List {
        /// Only those of this pool, by name or id
        #[arg(long, value_name = "POOL")]
        pool: Option<String>,

        /// Only those of this environment, by name or id
        #[arg(long, value_name = "ENVIRONMENT")]
        environment: Option<String>,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },
}

impl Workspace {
    /// Does it.
    ///
    /// # Errors
    /// The server refuses it or can't be reached.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Create {
                name,
                pool,
                environment,
                terraform_version,
                image,
                working_directory,
                auto_apply,
                connection,
            } => {
                let client = connection.client()?;
                let attributes = json!({
                    "name": name,
                    "terraform-version": terraform_version,
                    "image": image,
                    "working-directory": working_directory,
                    "auto-apply": auto_apply,
                });
                create(&client, attributes, pool.as_deref(), &environment).await?;
                answer!("\nNext, run the configuration in a folder:");
                let words = ["run", "start", "--workspace", &name, "."];
                answer!("  {}", connection.command(&words));
                Ok(())
            }
            Self::List { pool, environment, connection } => {
                list(&connection.client()?, pool.as_deref(), environment.as_deref()).await
            }
        }
    }
}

/// Creates a workspace and says so.
pub(super) async fn create(
    client: &Client,
    attributes: Value,
    pool: Option<&str>,
    environment: &str,
) -> Result<Value> {
    let environment = id(&client.find(ENVIRONMENT, environment, &[]).await?);
    let pool = match pool {
        Some(pool) => Some(id(&client.find(POOL, pool, &[]).await?)),
        None => None,
    };
    let mut related = vec![("environment", environment.as_str())];
    related.extend(pool.as_deref().map(|pool| ("agent-pool", pool)));
    let workspace = client.post("/workspaces", attributes, &related).await?;
    answer!("Created the workspace {} ({}).", attribute(&workspace, "name"), id(&workspace));
    Ok(workspace)
}

/// The workspace that `named` is the name or the id of.
///
/// # Errors
/// There is none, or environments have several of this name.
pub(super) async fn find(client: &Client, named: &str, environment: Option<&str>) -> Result<Value> {
    let environment = environment_id(client, environment).await?;
    client.find(WORKSPACE, named, &filters(&[("environment", &environment)])).await
}

async fn list(client: &Client, pool: Option<&str>, environment: Option<&str>) -> Result<()> {
    let pool = match pool {
        Some(pool) => Some(id(&client.find(POOL, pool, &[]).await?)),
        None => None,
    };
    let environment = environment_id(client, environment).await?;
    let filters = filters(&[("agent-pool", &pool), ("environment", &environment)]);
    let workspaces = client.list("/workspaces", &filters).await?;
    let names: HashMap<String, String> =
        [client.list("/agent-pools", &[]).await?, client.list("/environments", &[]).await?]
            .concat()
            .iter()
            .map(|one| (id(one), attribute(one, "name")))
            .collect();
    let name = |workspace: &Value, of: &str| {
        let id = related(workspace, of);
        id.and_then(|id| names.get(&id).cloned()).unwrap_or_default()
    };
    let row = |workspace: &Value| {
        [
            id(workspace),
            name(workspace, "environment"),
            name(workspace, "agent-pool"),
            related(workspace, "current-run").unwrap_or_default(),
            attribute(workspace, "name"),
        ]
    };
    let rows: Vec<_> = workspaces.iter().map(row).collect();
    table::print(["ID", "ENVIRONMENT", "POOL", "RUN UNDER WAY", "NAME"], &rows);
    Ok(())
}

async fn environment_id(client: &Client, named: Option<&str>) -> Result<Option<String>> {
    Ok(match named {
        Some(named) => Some(id(&client.find(ENVIRONMENT, named, &[]).await?)),
        None => None,
    })
}

fn filters<'a>(given: &[(&'a str, &'a Option<String>)]) -> Vec<(&'a str, &'a str)> {
    given.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))).collect()
}
