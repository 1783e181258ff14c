//! Every subcommand's `--help`, as recorded in the folder `help`.
//!
//! `UPDATE_HELP=1 cargo test -p setup --test commands help` records it again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use setup::Cli;

const WIDTH: usize = 80;

#[test]
fn help_is_as_recorded_and_fits_a_terminal() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/commands/help");
    let mut recorded = Vec::new();
    for words in subcommands(&Cli::command(), &[]) {
        let text = help(&words);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{words:?}: over {WIDTH} columns: {line}");
        }
        let name = if words.is_empty() { "setup".to_owned() } else { words.join("-") };
        let file = folder.join(format!("{name}.txt"));
        if std::env::var_os("UPDATE_HELP").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let known = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            known == text,
            "the help of {words:?} is not what {} has; if it is meant to be so, record it with \
             UPDATE_HELP=1. It is now:\n{text}",
            file.display()
        );
        recorded.push(file);
    }
    assert_eq!(files(&folder), sorted(recorded), "help of subcommands that are gone");
}

/// The words of every subcommand, nested ones too; none for the program itself.
fn subcommands(command: &clap::Command, words: &[String]) -> Vec<Vec<String>> {
    let mut all = vec![words.to_vec()];
    for subcommand in command
        .get_subcommands()
        .filter(|command| command.get_name() != "help" && !command.is_hide_set())
    {
        all.extend(subcommands(subcommand, &[words, &[subcommand.get_name().to_owned()]].concat()));
    }
    all
}

fn help(words: &[String]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_scalr-agent-setup"))
        .args(words)
        .arg("--help")
        .env_remove("COLUMNS")
        // What is set here would be shown as the default.
        .env_remove("SCALR_AGENT_TOKEN")
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    sorted(fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect())
}

fn sorted(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort();
    files
}
