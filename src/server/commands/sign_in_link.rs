//! `scalr-server sign-in-link`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::client::attribute;
use super::connection;
use crate::args::ServerFolder;
use cli::answer;

/// Which server the link is for.
#[derive(Debug, Args)]
pub struct SignInLink {
    /// The server's folder
    #[command(flatten)]
    folder: ServerFolder,
}

impl SignInLink {
    /// Prints a link.
    ///
    /// # Errors
    /// No server runs in the folder, or this user may not call it.
    pub(crate) async fn run(self) -> Result<()> {
        let client = connection::local(&self.folder.data, "")?;
        let made = client.post("/sign-in-links", json!({}), &[]).await?;
        answer!("Sign in: {}", attribute(&made, "link"));
        Ok(())
    }
}
