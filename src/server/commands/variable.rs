//! `scalr-server variable`.

use std::io::{IsTerminal as _, Read as _, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use serde_json::json;

use cli::{Failure, answer, untrusted_file};
use protocol::Secret;

use super::client::{attribute, id};
use super::connection::Connection;
use super::workspace;

/// What to do with workspaces' variables.
#[derive(Debug, Subcommand)]
pub enum Variable {
    /// Set a variable of a workspace
    ///
    /// Without VALUE it is read from standard input, or from --value-file. Every user
    /// of the host can read a command line: a sensitive value is not taken from one.
    #[command(after_help = "Examples:
  scalr-server variable set --workspace network region eu-west-1
  scalr-server variable set --workspace network --sensitive password <password.txt
  scalr-server variable set --workspace network --category shell TF_LOG debug")]
    Set {
        /// The workspace's name or id
        #[arg(long, value_name = "WORKSPACE")]
        workspace: String,

        /// The workspace's environment, where several have one of this name
        #[arg(long, value_name = "ENVIRONMENT")]
        environment: Option<String>,

        /// The variable's name
        #[arg(value_name = "KEY")]
        key: String,

        /// Its value
        #[arg(value_name = "VALUE")]
        value: Option<String>,

        /// Read the value from this file; one newline at its end is left out
        #[arg(long, value_name = "FILE", conflicts_with = "value")]
        value_file: Option<PathBuf>,

        /// Terraform's, or of the environment of runs
        #[arg(long, value_enum, default_value_t = Category::Terraform)]
        category: Category,

        /// The value is an expression in HCL: a list, a number, an object
        #[arg(long)]
        hcl: bool,

        /// Never show the value again
        #[arg(long)]
        sensitive: bool,

        /// Which server
        #[command(flatten)]
        connection: Connection,
    },
}

/// What kind of variable it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Category {
    /// A variable of the configuration
    Terraform,
    /// A variable of the run's environment
    Shell,
}

impl Variable {
    /// Does it.
    ///
    /// # Errors
    /// The value can't be read; the server refuses it or can't be reached.
    pub(crate) async fn run(self) -> Result<()> {
        let Self::Set {
            workspace,
            environment,
            key,
            value,
            value_file,
            category,
            hcl,
            sensitive,
            connection,
        } = self;
        if sensitive && value.is_some() {
            return Err(Failure::Usage.because(
                "a sensitive value on a command line is seen by every user of this host\n\
                 Give it on standard input, or with --value-file FILE",
            ));
        }
        let client = connection.client()?;
        let found = workspace::find(&client, &workspace, environment.as_deref()).await?;
        let (workspace_id, workspace) = (id(&found), attribute(&found, "name"));
        let value = match value {
            Some(value) => Secret::new(value),
            None => read(value_file.as_deref())?,
        };
        let category = match category {
            Category::Terraform => "terraform",
            Category::Shell => "shell",
        };
        let mut attributes = json!({
            "value": value.expose(),
            "hcl": hcl,
            "sensitive": sensitive,
        });
        let known = client.list("/vars", &[("workspace", &workspace_id), ("key", &key)]).await?;
        let known = known.iter().find(|variable| attribute(variable, "category") == category);
        match known {
            Some(variable) => {
                // A value that was sensitive stays so.
                let was_sensitive = variable["attributes"]["sensitive"] == true;
                attributes["sensitive"] = (sensitive || was_sensitive).into();
                client.patch(&format!("/vars/{}", id(variable)), attributes).await?;
            }
            None => {
                attributes["key"] = key.clone().into();
                attributes["category"] = category.into();
                client.post("/vars", attributes, &[("workspace", &workspace_id)]).await?;
            }
        }
        let done = if known.is_some() { "Changed" } else { "Set" };
        answer!("{done} the {category} variable {key} of the workspace {workspace}.");
        Ok(())
    }
}

fn read(file: Option<&Path>) -> Result<Secret> {
    let mut value = match file {
        Some(file) => untrusted_file::read_text(file)
            .with_context(|| format!("cannot read the value in {}", file.display()))?,
        None if stdin().is_terminal() => {
            return Err(Failure::Usage.because(
                "there is no value: give VALUE, --value-file FILE, or the value on standard input",
            ));
        }
        None => {
            let mut value = String::new();
            stdin().read_to_string(&mut value).context("cannot read the value")?;
            value
        }
    };
    if value.ends_with('\n') {
        value.pop();
    }
    Ok(Secret::new(value))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_value_is_read_from_a_regular_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe) = (folder.path().join("file"), folder.path().join("pipe"));
        std::fs::write(&file, "value\n").unwrap();
        assert_eq!(read(Some(&file)).unwrap().expose(), "value");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for odd in [&*pipe, Path::new("/dev/zero")] {
            let error = format!("{:#}", read(Some(odd)).unwrap_err());
            assert!(error.contains("not a regular file"), "{error}");
        }
    }
}
