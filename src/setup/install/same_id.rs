//! Another definition of our repository for yum, in another file: yum and dnf take one of the
//! two, by the names of the files, and warn at most.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use cli::Failure;
use cli::untrusted_file;
use host::machine::Machine;

/// Where yum and dnf find definitions, besides their own settings.
const FOLDERS: [&str; 3] = ["/etc/yum.repos.d", "/etc/yum/repos.d", "/etc/distro.repos.d"];
const SETTINGS: [&str; 2] = ["/etc/yum.conf", "/etc/dnf/dnf.conf"];

/// Refuses a repository that another file than `own` defines.
///
/// # Errors
/// One does (6).
pub(super) fn require_no_other(machine: &Machine, own: &str, id: &str) -> Result<()> {
    let header = format!("[{id}]");
    for file in files(machine).into_iter().filter(|file| file != Path::new(own)) {
        let text = untrusted_file::read_text(machine.path(&file)).unwrap_or_default();
        let Some(first) = text.lines().position(|line| line.trim() == header) else { continue };
        let rest = text.lines().skip(first + 1).take_while(|line| !line.starts_with('['));
        let (first, last) = (first + 1, first + 1 + rest.count());
        let file = file.display();
        return Err(Failure::NotInstalled.because(format!(
            "cannot add the package repository {id}: {file}:{first} defines one of that name, \
             too\nRemove that definition with `sed -i {first},{last}d {file}`, and run this again."
        )));
    }
    Ok(())
}

fn files(machine: &Machine) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = FOLDERS
        .iter()
        .flat_map(|folder| {
            let entries = fs::read_dir(machine.path(folder)).into_iter().flatten().flatten();
            entries.map(|entry| Path::new(folder).join(entry.file_name()))
        })
        .filter(|file| file.extension().is_some_and(|extension| extension == "repo"))
        .chain(SETTINGS.map(PathBuf::from))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/etc/yum.repos.d/scalr-agent.repo";

    fn refusal(file: &str, text: &str) -> Option<String> {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        fs::create_dir_all(machine.path(file).parent().unwrap()).unwrap();
        fs::write(machine.path(file), text).unwrap();
        require_no_other(&machine, OWN, "scalr-agent").err().map(|error| error.to_string())
    }

    #[test]
    fn a_definition_of_our_repository_in_another_file_is_named_with_its_lines() {
        let text = "[a]\nname=A\n\n[scalr-agent]\nbaseurl=https://x.example.com\n\n[z]\n";
        for file in ["/etc/yum.repos.d/a.repo", "/etc/yum/repos.d/z.repo", "/etc/dnf/dnf.conf"] {
            let said = refusal(file, text).expect(file);
            assert!(said.contains(&format!("{file}:4 ")), "{said}");
            assert!(said.contains(&format!("`sed -i 4,6d {file}`")), "{said}");
        }
        for (file, text) in [
            (OWN, text),
            ("/etc/yum.repos.d/a.repo.rpmsave", text),
            ("/etc/yum.repos.d/a.repo", "[scalr-agent-bundle]\n#[scalr-agent]\n"),
        ] {
            assert_eq!(refusal(file, text), None, "{file}: {text}");
        }
    }
}
