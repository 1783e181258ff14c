//! When the commands of Terraform began and ended in a run's container, for its trace.

use std::time::{Duration, SystemTime};

use tracing::debug;

use super::{Job, paths};

/// The commands that the entry point runs.
const COMMANDS: [&str; 5] = ["version", "init", "plan", "apply", "show"];

impl Job {
    /// Adds the commands to the trace, if that is sent to anybody.
    pub(super) async fn trace_commands(&self, container: &str) {
        if self.progress.trace_id().is_none() {
            return;
        }
        match self.read_left(container, paths::TIMES).await {
            Ok(times) => {
                for (command, begun, ended) in times.iter().flat_map(|times| read(times)) {
                    self.progress.step_was(command, begun, ended);
                }
            }
            Err(error) => debug!("the trace lacks the commands of the run: {error:#}"),
        }
    }
}

/// Each command once, and nothing that is not one: the run can write to the file, too.
fn read(times: &[u8]) -> Vec<(&'static str, SystemTime, SystemTime)> {
    let times = String::from_utf8_lossy(times);
    COMMANDS
        .into_iter()
        .filter_map(|command| {
            let times = times.lines().find_map(|line| line.strip_prefix(command))?;
            let (begun, ended) = times.strip_prefix(' ')?.split_once(' ')?;
            Some((command, time(begun)?, time(ended)?))
        })
        .filter(|(_, begun, ended)| begun <= ended)
        .collect()
}

/// Bash writes the decimal point as the image's locale has it.
fn time(seconds: &str) -> Option<SystemTime> {
    let seconds = seconds.replace(',', ".").parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_wrote_among_the_times_is_left_out() {
        let times = b"version 10.5 11\ninit 12,25 13\nplan\nplan 1 x\nshow 9 8\n\xff 1 2\n\
            apply 1 99999999999999999999\ninit 1 2\n";
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds);
        assert_eq!(read(times), [("version", at(10.5), at(11.0)), ("init", at(12.25), at(13.0))]);
    }
}
