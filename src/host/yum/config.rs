//! The settings of yum and dnf by file and line: what they print of them names neither.

use std::fs;
use std::path::{Path, PathBuf};

use super::Yum;
use crate::machine::Machine;
use cli::untrusted_file;

/// A line of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// `main`, or a repository's id.
    pub section: String,
    pub name: String,
    /// What this line says of it; a list goes on in further lines.
    pub value: String,
}

impl Setting {
    /// The words of a list.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.value.split([',', ' ', '\t']).filter(|word| !word.is_empty())
    }
}

/// The main configuration of yum 3.
const OF_YUM_3: &str = "/etc/yum.conf";

/// The main configuration; a yum without one of its own is dnf by another name.
fn main_file(machine: &Machine, yum: Yum) -> &'static Path {
    let yum_3 = Path::new(OF_YUM_3);
    if yum == Yum::Yum && machine.path(yum_3).exists() {
        yum_3
    } else {
        Path::new("/etc/dnf/dnf.conf")
    }
}

/// Whether it is yum 3, and not dnf by that name.
pub(crate) fn is_yum_3(machine: &Machine, yum: Yum) -> bool {
    main_file(machine, yum) == Path::new(OF_YUM_3)
}

/// All settings, of the main configuration and of the repositories.
pub(crate) fn settings(machine: &Machine, yum: Yum) -> Vec<Setting> {
    let mut files = vec![main_file(machine, yum).to_owned()];
    if yum == Yum::Dnf5 {
        for folder in ["/usr/share/dnf5/libdnf.conf.d", "/etc/dnf/libdnf5.conf.d"] {
            files.extend(files_in(machine, folder, "conf"));
        }
    }
    files.extend(files_in(machine, "/etc/yum.repos.d", "repo"));
    if yum == Yum::Dnf5 {
        // Where `dnf config-manager setopt` writes to.
        for folder in ["/usr/share/dnf5/repos.override.d", "/etc/dnf/repos.override.d"] {
            files.extend(files_in(machine, folder, "repo"));
        }
    }
    files.into_iter().flat_map(|file| settings_of(machine, &file)).collect()
}

/// The files of a folder with an extension, in order.
pub(crate) fn files_in(machine: &Machine, folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(machine.path(folder)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| Path::new(folder).join(entry.file_name()))
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// The settings in one file; none if it can't be read.
pub(crate) fn settings_of(machine: &Machine, file: &Path) -> Vec<Setting> {
    let text = untrusted_file::read_text(machine.path(file)).unwrap_or_default();
    let (mut section, mut name) = (String::new(), String::new());
    let mut settings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim();
        let value = if content.is_empty() || content.starts_with(['#', ';']) {
            continue;
        } else if line.starts_with(char::is_whitespace) {
            content
        } else if let Some(found) =
            content.strip_prefix('[').and_then(|rest| rest.split(']').next())
        {
            found.clone_into(&mut section);
            name.clear();
            continue;
        } else if let Some((key, value)) = content.split_once(['=', ':']) {
            key.trim().clone_into(&mut name);
            value.trim()
        } else {
            continue;
        };
        settings.push(Setting {
            file: file.to_owned(),
            line: number + 1,
            section: section.clone(),
            name: name.clone(),
            value: value.to_owned(),
        });
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_their_section_and_each_line_of_a_list_its_number() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::write(
            machine.path("/x.repo"),
            "[main]\n# exclude=no\nexclude = a, b\n  c\n\n[extras]\nbaseurl=https://x.example.com\n",
        )
        .unwrap();
        let found = settings_of(&machine, Path::new("/x.repo"));
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.line, one.section.as_str(), one.name.as_str(), one.words().collect()))
            .collect::<Vec<(_, _, _, Vec<&str>)>>();
        assert_eq!(
            found,
            [
                (3, "main", "exclude", vec!["a", "b"]),
                (4, "main", "exclude", vec!["c"]),
                (7, "extras", "baseurl", vec!["https://x.example.com"]),
            ]
        );
    }
}
