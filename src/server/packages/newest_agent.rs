//! The newest agent that the packages' folder has.

use std::fs;
use std::path::Path;

use deb822_fast::Deb822;
use semver::Version;

/// The index of apt's repository that every repository of agents has.
const INDEX: &str = "apt/dists/stable/main/binary-amd64/Packages";

/// The highest version of the agent's packages in a folder; none where it has no index, or one
/// that cannot be read.
pub(crate) fn newest_agent(folder: &Path) -> Option<Version> {
    newest(&fs::read_to_string(folder.join(INDEX)).ok()?)
}

fn newest(index: &str) -> Option<Version> {
    let packages: Deb822 = index.parse().ok()?;
    let agents = packages.iter().filter(|package| package.get("Package") == Some("scalr-agent"));
    // The last dash is that of the package's revision.
    let version = |text: &str| Version::parse(text.rsplit_once('-').map_or(text, |(v, _)| v)).ok();
    agents.filter_map(|agent| version(agent.get("Version")?)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_counts_and_no_other_package() {
        let package = |name: &str, version: &str| {
            format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n\n")
        };
        let index = package("scalr-agent", "0.9.0-1")
            + &package("scalr-agent", "0.10.0-2")
            + &package("scalr-server", "0.11.0-1");
        assert_eq!(newest(&index), Some(Version::new(0, 10, 0)));
        assert_eq!(newest(""), None);
        assert_eq!(newest(&package("scalr-agent", "soon")), None);
    }
}
