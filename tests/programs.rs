//! Programs that a test makes and starts.
//!
//! Another process writes them: a program that this one has open for writing can't be started,
//! and until it starts its own program, a child that another thread has just forked has open
//! whatever this process had (ETXTBSY, "Text file busy").

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a script that anybody may execute.
///
/// # Panics
/// It can't be written.
pub fn write(path: &Path, script: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().expect("install can be started");
    let mut input = install.stdin.take().expect("its input is a pipe");
    input.write_all(script.as_bytes()).expect("install reads the script");
    drop(input);
    assert!(install.wait().expect("install ends").success(), "{}", path.display());
}

/// Copies a program.
///
/// # Panics
/// It can't be copied.
pub fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().expect("cp can be started");
    assert!(copied.success(), "{}", to.display());
}
