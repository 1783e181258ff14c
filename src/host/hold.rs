//! What keeps the package tool from changing a package: an administrator's hold,
//! exclusion, lock or protection.

use std::fmt;
use std::path::Path;

use glob::Pattern;

use super::command::quoted;

/// What is to be done with a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// It is installed, or becomes the newest. The name is that of the repository it
    /// comes from for yum; `None` if it comes from a file.
    Install(Option<&'a str>),
    /// It is removed.
    Remove,
}

/// What holds a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// It, with its file and line if it is in one, such as
    /// ``/etc/dnf/dnf.conf:7 excludes it (`exclude=scalr-*`)``.
    pub(crate) by: String,
    /// The command that releases the package.
    pub(crate) release: String,
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, release } = self;
        write!(
            f,
            "{by}\nNothing has been changed. Release it with `{release}`, and run this again."
        )
    }
}

/// A line of a file, as messages name it.
pub(crate) fn place(file: &Path, line: usize) -> String {
    format!("{}:{line}", file.display())
}

/// The command that takes a word out of a line with a list of words.
pub(crate) fn take_word_out(file: &Path, line: usize, word: &str) -> String {
    let special =
        |c: char| if r".*[]^$+?(){}|\/".contains(c) { format!(r"\{c}") } else { c.into() };
    let word: String = word.chars().map(special).collect();
    edit(file, &format!(r"{line}s/(^|[=, \t]){word}([, \t]|$)/\1\2/"))
}

/// The command that edits a file with a script of sed's.
pub(crate) fn edit(file: &Path, script: &str) -> String {
    format!("sed -E -i {} {}", quoted(script), quoted(&file.display().to_string()))
}

/// Whether a shell's pattern matches a whole name; one that is none matches itself.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    Pattern::new(pattern).map_or(pattern == name, |pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_word_is_taken_out_of_its_line_alone() {
        for (text, word, expected) in [
            ("a=1\nexclude=scalr-agent\n", "scalr-agent", "a=1\nexclude=\n"),
            (
                "\nexclude=x, scalr-agent-y scalr-agent,z\n",
                "scalr-agent",
                "\nexclude=x, scalr-agent-y ,z\n",
            ),
            ("\n  scalr-*  x.y\n", "scalr-*", "\n    x.y\n"),
            ("\nexclude = [s]calr*\n", "[s]calr*", "\nexclude = \n"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("a file");
            fs::write(&file, text).unwrap();
            let command = take_word_out(&file, 2, word);
            assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
            assert_eq!(fs::read_to_string(&file).unwrap(), expected, "{command}");
        }
    }
}
