//! The memory of the agent's host, as its kernel tells it.

use anyhow::{Context as _, Result};

/// What new programs can have without swapping, in MB.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn available() -> Result<u64> {
    read("MemAvailable")
}

/// All that the kernel manages, in MB.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn total() -> Result<u64> {
    read("MemTotal")
}

fn read(name: &str) -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    parse(&text, name).with_context(|| format!("/proc/meminfo has no {name}"))
}

fn parse(text: &str, name: &str) -> Option<u64> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_in_mb() {
        let text = "MemTotal:        4194304 kB\nMemFree: 9 kB\nMemAvailable:   2097152 kB\n";
        assert_eq!(parse(text, "MemAvailable"), Some(2048));
        assert_eq!(parse(text, "MemTotal"), Some(4096));
        assert_eq!(parse(text, "Mem"), None);
        assert!(available().unwrap() <= total().unwrap());
    }
}
