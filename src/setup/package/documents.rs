//! Manual pages and completions: each program writes its own.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::stage::Stage;
use cli::Failure;
use host::command::CommandExt as _;

/// Has `program` write its pages and completions into the stage.
///
/// # Errors
/// This machine can't run it, since it is for another processor; it fails.
pub(super) fn add(program: &Path, stage: &Stage) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("documents").arg(stage.path(""));
    let done = match command.output() {
        Ok(done) => done,
        Err(error) if is_foreign(&error) => {
            return Err(Failure::NotInstalled.because(format!(
                "{} writes its manual pages itself, and this machine can't run it: it is for \
                 another processor; install qemu-user-static and binfmt-support, or make the \
                 packages on such a machine",
                program.display()
            )));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot run `{}`", command.line()));
        }
    };
    anyhow::ensure!(
        done.status.success(),
        "`{}` failed: {}",
        command.line(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    compress_pages(stage)
}

/// Pages are packed as both Debian's and rpm's rules want them.
fn compress_pages(stage: &Stage) -> Result<()> {
    let folder = "usr/share/man/man1";
    for entry in fs::read_dir(stage.path(folder))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "1") {
            stage.write_compressed(&format!("{folder}/{name}.gz"), fs::read(&path)?)?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn is_foreign(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOEXEC)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(content: &[u8]) -> (tempfile::TempDir, Stage) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tool");
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        let stage = Stage::empty(&folder.path().join("stage")).unwrap();
        (folder, stage)
    }

    #[test]
    fn a_program_for_another_processor_is_refused_with_the_way_out() {
        // An ELF header whose machine nobody has.
        let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
        elf.resize(64, 0);
        elf[16] = 2;
        elf[18] = 0xfe;
        elf[19] = 0xfe;
        let (folder, stage) = program(&elf);
        let error = add(&folder.path().join("tool"), &stage).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::NotInstalled);
        assert!(error.to_string().contains("qemu-user-static"), "{error}");
    }

    #[test]
    fn pages_are_compressed() {
        let (folder, stage) = program(
            b"#!/bin/sh\nmkdir -p $2/usr/share/man/man1; echo hi >$2/usr/share/man/man1/tool.1\n",
        );
        add(&folder.path().join("tool"), &stage).unwrap();
        assert!(stage.path("usr/share/man/man1/tool.1.gz").is_file());
        assert!(!stage.path("usr/share/man/man1/tool.1").exists());
    }

    #[test]
    fn a_program_without_documents_is_an_error() {
        let (folder, stage) = program(b"#!/bin/sh\necho 'no such command' >&2; exit 2\n");
        let error = add(&folder.path().join("tool"), &stage).unwrap_err().to_string();
        assert!(error.contains("no such command"), "{error}");
    }
}
