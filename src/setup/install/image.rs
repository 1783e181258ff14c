//! Whether the image of the settings exists, before the agent takes runs.

use anyhow::Result;

use crate::status::AGENT_PROGRAM;
use cli::Failure;
use cli::eprintln;
use host::command::{CommandExt as _, within};

/// Asks the installed agent, which asks the engine and by it the registry. Where they do not
/// answer, a warning says so.
///
/// # Errors
/// There is no such image (2).
pub(super) fn check() -> Result<()> {
    judge(AGENT_PROGRAM)
}

fn judge(program: &str) -> Result<()> {
    const MISSING: i32 = 1;
    let output = within(60, program).arg("check-image").probe()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim().trim_start_matches("error: ");
    match output.status.code() {
        Some(0) => Ok(()),
        Some(MISSING) => Err(Failure::Usage.because(said)),
        // An older agent does not have this command, and says a lot about that.
        Some(2) => Ok(()),
        _ => {
            eprintln!("warning: {said}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_programs;

    #[test]
    fn only_an_image_that_is_known_to_be_missing_ends_an_installation() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("agent");
        let judged = |script: &str| {
            test_programs::write(&program, script);
            judge(program.to_str().unwrap())
        };
        let error = judged("echo \"error: $1: no such image\" >&2; exit 1").unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Usage);
        assert_eq!(error.to_string(), "check-image: no such image");
        for code in [0, 2, 4, 124] {
            judged(&format!("exit {code}")).unwrap();
        }
    }
}
