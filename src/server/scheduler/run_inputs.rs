//! What a run is made of, and which of it does not go together.

use std::collections::{BTreeMap, HashSet};

use super::Error;
use super::run_events::Decision;
use crate::hcl_value;
use crate::store::configuration_version::ConfigurationVersion;
use crate::store::run::{Inputs, Source};
use crate::store::variable::Variable;
use crate::store::workspace::Workspace;
use protocol::limits::{MAX_KEY, MAX_VALUES, MAX_VARIABLES, MAX_VERSION};
use protocol::{Operation, RunOption, RunOptions};

/// What a run is made of.
#[derive(Debug, Default)]
pub(crate) struct NewRun {
    /// Its workspace.
    pub workspace_id: String,
    /// What it runs.
    pub configuration_version_id: String,
    /// Where it came from.
    pub source: Source,
    /// Why, for people.
    pub message: Option<String>,
    /// Whether it destroys.
    pub is_destroy: bool,
    /// Whether its plan is applied without asking; none: as its workspace says.
    pub auto_apply: Option<bool>,
    /// Whether it is never applied. So is every run of a speculative configuration version.
    pub is_plan_only: bool,
    /// Whether its plan is kept for later.
    pub save_plan: bool,
    /// Whether a plan without changes is applied, too.
    pub allow_empty_apply: bool,
    /// The Terraform version instead of the workspace's.
    pub terraform_version: Option<String>,
    /// What it asks of Terraform beside its operation.
    pub options: RunOptions,
    /// Its own variables: names, and expressions as in a `.tfvars` file.
    pub variables: Vec<(String, String)>,
    /// Who makes it.
    pub by: Decision,
}

impl NewRun {
    /// Fills in what follows from its workspace and its configuration version, and checks
    /// that everything goes together. `variables` are those that the workspace has or inherits.
    ///
    /// # Errors
    /// [`Error::InvalidAttribute`].
    pub(super) fn settle(
        &mut self,
        workspace: &Workspace,
        version: &ConfigurationVersion,
        variables: &[Variable],
    ) -> Result<Inputs, Error> {
        let refuse =
            |name, detail: &str| Err(Error::InvalidAttribute { name, detail: detail.to_owned() });
        self.is_plan_only |= version.is_speculative;
        if self.is_plan_only && self.save_plan {
            return refuse("save-plan", "The plan of a plan-only run cannot be kept to apply it.");
        }
        if self.is_plan_only && self.allow_empty_apply {
            return refuse("allow-empty-apply", "A plan-only run is never applied.");
        }
        let is_asked_later = self.is_plan_only || self.save_plan;
        if is_asked_later && self.auto_apply == Some(true) {
            return refuse(
                "auto-apply",
                "A run that is plan-only or saves its plan cannot have it.",
            );
        }
        self.auto_apply.get_or_insert(workspace.auto_apply && !is_asked_later);
        if let Some(version) = &self.terraform_version {
            if !self.is_plan_only {
                return refuse(
                    "terraform-version",
                    "Only a plan-only run can have another one than its workspace.",
                );
            }
            if version.is_empty() || version.len() > MAX_VERSION {
                return refuse("terraform-version", "This is not a version of Terraform.");
            }
        }
        self.options.check(self.operation()).map_err(|bad| Error::InvalidAttribute {
            name: match bad.option {
                RunOption::Refresh => "refresh-only",
                RunOption::Targets => "target-addrs",
                RunOption::Replace => "replace-addrs",
            },
            detail: bad.why,
        })?;
        let variables = check_variables(std::mem::take(&mut self.variables), variables)?;
        Ok(Inputs { options: std::mem::take(&mut self.options), variables })
    }

    fn operation(&self) -> Operation {
        if self.is_destroy { Operation::Destroy } else { Operation::Apply }
    }
}

fn check_variables(
    own: Vec<(String, String)>,
    others: &[Variable],
) -> Result<BTreeMap<String, String>, Error> {
    let refuse = |detail: String| Err(Error::InvalidAttribute { name: "variables", detail });
    for (key, value) in &own {
        let is_name = key.len() <= MAX_KEY
            && key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        if !is_name {
            let shown: String = key.chars().take(80).collect();
            return refuse(format!("{shown:?} is not the name of a Terraform variable."));
        }
        if let Err(why) = hcl_value::check(key, value) {
            return refuse(format!("{key}: {why}"));
        }
    }
    let names: HashSet<&str> = own.iter().map(|(key, _)| key.as_str()).collect();
    if names.len() < own.len() {
        return refuse("A variable stands there twice.".to_owned());
    }
    if own.len() + others.len() > MAX_VARIABLES {
        return refuse(format!(
            "A run has at most {MAX_VARIABLES} variables with its workspace's."
        ));
    }
    let bytes: usize = own.iter().map(|(_, value)| value.len()).sum();
    let of_others: usize = others.iter().map(|one| one.value.0.expose().len()).sum();
    if bytes + of_others > MAX_VALUES {
        return refuse(format!(
            "All values of a run and its workspace have at most {MAX_VALUES} bytes together."
        ));
    }
    Ok(own.into_iter().collect())
}
