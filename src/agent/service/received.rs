//! What the server sends becomes paths, and names of containers: it is checked before.

use anyhow::{Result, bail};

use protocol::Claimed;

/// Checks that a claim's answer is about what was claimed, and names nothing but what it
/// should.
///
/// # Errors
/// It is not, or it does.
pub(super) fn check(claimed: &Claimed, task_id: &str, attempt: u32) -> Result<()> {
    let task = &claimed.task;
    if (task.id.as_str(), task.attempt) != (task_id, attempt) {
        bail!("the server answered with attempt {} at task {:?}", task.attempt, task.id);
    }
    for id in [&task.id, &task.run_id, &task.workspace.id, &task.environment.id] {
        if !is_id(id) {
            bail!("the server sent an id that is none: {id:?}");
        }
    }
    match &task.image_id {
        Some(id) if !is_image_id(id) => bail!("the server sent an image id that is none: {id:?}"),
        _ => Ok(()),
    }
}

/// Whether a text is an id such as `task-0a1b2c`.
pub(super) fn is_id(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
}

fn is_image_id(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|digest| digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tests::claimed;

    const BAD: [&str; 10] =
        ["", ".", "..", "../x", "a/b", "/etc", "-rm", "task 1", "task-1\n", "task-1\0"];

    #[test]
    fn an_id_that_could_lead_elsewhere_is_none() {
        for id in BAD.into_iter().chain([&*"a".repeat(101), "tásk-1", "%2e%2e"]) {
            assert!(!is_id(id), "{id:?}");
        }
        for id in ["task-0a1b2c", "task_1", "1", &*"a".repeat(100)] {
            assert!(is_id(id), "{id:?}");
        }
    }

    #[test]
    fn a_claim_is_refused_that_is_about_something_else_or_has_a_bad_id() {
        assert!(check(&claimed(), "task-1", 1).is_ok());
        assert!(check(&claimed(), "task-2", 1).is_err());
        assert!(check(&claimed(), "task-1", 2).is_err());
        for bad in BAD {
            let mut claims = [claimed(), claimed(), claimed(), claimed(), claimed()];
            claims[0].task.id = bad.to_owned();
            claims[1].task.run_id = bad.to_owned();
            claims[2].task.workspace.id = bad.to_owned();
            claims[3].task.environment.id = bad.to_owned();
            claims[4].task.image_id = Some(bad.to_owned());
            for claim in claims {
                assert!(check(&claim, &claim.task.id, 1).is_err(), "{bad:?}: {claim:?}");
            }
        }
        let mut claim = claimed();
        claim.task.image_id = Some(format!("sha256:{}", "a".repeat(64)));
        assert!(check(&claim, "task-1", 1).is_ok());
    }
}
