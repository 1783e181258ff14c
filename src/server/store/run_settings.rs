//! What the plans of runs were started with, until the runs end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Connection;
use protocol::{EnvironmentHook, Hook, Platform, RanImage, Variable};

/// What of its workspace and its pool a plan was started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunSettings {
    /// What runs the configuration; none: what the image has.
    #[serde(default)]
    pub platform: Option<Platform>,
    /// The Terraform version that was asked for; none: the image's.
    pub terraform_version: Option<String>,
    /// Whether the image could have another one.
    pub allow_other_terraform_version: bool,
    /// The workspace's image, else the pool's; none: the agent's.
    pub image: Option<String>,
    /// Where in the configuration Terraform was started; none: at its top.
    pub working_directory: Option<String>,
    /// The workspace's hooks.
    pub hooks: BTreeMap<Hook, String>,
    /// The environment's hooks.
    #[serde(default)]
    pub environment_hooks: Vec<EnvironmentHook>,
    /// The workspace's variables.
    pub variables: Vec<Variable>,
    /// The image that the plan ran, once it has finished; none: its agent is too old to say.
    pub ran_image: Option<RanImage>,
}

/// Writes the settings of a run, in the place of those of an earlier attempt at its plan.
pub(crate) async fn upsert(
    db: &mut Connection,
    run_id: &str,
    settings: &RunSettings,
) -> sqlx::Result<()> {
    let json = serde_json::to_string(settings).expect("settings have a form in JSON");
    sqlx::query(
        "INSERT INTO run_settings (run_id, settings) VALUES ($1, $2)
         ON CONFLICT (run_id) DO UPDATE SET settings = excluded.settings",
    )
    .bind(run_id)
    .bind(json)
    .execute(db)
    .await
    .map(drop)
}

/// The settings of a run.
pub(crate) async fn find(db: &mut Connection, run_id: &str) -> sqlx::Result<Option<RunSettings>> {
    let json: Option<String> =
        sqlx::query_scalar("SELECT settings FROM run_settings WHERE run_id = $1")
            .bind(run_id)
            .fetch_optional(db)
            .await?;
    let settings = json.map(|json| serde_json::from_str(&json)).transpose();
    settings.map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Deletes the settings of a run.
pub(crate) async fn delete(db: &mut Connection, run_id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM run_settings WHERE run_id = $1")
        .bind(run_id)
        .execute(db)
        .await
        .map(drop)
}
