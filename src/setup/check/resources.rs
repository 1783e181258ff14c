//! Memory, processors and control groups.

use super::{Outcome, Subject};
use host::memory as resources;

/// The memory of the system, the agent and the engine beside the runs, in MB.
const SYSTEM_MEMORY: u64 = 512;

/// The controllers that limit a run's memory, processors and processes.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

pub(super) fn memory(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match resources::total() {
        Ok(total) => judge_memory(total, subject.concurrency, subject.memory),
        Err(error) => Outcome::unknown(error),
    }
}

pub(super) fn cpu(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let runs = subject.concurrency as usize;
    match resources::processors() {
        Ok(found) if found < runs => Outcome::problem(format!(
            "{found} processors for {runs} runs at once: they will be slow; \
             a concurrency of {found} fits"
        )),
        Ok(found) => Outcome::Passed(format!("{found} processors for {runs} at once")),
        Err(error) => Outcome::unknown(error),
    }
}

pub(super) fn cgroups(subject: &Subject) -> Outcome {
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    match resources::cgroup_controllers() {
        Err(error) => Outcome::problem(error.to_string()),
        Ok((controllers, unified)) => {
            let missing: Vec<&str> = CONTROLLERS
                .into_iter()
                .filter(|wanted| !controllers.iter().any(|found| found == wanted))
                .collect();
            if missing.is_empty() {
                let version = if unified { 2 } else { 1 };
                return Outcome::Passed(format!(
                    "cgroups version {version} has all controllers that are needed"
                ));
            }
            Outcome::problem(format!(
                "the kernel's controllers {} are off, so runs can't be limited; look for \
                 cgroup_disable in the kernel's command line",
                missing.join(", ")
            ))
        }
    }
}

fn judge_memory(total: u64, runs: u32, each: u64) -> Outcome {
    let needed = u64::from(runs) * each;
    let fits = total.saturating_sub(SYSTEM_MEMORY) / each;
    let runs_need = format!("{runs} at once × {each} MB = {needed} MB");
    if needed > total {
        Outcome::problem(format!(
            "{total} MB of memory, but {runs_need}; a concurrency of {fits} fits"
        ))
    } else if needed + SYSTEM_MEMORY > total {
        Outcome::warning(format!(
            "{total} MB of memory, {runs_need}: that leaves {} MB for the system, which should \
             have {SYSTEM_MEMORY} MB; a concurrency of {fits} fits",
            total - needed
        ))
    } else {
        Outcome::Passed(format!(
            "{total} MB, {runs_need}, which leaves {} MB for the system",
            total - needed
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_for_the_runs_and_for_the_system() {
        assert!(matches!(judge_memory(2048, 2, 512), Outcome::Passed(_)));
        assert!(matches!(judge_memory(2048, 3, 512), Outcome::Passed(_)));
        let tight = judge_memory(2048, 4, 512);
        assert!(
            matches!(&tight, Outcome::Warning(text, _) if text.contains("of 3 fits")),
            "{tight:?}"
        );
        assert!(matches!(judge_memory(2048, 5, 512), Outcome::Problem(..)));
    }
}
