//! What apt would install, as `apt-cache policy` prints it.

/// The part of that output on one package.
pub(super) struct Policy<'a> {
    /// The version that apt would install, or keep.
    candidate: Option<&'a str>,
    /// From the newest.
    pub versions: Vec<Version<'a>>,
}

pub(super) struct Version<'a> {
    pub version: &'a str,
    pub priority: i32,
    /// The highest priority of its sources.
    source_priority: i32,
    /// Where it is to be had, such as `https://pools.example.com/packages/apt`, or
    /// `/var/lib/dpkg/status` if it is installed.
    pub places: Vec<&'a str>,
}

impl<'a> Policy<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let mut policy = Self { candidate: None, versions: Vec::new() };
        for line in text.lines() {
            let mark = line.strip_prefix(" *** ").or_else(|| line.strip_prefix("     "));
            let words: Vec<&str> = line.trim_start_matches([' ', '*']).split(' ').collect();
            match (&words[..], mark) {
                (&["Candidate:", version], _) => {
                    policy.candidate = (version != "(none)").then_some(version);
                }
                (&[priority, place, ..], Some(rest)) if rest.starts_with(' ') => {
                    if let Some(last) = policy.versions.last_mut() {
                        let priority = priority.parse().unwrap_or_default();
                        last.source_priority = last.source_priority.max(priority);
                        last.places.push(place);
                    }
                }
                (&[version, priority], Some(_)) => policy.versions.push(Version {
                    version,
                    priority: priority.parse().unwrap_or_default(),
                    source_priority: i32::MIN,
                    places: Vec::new(),
                }),
                _ => {}
            }
        }
        policy
    }

    /// What apt would install, or keep: two packages can have the same version.
    pub(super) fn candidate(&self) -> Option<&Version<'a>> {
        let named = self.versions.iter().filter(|found| Some(found.version) == self.candidate);
        named.rev().max_by_key(|found| found.priority)
    }

    /// The newest version at an address.
    pub(super) fn newest_at(&self, uri: &str) -> Option<&Version<'a>> {
        self.versions.iter().find(|version| version.is_at(uri))
    }
}

impl Version<'_> {
    /// Whether a preference names the package, rather than a source of it.
    pub(super) fn is_pinned(&self) -> bool {
        self.priority != self.source_priority
    }

    pub(super) fn is_installed(&self) -> bool {
        self.places.contains(&"/var/lib/dpkg/status")
    }

    pub(super) fn is_at(&self, uri: &str) -> bool {
        let uri = uri.trim_end_matches('/');
        self.places.iter().any(|place| place.trim_end_matches('/') == uri)
    }
}
