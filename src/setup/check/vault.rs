//! CentOS 7 and 8 are past their end of life: their mirrors are gone, and what they
//! served has moved to the vault for good.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use configparser::ini::Ini;

use cli::untrusted_file;
use host::command::CommandExt as _;
use host::machine::Machine;
use host::os::Os;

pub(super) const VAULT: &str = "vault.centos.org";

/// By which nothing is served any more.
const GONE: [&str; 2] = ["//mirrorlist.centos.org", "//mirror.centos.org"];

/// CentOS's own repositories that an installation needs.
const OWN: [&str; 5] = ["base", "updates", "extras", "baseos", "appstream"];

const REPOSITORIES: &str = "/etc/yum.repos.d";

/// One of CentOS's own repositories that asks the mirrors alone.
#[derive(Debug)]
pub(super) struct Dead {
    pub id: String,
    pub enabled: bool,
    file: PathBuf,
}

/// CentOS's own repositories, enabled or not, that have no other source than the mirrors.
///
/// # Errors
/// A definition can't be read.
pub(super) fn dead_repositories(machine: &Machine) -> Result<Vec<Dead>> {
    let mut dead = Vec::new();
    for (file, definitions) in definitions(machine)? {
        for id in definitions.sections() {
            let sources: Vec<String> = ["mirrorlist", "metalink", "baseurl"]
                .iter()
                .filter_map(|name| definitions.get(&id, name))
                .flat_map(|urls| urls.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            let is_gone = |url: &String| GONE.iter().any(|host| url.contains(host));
            if OWN.contains(&id.as_str()) && !sources.is_empty() && sources.iter().all(is_gone) {
                let enabled =
                    definitions.get(&id, "enabled").is_none_or(|value| value.trim() != "0");
                dead.push(Dead { id, enabled, file: file.clone() });
            }
        }
    }
    dead.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(dead)
}

/// The definitions of repositories by their files, in order.
fn definitions(machine: &Machine) -> Result<BTreeMap<PathBuf, Ini>> {
    let Ok(entries) = fs::read_dir(machine.path(REPOSITORIES)) else { return Ok(BTreeMap::new()) };
    let mut found = BTreeMap::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {REPOSITORIES}"))?;
        let name = Path::new(REPOSITORIES).join(entry.file_name());
        let file = machine.path(&name);
        if name.extension().is_some_and(|extension| extension == "repo") {
            let mut definitions = Ini::new_cs();
            let text = untrusted_file::read_text(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            definitions
                .read(text)
                .map_err(|error| anyhow!("cannot understand {}: {error}", file.display()))?;
            found.insert(file, definitions);
        }
    }
    Ok(found)
}

/// The commands, one for each file, that make dead repositories fetch from the vault.
/// Each keeps a copy of the file, which yum does not read, and changes nothing of the
/// other repositories in it.
pub(super) fn move_to_the_vault(os: &Os, dead: &[Dead]) -> Vec<String> {
    let mut by_file: BTreeMap<&Path, Vec<&str>> = BTreeMap::new();
    for repository in dead {
        by_file.entry(&repository.file).or_default().push(&repository.id);
    }
    by_file.into_iter().map(|(file, ids)| edit(os, file, &ids)).collect()
}

fn edit(os: &Os, file: &Path, ids: &[&str]) -> String {
    // What the files name, and what the vault calls it.
    let moved: &[(&str, &str)] = if os.major() == 7 {
        &[
            (r"centos/\(\$releasever\|7\)/", "7.9.2009/"),
            (r"altarch/\(\$releasever\|7\)/", "altarch/7.9.2009/"),
        ]
    } else {
        &[(r"\$contentdir/\$releasever/", "8.5.2111/"), (r"\$contentdir/\$stream/", "8-stream/")]
    };
    let mut substitutions = "s,^mirrorlist=,#mirrorlist=,".to_owned();
    for (old, new) in moved {
        substitutions += &format!(
            ";s,^#* *baseurl=http://mirror.centos.org/{old},baseurl=http://{VAULT}/{new},"
        );
    }
    let mut sed = Command::new("sed");
    sed.arg("-i");
    for id in ids {
        sed.args(["-e", &format!(r"/^\[{id}\]/,/^\[/{{{substitutions}}}")]);
    }
    let mut copy = Command::new("cp");
    copy.args(["-p", "-n"]).arg(file).arg(format!("{}.before-vault", file.display()));
    format!("{} && {}", copy.line(), sed.arg(file).line())
}

/// The command that adds the repository with container-selinux where somebody removed
/// it, unless its id is taken: only CentOS's is open to all and will never move again.
///
/// # Errors
/// A definition can't be read.
pub(super) fn put_back(machine: &Machine, os: &Os) -> Result<Option<String>> {
    let (id, name, folder, key) = match (os.id.as_str(), os.major(), std::env::consts::ARCH) {
        ("centos", 7, "aarch64") => {
            ("extras", "Extras", "altarch/7.9.2009/extras/$basearch/", "CentOS-7")
        }
        ("centos", 7, _) => ("extras", "Extras", "7.9.2009/extras/$basearch/", "CentOS-7"),
        ("centos", 8, _) if !os.name.contains("Stream") => {
            ("appstream", "AppStream", "8.5.2111/AppStream/$basearch/os/", "centosofficial")
        }
        _ => return Ok(None),
    };
    let is_defined = |definitions: &Ini| definitions.sections().iter().any(|name| name == id);
    if definitions(machine)?.values().any(is_defined) {
        return Ok(None);
    }
    Ok(Some(format!(
        r"printf '[{id}]\nname=CentOS - {name}\nbaseurl=http://{VAULT}/{folder}\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-{key}\n' >/etc/yum.repos.d/CentOS-{name}-Vault.repo"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn centos(version: &str) -> Os {
        let text = ["ID=centos".to_owned(), format!("VERSION_ID={version}")];
        Os::from(text.into_iter().collect::<os_release::OsRelease>())
    }

    fn with_file(text: &str) -> (tempfile::TempDir, Machine, PathBuf) {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let file = machine.path(REPOSITORIES).join("CentOS-Base.repo");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        (tree, machine, file)
    }

    fn fix(os: &Os, machine: &Machine) -> Vec<String> {
        let commands = move_to_the_vault(os, &dead_repositories(machine).unwrap());
        for line in &commands {
            assert!(Command::new("sh").args(["-c", line]).status().unwrap().success(), "{line}");
        }
        commands
    }

    #[test]
    fn the_fix_changes_each_dead_repository_and_keeps_a_copy() {
        for (version, before, after) in [
            (
                "7",
                "[base]\nmirrorlist=http://mirrorlist.centos.org/?release=$releasever&repo=os\n\
                 #baseurl=http://mirror.centos.org/centos/$releasever/os/$basearch/\n\
                 [updates]\nbaseurl=http://mirror.centos.org/centos/7/updates/$basearch/\n\
                 [extras]\nenabled=0\nmirrorlist=http://mirrorlist.centos.org/?repo=extras\n\
                 # baseurl=http://mirror.centos.org/altarch/$releasever/extras/$basearch/\n",
                "[base]\n#mirrorlist=http://mirrorlist.centos.org/?release=$releasever&repo=os\n\
                 baseurl=http://vault.centos.org/7.9.2009/os/$basearch/\n\
                 [updates]\nbaseurl=http://vault.centos.org/7.9.2009/updates/$basearch/\n\
                 [extras]\nenabled=0\n#mirrorlist=http://mirrorlist.centos.org/?repo=extras\n\
                 baseurl=http://vault.centos.org/altarch/7.9.2009/extras/$basearch/\n",
            ),
            (
                "8",
                "[appstream]\nmirrorlist=http://mirrorlist.centos.org/?repo=AppStream\n\
                 #baseurl=http://mirror.centos.org/$contentdir/$releasever/AppStream/os/\n\
                 [baseos]\nmirrorlist=http://mirrorlist.centos.org/?repo=BaseOS\n\
                 #baseurl=http://mirror.centos.org/$contentdir/$stream/BaseOS/os/\n",
                "[appstream]\n#mirrorlist=http://mirrorlist.centos.org/?repo=AppStream\n\
                 baseurl=http://vault.centos.org/8.5.2111/AppStream/os/\n\
                 [baseos]\n#mirrorlist=http://mirrorlist.centos.org/?repo=BaseOS\n\
                 baseurl=http://vault.centos.org/8-stream/BaseOS/os/\n",
            ),
        ] {
            let (_tree, machine, file) = with_file(before);
            assert_eq!(fix(&centos(version), &machine).len(), 1);
            assert_eq!(fs::read_to_string(&file).unwrap(), after);
            let copy = file.with_file_name("CentOS-Base.repo.before-vault");
            assert_eq!(fs::read_to_string(copy).unwrap(), before);
            assert_eq!(fix(&centos(version), &machine), [""; 0], "what is fixed stays");
        }
    }

    #[test]
    fn a_repository_of_ones_own_is_not_touched() {
        let own = "[base]\nbaseurl=http://mirror.example.com/centos/7/os/\n\
                   #mirrorlist=http://mirrorlist.centos.org/?repo=os\n\
                   #baseurl=http://mirror.centos.org/centos/$releasever/os/$basearch/\n\
                   [updates]\nmirrorlist=http://mirrorlist.centos.org/?repo=updates\n\
                   baseurl=http://mirror.example.com/centos/7/updates/\n";
        let (_tree, machine, file) = with_file(own);
        assert!(dead_repositories(&machine).unwrap().is_empty());
        // Beside a dead one, in one file.
        let dead = "[extras]\nmirrorlist=http://mirrorlist.centos.org/?repo=extras\n\
                    #baseurl=http://mirror.centos.org/centos/$releasever/extras/$basearch/\n";
        fs::write(&file, format!("{dead}{own}")).unwrap();
        fix(&centos("7"), &machine);
        let fixed = fs::read_to_string(&file).unwrap();
        assert!(
            fixed.ends_with(own) && fixed.contains("vault.centos.org/7.9.2009/extras"),
            "{fixed}"
        );
        // Somebody else's that names CentOS's mirrors.
        fs::write(&file, "[thirdparty]\nmirrorlist=http://mirrorlist.centos.org/?repo=x\n")
            .unwrap();
        assert!(dead_repositories(&machine).unwrap().is_empty());
    }

    #[test]
    fn a_repository_is_put_back_only_where_its_id_is_free() {
        let (_tree, machine, file) = with_file("[base]\nbaseurl=http://mirror.example.com/\n");
        let command = put_back(&machine, &centos("7")).unwrap().unwrap();
        assert!(command.starts_with("printf '[extras]\\n"), "{command}");
        fs::write(&file, "[extras]\nenabled=0\nbaseurl=http://mirror.example.com/\n").unwrap();
        assert_eq!(put_back(&machine, &centos("7")).unwrap(), None);
    }
}
