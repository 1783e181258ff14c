//! A command as it is kept in a file.

use std::collections::BTreeMap;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A command that can be kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CommandLine {
    program: String,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
}

impl From<&Command> for CommandLine {
    fn from(command: &Command) -> Self {
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        Self {
            program: text(command.get_program()),
            arguments: command.get_args().map(text).collect(),
            environment: command
                .get_envs()
                .filter_map(|(name, value)| Some((text(name), text(value?))))
                .collect(),
        }
    }
}

impl From<&CommandLine> for Command {
    fn from(line: &CommandLine) -> Self {
        let mut command = Self::new(&line.program);
        command.args(&line.arguments).envs(&line.environment);
        command
    }
}
