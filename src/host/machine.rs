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

    /// Where the machine's absolute path `path` is for us.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The directory that stands for `/`.
    pub fn root(&self) -> &Path {
        &self.root
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
    use super::*;

    #[test]
    fn paths_are_below_the_root() {
        let machine = Machine::at("/srv/image");
        assert_eq!(machine.path("/etc/hosts"), Path::new("/srv/image/etc/hosts"));
        assert_eq!(Machine::at("/").path("/etc/hosts"), Path::new("/etc/hosts"));
    }
}
