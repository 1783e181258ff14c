//! A mirror in a folder of the agent's host, in the layout that `terraform
//! providers mirror` makes: `HOST/NAMESPACE/NAME/`, with packages in it or, for
//! each version, a folder of each platform.

use std::fs::{self, DirEntry, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::archive::Archive;
use crate::trusted;

/// All of one provider that a mirror has for a platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mirrored {
    /// `HOST/NAMESPACE/NAME`.
    pub address: String,
    /// Another one when something of it has changed.
    pub fingerprint: String,
    /// Below `folder`.
    files: Vec<PathBuf>,
    folder: PathBuf,
}

/// The packages in the mirror `folder` for `platform` (`linux_amd64`).
///
/// # Errors
/// The folder can't be read, somebody but `owner` and root can change something
/// in it, or there are symbolic links in it.
pub(super) fn look(folder: &Path, platform: &str, owner: u32) -> Result<Vec<Mirrored>> {
    let in_mirror = || format!("the mirror of providers in {} can't be used", folder.display());
    let folder = fs::canonicalize(folder).with_context(in_mirror)?;
    trusted::check(&folder, owner).with_context(in_mirror)?;
    let look = Look { folder: &folder, platform, owner };
    look.providers().with_context(in_mirror)
}

impl Mirrored {
    /// Writes a tar archive of it, and gives how many bytes that are, headers
    /// aside.
    ///
    /// # Errors
    /// It can't be read, or changes meanwhile.
    pub(super) fn pack(&self, into: impl Write) -> Result<u64> {
        let mut archive = Archive::new(into);
        let mut bytes = 0;
        for path in &self.files {
            let cannot = || format!("cannot read {}", self.folder.join(path).display());
            let file = File::open(self.folder.join(path)).with_context(cannot)?;
            let size = file.metadata().with_context(cannot)?.len();
            let path = path.to_str().context("a name is not UTF-8").with_context(cannot)?;
            archive.file(path, 0o755, size, file).with_context(cannot)?;
            bytes += size;
        }
        archive.finish().context("cannot end the archive")?;
        Ok(bytes)
    }
}

struct Look<'a> {
    folder: &'a Path,
    platform: &'a str,
    owner: u32,
}

impl Look<'_> {
    fn providers(&self) -> Result<Vec<Mirrored>> {
        let mut all = Vec::new();
        for host in self.folders(self.folder)? {
            for namespace in self.folders(&host)? {
                for name in self.folders(&namespace)? {
                    all.extend(self.provider(&name)?);
                }
            }
        }
        Ok(all)
    }

    /// None if there is nothing of it for this platform.
    fn provider(&self, name: &Path) -> Result<Option<Mirrored>> {
        let mut files = Vec::new();
        let package = format!("_{}.zip", self.platform);
        for (entry, is_folder) in self.entries(name)? {
            let path = entry.path();
            if is_folder {
                for (entry, is_folder) in self.entries(&path)? {
                    if is_folder && entry.file_name() == self.platform {
                        self.all_below(&entry.path(), &mut files)?;
                    }
                }
            } else if entry.file_name().to_string_lossy().ends_with(&package) {
                files.push(path);
            }
        }
        if files.is_empty() {
            return Ok(None);
        }
        files.sort();
        let mut hash = Sha256::new();
        let mut inside = Vec::new();
        for path in files {
            let about = fs::metadata(&path).with_context(|| format!("{}", path.display()))?;
            let path = path.strip_prefix(self.folder)?.to_owned();
            let times = (about.mtime(), about.mtime_nsec());
            hash.update(format!("{path:?} {} {times:?}\n", about.len()));
            inside.push(path);
        }
        let address = name.strip_prefix(self.folder)?.to_str().context("a name is not UTF-8")?;
        Ok(Some(Mirrored {
            address: address.to_owned(),
            fingerprint: hex::encode(hash.finalize()),
            files: inside,
            folder: self.folder.to_owned(),
        }))
    }

    fn all_below(&self, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
        for (entry, is_folder) in self.entries(folder)? {
            if is_folder {
                self.all_below(&entry.path(), files)?;
            } else {
                files.push(entry.path());
            }
        }
        Ok(())
    }

    fn folders(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = self.entries(folder)?.into_iter();
        Ok(entries.filter(|(_, is_folder)| *is_folder).map(|(entry, _)| entry.path()).collect())
    }

    /// What is in a folder, and whether that is a folder; hidden ones are left out.
    fn entries(&self, folder: &Path) -> Result<Vec<(DirEntry, bool)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let path = entry.path();
            // Of the entry itself, not of what it leads to.
            let about = entry.metadata().with_context(|| format!("{}", path.display()))?;
            if about.is_symlink() {
                bail!("{} is a symbolic link: put there what it leads to", path.display());
            }
            trusted::check_inside(&path, &about, self.owner)?;
            all.push((entry, about.is_dir()));
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const NULL: &str = "registry.terraform.io/hashicorp/null";

    fn mirror() -> tempfile::TempDir {
        let mirror = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("null/terraform-provider-null_3.2.1_linux_amd64.zip", "zip"),
            ("null/terraform-provider-null_3.2.1_darwin_arm64.zip", "zip"),
            ("null/index.json", "{}"),
            ("local/2.4.0/linux_amd64/terraform-provider-local_v2.4.0", "program"),
            ("local/2.4.0/linux_arm64/terraform-provider-local_v2.4.0", "program"),
            ("other/1.0.0/linux_arm64/terraform-provider-other", "program"),
        ] {
            let file = mirror.path().join("registry.terraform.io/hashicorp").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        mirror
    }

    fn found(mirror: &Path) -> Result<Vec<Mirrored>> {
        let mut found = look(mirror, "linux_amd64", users::get_effective_uid())?;
        found.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(found)
    }

    #[test]
    fn what_is_for_this_platform_is_found_in_both_layouts() {
        let mirror = mirror();
        let found = found(mirror.path()).unwrap();
        let addresses: Vec<_> = found.iter().map(|mirrored| mirrored.address.as_str()).collect();
        assert_eq!(addresses, ["registry.terraform.io/hashicorp/local", NULL]);
        let mut tar = Vec::new();
        assert_eq!(found[1].pack(&mut tar).unwrap(), 3);
        let mut archive = tar::Archive::new(tar.as_slice());
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        let path = format!("{NULL}/terraform-provider-null_3.2.1_linux_amd64.zip");
        assert_eq!(last.path().unwrap().to_str(), Some(path.as_str()));
    }

    #[test]
    fn a_change_is_another_fingerprint() {
        let mirror = mirror();
        let before = found(mirror.path()).unwrap();
        let package =
            mirror.path().join(NULL).join("terraform-provider-null_3.2.1_linux_amd64.zip");
        fs::write(package, "another zip").unwrap();
        let after = found(mirror.path()).unwrap();
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1].fingerprint, after[1].fingerprint);
    }

    #[test]
    fn what_others_can_change_and_links_are_refused() {
        let mirror = mirror();
        let program = mirror
            .path()
            .join("registry.terraform.io/hashicorp/local/2.4.0/linux_amd64")
            .join("terraform-provider-local_v2.4.0");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
        let error = format!("{:#}", found(mirror.path()).unwrap_err());
        assert!(error.contains("can be written by others than root"), "{error}");
        fs::remove_file(&program).unwrap();
        std::os::unix::fs::symlink("/bin/true", &program).unwrap();
        let error = format!("{:#}", found(mirror.path()).unwrap_err());
        assert!(error.contains("is a symbolic link"), "{error}");
    }
}
