//! The machine that is worked on: this one, or a directory tree.

use std::path::{Path, PathBuf};

/// The machine that is worked on.
///
/// With a root other than `/` it is an image, a chroot or a test's directory:
/// files are written there and services are left alone.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose file system starts at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where the machine's absolute path `path` is for us. In a directory tree, symbolic
    /// links and `..` lead where they would in a chroot of it, never out of it; nothing may
    /// change the tree meanwhile.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        if self.is_this_one() {
            return self.root.join(path);
        }
        match safe_path::scoped_resolve(&self.root, path) {
            Ok(below) => self.root.join(below),
            Err(_) if !self.root.exists() => self.root.join(path.strip_prefix("/").unwrap_or(path)),
            // Links in a circle. Nothing is below a device, so that every use of this path
            // fails, and its error shows why.
            Err(error) => Path::new("/dev/null").join(error.to_string()),
        }
    }

    /// As [`Self::path`], except that a symbolic link at `path` itself is not followed: for
    /// what replaces, removes or looks at the link.
    pub fn entry(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => self.path(parent).join(name),
            _ => self.path(path),
        }
    }

    /// Whether this is the machine we run on, not a directory tree.
    pub fn is_this_one(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Whether services can be started and reloaded: systemd is process 1 here.
    ///
    /// The directory is what `sd_booted(3)` looks at.
    pub fn has_running_systemd(&self) -> bool {
        self.is_this_one() && Path::new("/run/systemd/system").is_dir()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree with these links, and with the file `/data/hosts`.
    fn tree(links: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["etc", "data"] {
            fs::create_dir(folder.path().join(directory)).unwrap();
        }
        fs::write(folder.path().join("data/hosts"), "").unwrap();
        for (link, target) in links {
            symlink(target, folder.path().join(link)).unwrap();
        }
        let machine = Machine::at(folder.path());
        (folder, machine)
    }

    #[test]
    fn paths_are_below_the_root() {
        let (folder, machine) = tree(&[]);
        assert_eq!(machine.path("/etc/hosts"), folder.path().join("etc/hosts"));
        assert_eq!(machine.path("/"), folder.path());
        assert_eq!(machine.path("/../../etc/hosts"), folder.path().join("etc/hosts"));
        assert_eq!(Machine::at("/").path("/etc/hosts"), Path::new("/etc/hosts"));
        assert_eq!(Machine::at("/no/tree").path("/etc/hosts"), Path::new("/no/tree/etc/hosts"));
    }

    #[test]
    fn links_lead_where_they_would_in_a_chroot() {
        let (folder, machine) = tree(&[
            ("etc/absolute", "/data/hosts"),
            ("etc/up", "../../../../../data/hosts"),
            ("etc/folder", "/data"),
            ("etc/chain", "folder/../etc/up"),
            ("etc/dangling", "/srv/missing"),
        ]);
        for name in ["absolute", "up", "folder/hosts", "chain"] {
            let path = machine.path(format!("/etc/{name}"));
            assert_eq!(path, folder.path().join("data/hosts"), "{name}");
        }
        assert_eq!(machine.path("/etc/dangling"), folder.path().join("srv/missing"));
        assert_eq!(machine.path("/etc/dangling/x"), folder.path().join("srv/missing/x"));
    }

    #[test]
    fn a_link_itself_is_found_where_it_is() {
        let (folder, machine) = tree(&[("etc/folder", "/data"), ("data/link", "/etc/passwd")]);
        assert_eq!(machine.entry("/etc/folder"), folder.path().join("etc/folder"));
        assert_eq!(machine.entry("/etc/folder/link"), folder.path().join("data/link"));
        assert_eq!(machine.entry("/"), folder.path());
    }

    #[test]
    fn links_in_a_circle_give_a_path_that_every_use_refuses() {
        let (_folder, machine) = tree(&[("etc/a", "/etc/b"), ("etc/b", "/etc/a")]);
        for path in [machine.path("/etc/a"), machine.path("/etc/a/x"), machine.entry("/etc/a/x")] {
            assert!(path.starts_with("/dev/null"), "{}", path.display());
            assert!(path.to_str().unwrap().contains("Too many levels"), "{}", path.display());
            assert!(fs::write(&path, "").is_err() && fs::create_dir_all(&path).is_err());
        }
    }

    #[test]
    fn a_root_of_links_is_no_other_root() {
        let (folder, _) = tree(&[("etc/absolute", "/data/hosts")]);
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        symlink(folder.path(), &root).unwrap();
        let found = Machine::at(&root).path("/etc/absolute");
        assert_eq!(found, root.join("data/hosts"));
        assert!(found.exists());
    }
}
