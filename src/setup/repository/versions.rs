//! Which versions of the packages stay in the repository.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use cli::Failure;

/// A package file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    /// Its name.
    pub name: String,
    /// Its architecture, as its kind of packages calls it.
    pub architecture: String,
    /// Its version, with the revision.
    pub version: String,
    /// What two packages have in common only if they are the same.
    pub content: String,
    /// Where it is.
    pub file: PathBuf,
    /// Where it is published, relative to the output, if it is.
    pub published: Option<String>,
}

impl Package {
    /// A description for people.
    pub(super) fn describe(&self) -> String {
        let Self { name, version, architecture, .. } = self;
        format!("{name} {} {architecture}", version.trim_start_matches("0:"))
    }
}

/// What comes of the packages that are published and the new ones.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The packages in the new index.
    pub kept: Vec<Package>,
    /// The packages that are not in it: older than enough others.
    pub left_out: Vec<Package>,
}

/// Keeps the `keep` newest versions of each package and architecture.
///
/// # Errors
/// A version is there twice, and not the same.
pub(super) fn choose(
    packages: Vec<Package>,
    keep: usize,
    compare: impl Fn(&str, &str) -> Ordering,
) -> Result<Choice> {
    let mut groups: BTreeMap<(String, String), Vec<Package>> = BTreeMap::new();
    for package in packages {
        let key = (package.name.clone(), package.architecture.clone());
        let group = groups.entry(key).or_default();
        match group.iter_mut().find(|other| other.version == package.version) {
            None => group.push(package),
            // What is published stays as it is.
            Some(other) if other.content == package.content => {
                if other.published.is_none() {
                    *other = package;
                }
            }
            Some(other) => return Err(two(other, &package)),
        }
    }
    let mut choice = Choice::default();
    for mut group in groups.into_values() {
        group.sort_by(|a, b| compare(&b.version, &a.version));
        choice.left_out.extend(group.split_off(keep.min(group.len())));
        choice.kept.extend(group);
    }
    Ok(choice)
}

fn two(one: &Package, other: &Package) -> anyhow::Error {
    let Package { name, version, architecture, .. } = one;
    let what = if one.published.is_some() || other.published.is_some() {
        "is published already with another content, and hosts that have it would never get the new one"
    } else {
        "is there twice, and not the same"
    };
    Failure::Usage.because(format!(
        "{name} {version} for {architecture} {what}: {} and {}; give the new one a higher version",
        one.file.display(),
        other.file.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(architecture: &str, version: &str, content: &str, published: bool) -> Package {
        Package {
            name: "scalr-agent".into(),
            architecture: architecture.into(),
            version: version.into(),
            content: content.into(),
            file: format!("{content}.deb").into(),
            published: published.then(|| format!("apt/{content}.deb")),
        }
    }

    fn versions(packages: &[Package]) -> Vec<(&str, &str)> {
        packages.iter().map(|p| (p.architecture.as_str(), p.version.as_str())).collect()
    }

    #[test]
    fn the_newest_of_each_architecture_stay() {
        let all = vec![
            package("amd64", "1", "a", true),
            package("amd64", "3", "b", false),
            package("arm64", "1", "c", true),
            package("amd64", "2", "d", true),
        ];
        let choice = choose(all, 2, str::cmp).unwrap();
        assert_eq!(versions(&choice.kept), [("amd64", "3"), ("amd64", "2"), ("arm64", "1")]);
        assert_eq!(versions(&choice.left_out), [("amd64", "1")]);
    }

    #[test]
    fn a_version_is_published_once() {
        let same = vec![package("amd64", "1", "a", false), package("amd64", "1", "a", true)];
        let choice = choose(same, 5, str::cmp).unwrap();
        assert_eq!(choice.kept, [package("amd64", "1", "a", true)]);
        let other = vec![package("amd64", "1", "a", true), package("amd64", "1", "b", false)];
        let error = choose(other, 5, str::cmp).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Usage);
        assert!(error.to_string().contains("a higher version"), "{error}");
    }
}
