//! CHANGELOG.md as Debian's changelog.

use anyhow::{Context as _, Result, bail};
use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use textwrap::Options;

/// Who made the packages, as it is in Cargo.toml's `[package.metadata.deb]`.
pub(super) const MAINTAINER: &str = "Agent pools <packages@pools.example.com>";

/// Debian's changelog of `package`, in the format of deb-changelog(5).
///
/// `source_date` is the date of a version that has none yet.
///
/// # Errors
/// A version's heading is not `## VERSION (YYYY-MM-DD)` or `(unreleased)`.
pub(super) fn debian(
    markdown: &str,
    package: &str,
    release: u32,
    source_date: i64,
) -> Result<String> {
    let mut text = String::new();
    for version in markdown.split("\n## ").skip(1) {
        let (heading, changes) = version.split_once('\n').unwrap_or((version, ""));
        let (number, date) = heading
            .trim()
            .strip_suffix(')')
            .and_then(|heading| heading.split_once(" ("))
            .with_context(|| format!("CHANGELOG.md: `{heading}` is not VERSION (YYYY-MM-DD)"))?;
        let date = match date {
            "unreleased" => Timestamp::from_second(source_date)?,
            date => {
                let date: civil::Date = date
                    .parse()
                    .with_context(|| format!("CHANGELOG.md: `{date}` is not a date"))?;
                TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0))?
            }
        };
        let number = number.replacen('-', "~", 1);
        let date = date.strftime("%a, %d %b %Y %H:%M:%S +0000");
        let changes = items(changes)?;
        text += &format!(
            "{package} ({number}-{release}) stable; urgency=medium\n\n{changes}\n -- {MAINTAINER}  {date}\n\n"
        );
    }
    if text.is_empty() {
        bail!("CHANGELOG.md has no version (`## VERSION (YYYY-MM-DD)`)");
    }
    text.pop();
    Ok(text)
}

/// A list in Markdown as the lines of a changelog, of at most 80 characters.
fn items(markdown: &str) -> Result<String> {
    let mut items: Vec<String> = Vec::new();
    for line in markdown.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(item) = line.strip_prefix("- ") {
            items.push(item.to_owned());
        } else if let (Some(more), Some(item)) = (line.strip_prefix("  "), items.last_mut()) {
            *item = format!("{item} {more}");
        } else {
            bail!("CHANGELOG.md: `{line}` is neither an item (`- `) nor continues one");
        }
    }
    let lines = Options::new(80).initial_indent("  * ").subsequent_indent("    ");
    Ok(items.iter().map(|item| textwrap::fill(item, &lines) + "\n").collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_become_entries() {
        let markdown = "# Changelog\n\n## 1.0.0-rc.1 (unreleased)\n\n- One\n  more.\n- Two.\n\n\
                        ## 0.9.0 (2026-03-02)\n\n- First.\n";
        assert_eq!(
            debian(markdown, "tool", 1, 1_700_000_000).unwrap(),
            "tool (1.0.0~rc.1-1) stable; urgency=medium\n\n  * One more.\n  * Two.\n\n \
             -- Agent pools <packages@pools.example.com>  Tue, 14 Nov 2023 22:13:20 +0000\n\n\
             tool (0.9.0-1) stable; urgency=medium\n\n  * First.\n\n \
             -- Agent pools <packages@pools.example.com>  Mon, 02 Mar 2026 00:00:00 +0000\n"
        );
    }

    #[test]
    fn what_is_no_changelog_is_refused_by_its_line() {
        for (markdown, line) in [
            ("\n## 1.0.0\n\n- x\n", "`1.0.0`"),
            ("\n## 1.0.0 (soon)\n\n- x\n", "`soon`"),
            ("\n## 1.0.0 (unreleased)\n\nText.\n", "`Text.`"),
            ("# Changelog\n", "no version"),
        ] {
            let error = debian(markdown, "tool", 1, 0).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn ours_can_be_read_and_its_maintainer_is_the_packages() {
        debian(include_str!("../../../CHANGELOG.md"), "scalr-agent", 1, 0).unwrap();
        let cargo = include_str!("../../agent/Cargo.toml");
        assert!(cargo.contains(&format!("maintainer = \"{MAINTAINER}\"")));
    }
}
