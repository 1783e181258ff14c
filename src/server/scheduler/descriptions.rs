//! What the agent of a claimed task has to do. An apply runs what was planned: its plan's
//! settings are kept when that is claimed, and the workspace may be changed meanwhile.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{Change, Error, Terms};
use crate::inherited_variables::{Inherited, resolve};
use crate::store::run::{self, Run};
use crate::store::run_settings::{self, RunSettings};
use crate::store::task::{Phase, Task};
use crate::store::workspace::Workspace;
use crate::store::{agent_pool, environment, hook_link, state_version, variable};
use protocol::{Category, Named, Operation, RunOptions, Secret, Variable};

/// The [`protocol::LEVEL`] of agents that execute the hooks of an environment.
const ENVIRONMENT_HOOKS_LEVEL: i64 = 3;

impl Change {
    /// What an agent has to do that has claimed the task.
    pub(super) async fn describe(
        &mut self,
        task: &Task,
        terms: Terms,
    ) -> Result<protocol::Task, Error> {
        let mut run = self.run(&task.run_id).await?;
        let workspace = self.workspace_of(&run).await?;
        let timeout = terms.timeout(&workspace, task.phase).as_secs();
        let environment = environment::find(&mut self.tx, &workspace.environment_id).await?;
        let environment = environment.context("a workspace without its environment")?;
        let now = self.settings_of(&run, &workspace, task.pool_id.as_deref()).await?;
        let settings = match task.phase {
            Phase::Plan => {
                run_settings::upsert(&mut self.tx, &run.id, &now).await?;
                let state = state_version::current(&mut self.tx, &workspace.id).await?;
                run.planned_state = Some(state.map_or(0, |state| state.number));
                run::update(&mut self.tx, &run).await?;
                now
            }
            Phase::Apply => match run_settings::find(&mut self.tx, &run.id).await? {
                Some(planned) => as_planned(planned, now),
                None => now,
            },
        };
        // With a digest the name means the same image everywhere.
        let (image, image_id, image_content) = match settings.ran_image {
            Some(ran) => (Some(ran.digest.unwrap_or(ran.name)), Some(ran.id), ran.content),
            None => (settings.image, None, None),
        };
        Ok(protocol::Task {
            id: task.id.clone(),
            attempt: super::offers::wire_attempt(task.attempt),
            kind: task.phase.into(),
            run_id: run.id,
            run_source: run.source.name().to_owned(),
            operation: if run.is_destroy { Operation::Destroy } else { Operation::Apply },
            options: match task.phase {
                Phase::Plan => run.inputs.options,
                Phase::Apply => RunOptions::default(),
            },
            changes_nothing: task.phase == Phase::Apply && run.has_changes == Some(false),
            workspace: Named { id: workspace.id, name: workspace.name },
            environment: Named { id: environment.id, name: environment.name },
            platform: settings.platform,
            terraform_version: settings.terraform_version,
            allow_other_terraform_version: settings.allow_other_terraform_version,
            image,
            image_id,
            image_content,
            working_directory: settings.working_directory,
            variables: settings.variables,
            hooks: settings.hooks,
            environment_hooks: settings.environment_hooks,
            timeout_seconds: u32::try_from(timeout).ok(),
        })
    }

    /// What an agent has to be able to do for the hooks of a task's environment.
    pub(super) async fn level_of_hooks(&mut self, task: &Task) -> sqlx::Result<i64> {
        let has_hooks = match task.phase {
            Phase::Plan => hook_link::are_executed_by(&mut self.tx, &task.run_id).await?,
            Phase::Apply => run_settings::find(&mut self.tx, &task.run_id)
                .await?
                .is_some_and(|planned| !planned.environment_hooks.is_empty()),
        };
        Ok(if has_hooks { ENVIRONMENT_HOOKS_LEVEL } else { 1 })
    }

    async fn settings_of(
        &mut self,
        run: &Run,
        workspace: &Workspace,
        pool_id: Option<&str>,
    ) -> sqlx::Result<RunSettings> {
        let pool = match pool_id {
            Some(id) => agent_pool::find(&mut self.tx, id).await?,
            None => None,
        };
        let reaching = variable::reaching(&mut self.tx, &workspace.id).await?;
        Ok(RunSettings {
            platform: workspace.iac_platform.map(Into::into),
            terraform_version: run
                .terraform_version
                .clone()
                .or_else(|| workspace.terraform_version.clone()),
            allow_other_terraform_version: workspace.allow_other_terraform_version,
            image: workspace.image.clone().or(pool.and_then(|pool| pool.image)),
            working_directory: workspace.working_directory.clone(),
            hooks: workspace.hooks.0.clone(),
            environment_hooks: hook_link::of_environment(&mut self.tx, &workspace.environment_id)
                .await?,
            variables: with_own(
                resolve(reaching).into_iter().map(Variable::from).collect(),
                &run.inputs.variables,
            ),
            ran_image: None,
        })
    }
}

impl From<Inherited> for Variable {
    fn from(inherited: Inherited) -> Self {
        let sensitive = inherited.is_sensitive();
        let variable = inherited.winner;
        Self {
            key: variable.key,
            value: variable.value.0,
            category: variable.category.into(),
            hcl: variable.hcl,
            sensitive,
        }
    }
}

/// The workspace's variables with the run's own, which take precedence. One that has the name
/// of a sensitive one is sensitive, too.
fn with_own(mut variables: Vec<Variable>, own: &BTreeMap<String, String>) -> Vec<Variable> {
    let is_sensitive = |key: &str| {
        let has_key = |one: &&Variable| one.category == Category::Terraform && one.key == key;
        variables.iter().find(has_key).is_some_and(|one| one.sensitive)
    };
    let own: Vec<Variable> = own
        .iter()
        .map(|(key, value)| Variable {
            key: key.clone(),
            value: Secret::new(value.as_str()),
            category: Category::Terraform,
            hcl: true,
            sensitive: is_sensitive(key),
        })
        .collect();
    variables.retain(|one| {
        one.category != Category::Terraform || own.iter().all(|own| own.key != one.key)
    });
    variables.extend(own);
    variables
}

/// What an apply gets: all that was planned, and the environment as it is now, since
/// credentials are replaced between a plan and its approval.
fn as_planned(planned: RunSettings, now: RunSettings) -> RunSettings {
    let (of_terraform_now, mut variables): (Vec<_>, Vec<_>) =
        now.variables.into_iter().partition(is_of_terraform);
    let of_terraform = planned.variables.into_iter().filter(is_of_terraform).map(|mut variable| {
        // Somebody may have seen the value in the plan's log, and marked it.
        variable.sensitive |= of_terraform_now.iter().any(|now| {
            now.sensitive && now.key == variable.key && now.category == variable.category
        });
        variable
    });
    variables.extend(of_terraform);
    RunSettings { variables, ..planned }
}

/// Whether a variable is a part of the plan: one of the configuration, or a setting of
/// Terraform itself (`TF_VAR_…`, `TF_CLI_ARGS`). `TF_TOKEN_…` is a credential.
fn is_of_terraform(variable: &Variable) -> bool {
    match variable.category {
        Category::Terraform => true,
        Category::Shell => {
            variable.key.starts_with("TF_") && !variable.key.starts_with("TF_TOKEN_")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::Hook;

    fn settings(image: &str, variables: &[(&str, &str, Category, bool)]) -> RunSettings {
        RunSettings {
            platform: None,
            terraform_version: None,
            allow_other_terraform_version: false,
            image: Some(image.to_owned()),
            working_directory: None,
            hooks: BTreeMap::from([(Hook::PreApply, format!("echo {image}"))]),
            environment_hooks: Vec::new(),
            variables: variables
                .iter()
                .map(|(key, value, category, sensitive)| Variable {
                    key: (*key).to_owned(),
                    value: Secret::new(*value),
                    category: *category,
                    hcl: false,
                    sensitive: *sensitive,
                })
                .collect(),
            ran_image: None,
        }
    }

    #[test]
    fn an_apply_has_the_planned_variables_and_the_present_environment() {
        use Category::{Shell, Terraform};
        let planned = settings(
            "planned",
            &[
                ("size", "1", Terraform, false),
                ("gone", "1", Terraform, false),
                ("TF_VAR_size", "1", Shell, false),
                ("TF_CLI_ARGS_apply", "-parallelism=1", Shell, false),
                ("TF_TOKEN_example_com", "old", Shell, true),
                ("AWS_ACCESS_KEY_ID", "old", Shell, true),
                ("REMOVED", "old", Shell, false),
            ],
        );
        let now = settings(
            "now",
            &[
                ("size", "2", Terraform, true),
                ("new", "2", Terraform, false),
                ("TF_VAR_size", "2", Shell, false),
                ("TF_TOKEN_example_com", "new", Shell, true),
                ("AWS_ACCESS_KEY_ID", "new", Shell, true),
                ("ADDED", "new", Shell, false),
            ],
        );
        let apply = as_planned(planned.clone(), now);
        assert_eq!((&apply.image, &apply.hooks), (&planned.image, &planned.hooks));
        let variables: BTreeMap<&str, (&str, bool)> = apply
            .variables
            .iter()
            .map(|variable| (variable.key.as_str(), (variable.value.expose(), variable.sensitive)))
            .collect();
        let expected = BTreeMap::from([
            // Marked as sensitive since: its planned value is masked, too.
            ("size", ("1", true)),
            ("gone", ("1", false)),
            ("TF_VAR_size", ("1", false)),
            ("TF_CLI_ARGS_apply", ("-parallelism=1", false)),
            ("TF_TOKEN_example_com", ("new", true)),
            ("AWS_ACCESS_KEY_ID", ("new", true)),
            ("ADDED", ("new", false)),
        ]);
        assert_eq!(variables, expected);
    }
}
