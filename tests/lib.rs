//! Acceptance tests: each folder but `fixtures` is a test program.
//!
//! | folder | what it tests |
//! |---|---|
//! | `checkout` | the sources: which crate may depend on which, and their words |
//! | `install_script` | `scripts/install.sh`, in every shell it may meet |
//! | `machine`, `faults` | an installation, on booted machines |
//! | `packages` | what old hosts require of packages and repositories |
//! | `server` | `scalr-server` over HTTP, as a process |

use std::path::{Path, PathBuf};

pub mod programs;
pub mod workshop;

/// A file or folder of this checkout; `path` is relative to its root.
pub fn checkout(path: impl AsRef<Path>) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the checkout");
    root.join(path)
}
