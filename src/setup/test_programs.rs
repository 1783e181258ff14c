//! Programs that a test makes and starts.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes a shell script that anybody may execute.
///
/// Another process does: a program that this one has open for writing can't be started, and
/// until it starts its own program, a child that another thread has just forked has open
/// whatever this process had (ETXTBSY, "Text file busy").
pub(crate) fn write(path: &Path, script: &str) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut install = install.spawn().unwrap();
    install.stdin.take().unwrap().write_all(format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
    assert!(install.wait().unwrap().success());
}
