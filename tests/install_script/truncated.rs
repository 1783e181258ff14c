//! A script that was cut off on its way runs nothing.

use std::fs;
use std::io::{Write as _, pipe};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::host::{SHELLS, script_file};

/// What a shell runs of the first bytes of the script when it reads them from a
/// pipe: with -x it names each command on standard error before it runs it, be it
/// a program, a function, a builtin or an assignment.
fn commands_run(shell: &[&str], script: &[u8], empty: &Path) -> String {
    let (input, mut writer) = pipe().unwrap();
    // All of it fits into a pipe.
    writer.write_all(script).unwrap();
    drop(writer);
    let output = Command::new(which::which(shell[0]).unwrap())
        .args(&shell[1..])
        .args(["-x", "-s", "--", "--help"])
        .env_clear()
        .env("PATH", empty)
        .stdin(Stdio::from(input))
        .output()
        .unwrap();
    assert!(output.stdout.is_empty() || output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.starts_with('+')).collect()
}

#[test]
fn cut_after_any_byte_it_runs_nothing() {
    let script = fs::read(script_file()).unwrap();
    assert!(script.len() < 65536, "no more than a pipe holds");
    // The last byte is a newline, without which it is whole.
    let last = script.len() - 2;
    let empty = tempfile::tempdir().unwrap();
    let workers = thread::available_parallelism().map_or(2, usize::from);
    let (script, empty) = (&script, empty.path());
    thread::scope(|scope| {
        for worker in 0..workers {
            scope.spawn(move || {
                for length in (worker..=last).step_by(workers) {
                    let run = commands_run(&["dash"], &script[..length], empty);
                    assert_eq!(run, "", "cut after {length} bytes");
                }
            });
        }
    });
    for shell in SHELLS {
        for length in (0..=last).rev().step_by(211) {
            let run = commands_run(shell, &script[..length], empty);
            assert_eq!(run, "", "cut after {length} bytes, in {shell:?}");
        }
        // Whole, it runs; else this would prove nothing.
        let run = commands_run(shell, script, empty);
        assert!(run.contains("main --help"), "{shell:?}: {run}");
    }
}
