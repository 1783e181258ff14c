//! A program's manual pages and completions, made of its own command line.
//!
//! Each program has a hidden subcommand that writes them; packaging calls it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

/// Write the manual pages and completions of this program
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Put them into this folder, as if it were the machine's `/`
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes a page for `command` and for each of its subcommands, and completions
/// for bash, zsh and fish, where an rpm-based system has them.
///
/// # Errors
/// The folder can't be written to.
pub fn write(command: Command, args: &Args) -> Result<()> {
    let name = command.get_name().to_owned();
    // Completions are also made of what is hidden.
    let mut visible = Command::new(name.clone())
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    for (shell, folder, file) in [
        (Shell::Bash, "bash-completion/completions", name.clone()),
        (Shell::Zsh, "zsh/site-functions", format!("_{name}")),
        (Shell::Fish, "fish/vendor_completions.d", format!("{name}.fish")),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut visible, &name, &mut text);
        save(&args.folder.join("usr/share").join(folder), &file, &text)?;
    }

    let mut command = command.disable_help_subcommand(true);
    command.build();
    write_pages(&command, &args.folder.join("usr/share/man/man1"))
}

fn write_pages(command: &Command, folder: &Path) -> Result<()> {
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        write_pages(command, folder)?;
    }
    let page = Man::new(command.clone());
    save(folder, &page.get_filename(), &text(&page, command)?)
}

fn text(page: &Man, command: &Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        page.render_options_section(&mut text)?;
    }
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = command.get_after_help() {
        // Its lines are laid out already: they must not be filled.
        let mut section = Roff::new();
        section.control("SH", ["NOTES"]);
        section.control("nf", []);
        for line in examples.to_string().lines() {
            section.text([roman(line)]);
        }
        section.control("fi", []);
        section.to_writer(&mut text)?;
    }
    Ok(text)
}

fn save(folder: &Path, name: &str, text: &[u8]) -> Result<()> {
    let file = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_command_has_a_page_and_the_program_completions() {
        let command = Command::new("tool")
            .about("A tool")
            .after_help("Examples:\n  tool go  --far\n.not a macro")
            .subcommand(Command::new("go").about("Goes"))
            .subcommand(Command::new("inner").hide(true));
        let folder = tempfile::tempdir().unwrap();
        write(command, &Args { folder: folder.path().to_owned() }).unwrap();
        let share = folder.path().join("usr/share");
        let mut pages: Vec<_> = fs::read_dir(share.join("man/man1"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages, ["tool-go.1", "tool.1"]);
        let page = fs::read_to_string(share.join("man/man1/tool.1")).unwrap();
        assert!(page.contains("tool \\- A tool"), "{page}");
        assert!(page.contains("\n.nf\nExamples:\n  tool go  \\-\\-far\n"), "{page}");
        assert!(!page.contains("\n.not"), "{page}");
        for file in [
            "bash-completion/completions/tool",
            "zsh/site-functions/_tool",
            "fish/vendor_completions.d/tool.fish",
        ] {
            let text = fs::read_to_string(share.join(file)).unwrap();
            assert!(text.contains("go") && !text.contains("inner"), "{file}: {text}");
        }
    }
}
