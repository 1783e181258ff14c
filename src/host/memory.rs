//! Memory, processors and control groups.

use std::fs;

use anyhow::{Context as _, Result};

/// All of this host's memory, in MB.
///
/// # Errors
/// /proc/meminfo can't be read.
pub fn total() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    parse_total(&text).context("/proc/meminfo has no MemTotal")
}

/// How many processors this process may use.
///
/// # Errors
/// The kernel does not tell.
pub fn processors() -> Result<usize> {
    std::thread::available_parallelism().map(usize::from).context("cannot count the processors")
}

/// The controllers of control groups that can be used here, and whether they are
/// the unified ones (version 2).
///
/// # Errors
/// The kernel has none.
pub fn cgroup_controllers() -> Result<(Vec<String>, bool)> {
    if let Ok(text) = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        return Ok((text.split_whitespace().map(str::to_owned).collect(), true));
    }
    let text = fs::read_to_string("/proc/cgroups").context("this kernel has no control groups")?;
    Ok((parse_cgroups(&text), false))
}

fn parse_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Lines of name, hierarchy, number of groups, enabled.
fn parse_cgroups(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            (columns.get(3) == Some(&"1")).then(|| columns[0].to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kib() {
        let text = "MemTotal:        8009132 kB\nMemFree:          123456 kB\n";
        assert_eq!(parse_total(text), Some(7821));
    }

    #[test]
    fn a_controller_can_be_switched_off() {
        let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                    cpu\t3\t64\t1\nmemory\t0\t1\t0\npids\t5\t70\t1\n";
        assert_eq!(parse_cgroups(text), ["cpu", "pids"]);
    }
}
