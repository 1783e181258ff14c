//! What is in an archive and in no run: what Terraform wrote where the archive was made.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Whether the entry at `path` is left out; gives what people know that as.
///
/// Left out is `.terraform`, but not the modules in it: hashicorp/go-slug, which packs
/// configurations for `terraform` itself, has the same rule. Left out are the state files
/// of `directory`, where Terraform is started, too: a run has its workspace's state.
pub fn is_left_out(path: &Path, directory: Option<&Path>) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    let mut names = path.iter().peekable();
    while let Some(name) = names.next() {
        at.push(name);
        let is_state = || directory.is_some() && at.parent() == directory && is_state_file(name);
        let is_dot_terraform = name == ".terraform" && names.peek() != Some(&OsStr::new("modules"));
        if is_dot_terraform || is_state() {
            return Some(at);
        }
    }
    None
}

/// Those of Terraform's local state, and of its workspaces.
fn is_state_file(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_backup = name.starts_with("terraform.tfstate.") && name.ends_with(".backup");
    is_backup
        || ["terraform.tfstate", "terraform.tfstate.d", "errored.tfstate"].contains(&name)
        || name == ".terraform.tfstate.lock.info"
}
