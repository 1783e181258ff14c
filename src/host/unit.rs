//! The variables that a unit's drop-ins set.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::machine::Machine;
use cli::untrusted_file;

/// A variable's value and the file that gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// The value.
    pub value: String,
    /// The drop-in, or the environment file that one names.
    pub file: PathBuf,
}

/// Where units and their drop-ins are: of two with the same name, the one in the first of these
/// folders counts (systemd.unit(5)).
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The variables that the drop-ins in the directory `drop_ins` set, by name.
///
/// An environment file that we may not read is passed over.
///
/// # Errors
/// A drop-in can't be read.
pub fn environment(machine: &Machine, drop_ins: &str) -> Result<BTreeMap<String, Given>> {
    read(machine, files(machine, drop_ins)?)
}

/// The same of a unit, such as `docker.service`, and of its drop-ins in all folders.
///
/// # Errors
/// A drop-in or the unit can't be read.
pub fn environment_of(machine: &Machine, unit: &str) -> Result<BTreeMap<String, Given>> {
    let mut drop_ins = BTreeMap::new();
    for folder in FOLDERS.iter().rev() {
        let found = files(machine, &format!("{folder}/{unit}.d"))?;
        drop_ins.extend(found.into_iter().map(|file| (file.file_name().map(OsString::from), file)));
    }
    let units = FOLDERS.iter().map(|folder| Path::new(folder).join(unit));
    let own = units.into_iter().find(|file| machine.path(file).exists());
    read(machine, own.into_iter().chain(drop_ins.into_values()))
}

/// What these files set, in this order. What environment files set takes precedence.
fn read(
    machine: &Machine,
    files: impl IntoIterator<Item = PathBuf>,
) -> Result<BTreeMap<String, Given>> {
    let (mut set, mut of_files) = (BTreeMap::new(), BTreeMap::new());
    for file in files {
        let text = match untrusted_file::read_text(machine.path(&file)) {
            // A link to /dev/null, or one that leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result.with_context(|| format!("cannot read {}", file.display()))?,
        };
        read_unit(&text, &file, machine, &mut set, &mut of_files);
    }
    set.extend(of_files);
    Ok(set)
}

fn files(machine: &Machine, drop_ins: &str) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(machine.path(drop_ins)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.with_context(|| format!("cannot read {drop_ins}"))?,
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| Path::new(drop_ins).join(entry.file_name()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    Ok(files)
}

/// Adds what a unit file sets, and apart from it what the files set that it names.
fn read_unit(
    text: &str,
    file: &Path,
    machine: &Machine,
    set: &mut BTreeMap<String, Given>,
    of_files: &mut BTreeMap<String, Given>,
) {
    // As systemd reads it: also what an editor of Windows has saved.
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n").replace("\\\n", " ");
    let mut in_service = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            in_service = line == "[Service]";
            continue;
        }
        let Some((name, value)) = line.split_once('=').filter(|_| in_service) else { continue };
        match name.trim() {
            "Environment" if value.trim().is_empty() => set.clear(),
            "Environment" => set.extend(words(value).iter().filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                let given = Given { value: value.replace("%%", "%"), file: file.to_owned() };
                Some((name.to_owned(), given))
            })),
            "EnvironmentFile" if value.trim().is_empty() => of_files.clear(),
            "EnvironmentFile" => {
                let file = Path::new(value.trim().trim_start_matches('-'));
                let text = untrusted_file::read_text(machine.path(file)).unwrap_or_default();
                of_files.extend(
                    text.lines()
                        .filter_map(assignment)
                        .map(|(name, value)| (name, Given { value, file: file.to_owned() })),
                );
            }
            _ => {}
        }
    }
}

/// A line of an environment file.
fn assignment(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return None;
    }
    let (name, value) = line.split_once('=')?;
    let value = value.trim();
    let value = match value.chars().next() {
        Some('"' | '\'') => words(value).into_iter().next().unwrap_or_default(),
        _ => value.to_owned(),
    };
    Some((name.trim().to_owned(), value))
}

/// A unit file's words: separated by spaces, quoted by `"` or `'`, with a
/// backslash before a character that is meant (systemd.syntax(7)).
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP_INS: &str = "/etc/systemd/system/tool.service.d";

    fn machine_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (path, text) in files {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        (tree, machine)
    }

    /// What one drop-in sets.
    fn set_by(text: &str) -> BTreeMap<String, Given> {
        let (_tree, machine) = machine_with(&[(&format!("{DROP_INS}/proxy.conf"), text)]);
        environment(&machine, DROP_INS).unwrap()
    }

    #[test]
    fn a_drop_in_with_the_marks_of_windows_is_read_as_systemd_does() {
        let set = set_by(
            "\u{feff}[Service]\r\nEnvironment=\"HTTP_PROXY=http://a:1\" \\\r\n  NO_PROXY=b\r\n",
        );
        assert_eq!(set["HTTP_PROXY"].value, "http://a:1");
        assert_eq!(set["NO_PROXY"].value, "b");
    }

    #[test]
    fn each_variable_knows_its_file() {
        let drop_in = format!("{DROP_INS}/settings.conf");
        let (_tree, machine) = machine_with(&[
            (
                &drop_in,
                "[Service]\nEnvironment=SCALR_AGENT_CONCURRENCY=3\nEnvironmentFile=-/etc/some.env\n",
            ),
            ("/etc/some.env", "SCALR_AGENT_TOKEN=t\n"),
        ]);
        let set = environment(&machine, DROP_INS).unwrap();
        let of = |name: &str| (set[name].value.as_str(), set[name].file.to_str().unwrap());
        assert_eq!(of("SCALR_AGENT_CONCURRENCY"), ("3", drop_in.as_str()));
        assert_eq!(of("SCALR_AGENT_TOKEN"), ("t", "/etc/some.env"));
    }

    #[test]
    fn no_drop_in_sets_nothing() {
        let (_tree, machine) = machine_with(&[]);
        assert!(environment(&machine, DROP_INS).unwrap().is_empty());
    }

    #[test]
    fn a_hand_written_drop_in_counts() {
        let set = set_by(
            "[Service]\nEnvironment=\"HTTP_PROXY=http://proxy.example.com:3128\"\n\
             Environment=HTTPS_PROXY=http://proxy.example.com:3129 'NO_PROXY=a b,c'\n",
        );
        assert_eq!(set["HTTP_PROXY"].value, "http://proxy.example.com:3128");
        assert_eq!(set["HTTPS_PROXY"].value, "http://proxy.example.com:3129");
        assert_eq!(set["NO_PROXY"].value, "a b,c");
    }

    #[test]
    fn escapes_are_undone() {
        let set =
            set_by("[Service]\nEnvironment=\"HTTP_PROXY=http://u:p%%2F\\\"\\\\x@proxy:80\"\n");
        assert_eq!(set["HTTP_PROXY"].value, "http://u:p%2F\"\\x@proxy:80");
    }

    #[test]
    fn the_environment_file_takes_precedence() {
        let (_tree, machine) = machine_with(&[
            (
                &format!("{DROP_INS}/proxy.conf"),
                "[Service]\nEnvironmentFile=-/etc/proxy.env\nEnvironment=HTTP_PROXY=http://one:1\n",
            ),
            ("/etc/proxy.env", "# ours\nHTTP_PROXY=\"http://u:p\\$%2F@two:2\"\n"),
        ]);
        let set = environment(&machine, DROP_INS).unwrap();
        assert_eq!(set["HTTP_PROXY"].value, "http://u:p$%2F@two:2");
    }

    #[test]
    fn a_later_drop_in_takes_no_precedence_over_an_environment_file() {
        let (_tree, machine) = machine_with(&[
            (&format!("{DROP_INS}/proxy.conf"), "[Service]\nEnvironmentFile=-/etc/proxy.env\n"),
            (&format!("{DROP_INS}/z.conf"), "[Service]\nEnvironment=HTTP_PROXY=http://one:1\n"),
            ("/etc/proxy.env", "HTTP_PROXY=http://two:2\n"),
        ]);
        let set = environment(&machine, DROP_INS).unwrap();
        assert_eq!(set["HTTP_PROXY"].value, "http://two:2");
    }

    #[test]
    fn a_unit_and_its_drop_ins_in_all_folders_count_in_systemds_order() {
        let set = |name: &str, value: &str| {
            (name.to_owned(), format!("[Service]\nEnvironment={value}\n"))
        };
        let files = [
            set("/usr/lib/systemd/system/tool.service", "A=unit B=unit C=unit D=unit"),
            set("/lib/systemd/system/tool.service", "E=unit"),
            set("/usr/lib/systemd/system/tool.service.d/50.conf", "B=vendor"),
            set("/run/systemd/system/tool.service.d/60.conf", "C=run D=run"),
            set("/etc/systemd/system/tool.service.d/40.conf", "C=etc"),
            set("/etc/systemd/system/tool.service.d/50.conf", "D=etc"),
        ];
        let files: Vec<_> =
            files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let (_tree, machine) = machine_with(&files);
        let set = environment_of(&machine, "tool.service").unwrap();
        let values: Vec<_> = set.iter().map(|(name, given)| (&**name, &*given.value)).collect();
        assert_eq!(values, [("A", "unit"), ("B", "unit"), ("C", "run"), ("D", "run")]);
    }

    #[test]
    fn other_sections_do_not_count() {
        let set =
            set_by("[Unit]\nEnvironment=HTTP_PROXY=x\n[Service]\n# Environment=HTTP_PROXY=y\n");
        assert!(set.is_empty());
    }
}
