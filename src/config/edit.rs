//! Changing `agent.toml`: what is not named stays as it is, comments too.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use toml_edit::{DocumentMut, Item, Value};

use super::{Key, Settings, layout};
use cli::Failure;
use cli::untrusted_file;
use cli::whole_file::WholeFile;

/// A setting's new value, as given on a command line; none takes it out.
pub type Change = (&'static Key, Option<String>);

/// The text of the settings' file; none if there is no file.
///
/// # Errors
/// It can't be read; it is a link that leads nowhere, with whose file settings would be lost.
pub fn read(file: &Path) -> Result<Option<String>> {
    let cannot = || format!("cannot read {}", file.display());
    match untrusted_file::read_text(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(file) {
            Ok(target) => bail!(
                "{}: it is a symbolic link to {}, which is not there\n\
                 Bring that file back, or remove the link to begin with new settings.",
                cannot(),
                target.display()
            ),
            Err(_) => Ok(None),
        },
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(Failure::NotPermitted.because(format!("{}: {error}; run this as root", cannot())))
        }
        Err(error) => Err(error).with_context(cannot),
    }
}

/// `text` with the changes in it; the result is checked as a whole.
///
/// # Errors
/// `text` is not TOML, or a value of the result is not of its kind or out of
/// range.
pub fn apply(text: &str, changes: &[Change]) -> Result<String> {
    // Not the parser's own display: it quotes the line, which may hold the token.
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        Failure::Usage.because(format!("not TOML: {}", error.message()))
    })?;
    for (key, text) in changes {
        match text {
            Some(text) => set(&mut document, key, text)?,
            None => drop(document.remove(key.name)),
        }
    }
    let text = document.to_string();
    Settings::parse(&text)?.check()?;
    Ok(text)
}

/// Writes the settings' file: whole or not at all, readable by root and the
/// agent's group, or by its owner alone where there is no such group.
///
/// # Errors
/// The file or its directory can't be written.
pub fn write(file: &Path, text: &str) -> Result<()> {
    let describe = || format!("cannot write {}", file.display());
    let directory = file.parent().with_context(describe)?;
    fs::create_dir_all(directory).with_context(describe)?;
    let new = WholeFile::at(file);
    let group = users::get_group_by_name(layout::AGENT);
    match group.filter(|_| users::get_effective_uid() == 0) {
        Some(group) => new.owner(0, group.gid()).mode(0o640).write(text),
        None => new.write(text),
    }
}

fn set(document: &mut DocumentMut, key: &Key, text: &str) -> Result<()> {
    let mut value = match key.value(&format!("--{}", key.option()), text)? {
        toml::Value::String(text) => Value::from(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => Value::from(number),
        toml::Value::Boolean(flag) => Value::from(flag),
        other => unreachable!("no setting is a {}", other.type_str()),
    };
    match document.get_mut(key.name).and_then(Item::as_value_mut) {
        // In place, so that a comment at the line's end stays.
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => drop(document.insert(key.name, Item::Value(value))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn change(name: &str, value: &str) -> Change {
        (Key::named(name).unwrap(), Some(value.to_owned()))
    }

    #[test]
    fn what_is_not_named_stays_comments_too() {
        let old = "# ours\nurl = \"https://a.example\"\nmemory = 256 # small\n";
        let changes = [change("memory", "1024"), change("user", "root")];
        assert_eq!(
            apply(old, &changes).unwrap(),
            "# ours\nurl = \"https://a.example\"\nmemory = 1024 # small\nuser = \"root\"\n"
        );
        assert_eq!(
            apply(old, &[(Key::named("memory").unwrap(), None)]).unwrap(),
            "# ours\nurl = \"https://a.example\"\n"
        );
    }

    #[test]
    fn a_link_is_read_and_one_that_leads_nowhere_is_no_missing_file() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(read(&at("agent.toml")).unwrap(), None);
        std::os::unix::fs::symlink("real.toml", at("agent.toml")).unwrap();
        let error = read(&at("agent.toml")).unwrap_err().to_string();
        assert!(error.contains("is a symbolic link to real.toml, which is not there"), "{error}");
        fs::write(at("real.toml"), "memory = 64\n").unwrap();
        assert_eq!(read(&at("agent.toml")).unwrap().as_deref(), Some("memory = 64\n"));
    }

    #[test]
    fn a_wrong_value_is_refused_by_its_option() {
        let error = apply("", &[change("concurrency", "many")]).unwrap_err();
        assert_eq!(error.to_string(), "--concurrency should be a whole number, not `many`");
        let error = apply("", &[change("url", "pools.example.com")]).unwrap_err();
        assert!(error.to_string().starts_with("`url`: "), "{error}");
        assert_eq!(Failure::of(&error), Failure::Usage);
    }

    #[test]
    fn a_broken_file_is_left_alone_and_its_token_unseen() {
        let error = apply("token = \"hunter2\nx", &[change("memory", "64")]).unwrap_err();
        assert!(!format!("{error:#}").contains("hunter2"), "{error:#}");
    }

    #[test]
    fn the_file_is_not_readable_by_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("etc/agent.toml");
        write(&file, "memory = 64\n").unwrap();
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0);
        assert_eq!(fs::read_to_string(&file).unwrap(), "memory = 64\n");
    }
}
