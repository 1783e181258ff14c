//! The packages' scripts, which run on hosts whose sh is dash, bash 4.2 or
//! busybox.

use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn a_plain_sh_can_parse_every_script() {
    for script in scripts() {
        let output = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(output.status.success(), "{}: {output:?}", script.display());
    }
}

/// shellcheck reads whatever names its shell; `scripts/test` runs it.
#[test]
fn every_script_says_that_it_is_posix_sh() {
    for script in scripts() {
        let text = std::fs::read_to_string(&script).unwrap();
        let first = text.lines().next().unwrap_or_default();
        assert!(["#!/bin/sh", "# shellcheck shell=sh"].contains(&first), "{}", script.display());
    }
}

#[test]
fn an_unknown_step_changes_nothing() {
    let maintain = source("pkg/usr/lib/scalr-agent/maintain");
    let output = Command::new("sh").arg(maintain).arg("instaled").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

fn scripts() -> Vec<PathBuf> {
    let mut scripts =
        vec![source("pkg/usr/lib/scalr-agent/maintain"), source("scripts/install.sh")];
    for folder in ["pkg/deb", "pkg/rpm"] {
        let entries = std::fs::read_dir(source(folder)).unwrap();
        scripts.extend(entries.map(|entry| entry.unwrap().path()));
    }
    assert!(scripts.len() >= 8, "{scripts:?}");
    scripts
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
