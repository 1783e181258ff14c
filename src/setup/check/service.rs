//! What the agent's service needs on this host: its drop-ins and its data folder.

use super::{Outcome, Subject};
use crate::status::AGENT_PROGRAM;
use crate::{data_dir, settings, units};
use cli::Failure;
use config::{Settings, layout};
use host::systemd;

pub(super) fn drop_ins(subject: &Subject) -> Outcome {
    if subject.before_install || !subject.machine.path(AGENT_PROGRAM).exists() {
        return Outcome::Skipped("scalr-agent is not installed yet".to_owned());
    }
    let settings = match settings_of(subject) {
        Ok(settings) => settings,
        Err(outcome) => return outcome,
    };
    let Some(systemd) = systemd::version(&subject.machine) else {
        return Outcome::Skipped("there is no systemd here".to_owned());
    };
    match units::stale(&subject.machine, systemd, &settings) {
        Err(error) => Outcome::problem(format!("{error:#}")),
        Ok(stale) if stale.is_empty() => {
            Outcome::Passed("the drop-ins of scalr-agent.service fit its settings".to_owned())
        }
        Ok(stale) => Outcome::Problem(
            format!(
                "{} in {} does not fit the settings and this systemd; when it is rendered, \
                 restart scalr-agent",
                stale.join(", "),
                layout::AGENT_DROP_INS
            ),
            vec!["scalr-agent-setup units".to_owned()],
        ),
    }
}

pub(super) fn data_folder(subject: &Subject) -> Outcome {
    let settings = match settings_of(subject) {
        Ok(settings) => settings,
        Err(outcome) => return outcome,
    };
    let Some(folder) = data_dir::custom(&settings) else {
        return Outcome::Passed(format!("the agent has {}", layout::DATA_DIR));
    };
    match data_dir::refuse_unusable(&subject.machine, folder) {
        Err(error) => Outcome::problem(format!("{error:#}")),
        Ok(()) => Outcome::Passed(format!("{} is the agent's alone", folder.display())),
    }
}

fn settings_of(subject: &Subject) -> Result<Settings, Outcome> {
    settings::of_service(&subject.machine).map_err(|error| match Failure::of(&error) {
        Failure::NotPermitted => {
            Outcome::Unknown(format!("only root may read {}", layout::SETTINGS))
        }
        _ => Outcome::problem(format!("{error:#}")),
    })
}
