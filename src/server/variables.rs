//! Errors of the command line, with the variables that are set instead of options: a unit's
//! settings have no others.

use std::{env, iter};

use anyhow::Result;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error};
use clap::{Arg, Command};
use cli::Failure;

/// How the names of all of them begin.
const PREFIX: &str = "SCALR_SERVER_";

/// How many letters a misspelt name differs in.
const TYPO: usize = 2;

/// Refuses a variable whose name is a misspelt one of `command`: without it, the server would
/// run with a default. Others may be somebody else's, such as those of a Kubernetes service.
///
/// # Errors
/// There is one (2).
pub(crate) fn require_spelt_right(command: &Command) -> Result<()> {
    let known: Vec<_> =
        arguments(command).filter_map(|argument| argument.get_env()?.to_str()).collect();
    let set = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in set.filter(|name| name.starts_with(PREFIX) && !known.contains(&name.as_str())) {
        let distance = |other: &&&str| strsim::osa_distance(&name, other);
        if let Some(meant) =
            known.iter().min_by_key(distance).filter(|meant| distance(meant) <= TYPO)
        {
            return Err(Failure::Usage.because(format!(
                "cannot start: there is no setting {name}\nDid you mean {meant}?"
            )));
        }
    }
    Ok(())
}

/// The error, with the variable of each option that it names, if any variable of `command` is
/// set.
pub(crate) fn named(mut error: Error, mut command: Command) -> Error {
    // Options are named as in their error only then.
    command.build();
    let arguments: Vec<&Arg> = arguments(&command).collect();
    let is_set =
        |argument: &&Arg| argument.get_env().is_some_and(|name| env::var_os(name).is_some());
    if !arguments.iter().any(is_set) {
        return error;
    }
    let options: Vec<String> = [ContextKind::InvalidArg, ContextKind::PriorArg]
        .into_iter()
        .filter_map(|kind| error.get(kind))
        .flat_map(|value| match value {
            ContextValue::String(option) => vec![option.clone()],
            ContextValue::Strings(options) => options.clone(),
            _ => Vec::new(),
        })
        .collect();
    let tips: Vec<StyledStr> = options
        .iter()
        .filter_map(|option| {
            let argument = arguments.iter().find(|argument| argument.to_string() == *option)?;
            let name = argument.get_env()?.to_string_lossy();
            Some(format!("the variable {name} sets {option}").into())
        })
        .collect();
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// The options of all commands and of theirs that a variable can set.
fn arguments(command: &Command) -> impl Iterator<Item = &Arg> {
    let commands = command.get_subcommands();
    let commands =
        commands.flat_map(|command| iter::once(command).chain(command.get_subcommands()));
    commands.flat_map(Command::get_arguments).filter(|argument| argument.get_env().is_some())
}
