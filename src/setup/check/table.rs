//! The table of all checks.

use serde::Serialize;

use super::{Outcome, Subject};
use super::{
    container_selinux, disks, engine, host, network, os, packages, resources, run_account,
    security, server, service, service_proxy, writable,
};

/// A check: what it is and how it is done.
pub(crate) struct Check {
    /// What people call it.
    pub name: &'static str,
    /// Its group.
    pub area: &'static str,
    /// How bad a problem is that it finds.
    pub severity: Severity,
    /// What must be so.
    pub about: &'static str,
    /// Looks whether it is.
    pub look: fn(&Subject) -> Outcome,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Severity {
    /// The agent can't work.
    Error,
    /// It can, but not well.
    Warning,
}

/// Every check there is, in the order in which they are done.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "os",
        area: "host",
        severity: Severity::Error,
        about: "the operating system is one that packages are made for, and supported",
        look: os::os,
    },
    Check {
        name: "architecture",
        area: "host",
        severity: Severity::Error,
        about: "the processor is one that packages are made for",
        look: host::architecture,
    },
    Check {
        name: "kernel",
        area: "host",
        severity: Severity::Error,
        about: "Linux is 3.10 or newer and has the overlay file system",
        look: host::kernel,
    },
    Check {
        name: "systemd",
        area: "host",
        severity: Severity::Error,
        about: "systemd 219 or newer runs the services",
        look: host::systemd,
    },
    Check {
        name: "temporary-folder",
        area: "host",
        severity: Severity::Warning,
        about: "programs may be run from the temporary folder, as installers do",
        look: host::temporary_folder,
    },
    Check {
        name: "memory",
        area: "resources",
        severity: Severity::Error,
        about: "there is memory for all runs and for the system beside them",
        look: resources::memory,
    },
    Check {
        name: "cpu",
        area: "resources",
        severity: Severity::Warning,
        about: "there is a processor for each run",
        look: resources::cpu,
    },
    Check {
        name: "cgroups",
        area: "resources",
        severity: Severity::Error,
        about: "the kernel can limit a run's memory, processors and processes",
        look: resources::cgroups,
    },
    Check {
        name: "disk",
        area: "disks",
        severity: Severity::Error,
        about: "there is room for images and runs",
        look: disks::disk,
    },
    Check {
        name: "inodes",
        area: "disks",
        severity: Severity::Error,
        about: "there is room for the many small files of images",
        look: disks::inodes,
    },
    Check {
        name: "file-types",
        area: "disks",
        severity: Severity::Error,
        about: "the disk of images reports file types (xfs: ftype=1), as overlay needs",
        look: disks::file_types,
    },
    Check {
        name: "noexec",
        area: "disks",
        severity: Severity::Error,
        about: "programs may be run from the disks of images and runs",
        look: disks::noexec,
    },
    Check {
        name: "engine",
        area: "engine",
        severity: Severity::Error,
        about: "the Docker engine that runs use is there and new enough",
        look: engine::engine,
    },
    Check {
        name: "host-engine",
        area: "engine",
        severity: Severity::Warning,
        about: "an engine of the host's own is left alone",
        look: engine::host_engine,
    },
    Check {
        name: "sockets",
        area: "engine",
        severity: Severity::Error,
        about: "nothing else listens where the private engine will",
        look: engine::sockets,
    },
    Check {
        name: "data-folder",
        area: "service",
        severity: Severity::Error,
        about: "the folder of the agent's data is the agent's alone",
        look: service::data_folder,
    },
    Check {
        name: "drop-ins",
        area: "service",
        severity: Severity::Warning,
        about: "the drop-ins of scalr-agent.service fit its settings",
        look: service::drop_ins,
    },
    Check {
        name: "run-account",
        area: "service",
        severity: Severity::Error,
        about: "runs have an account that nothing else has and that may not use the engine",
        look: run_account::run_account,
    },
    Check {
        name: "iptables",
        area: "network",
        severity: Severity::Error,
        about: "iptables is there for the runs' networks",
        look: network::iptables,
    },
    Check {
        name: "addresses",
        area: "network",
        severity: Severity::Error,
        about: "the runs' addresses collide with no route of this host",
        look: network::addresses,
    },
    Check {
        name: "firewalld",
        area: "network",
        severity: Severity::Error,
        about: "firewalld, where it is active, allows the runs' traffic",
        look: network::firewalld,
    },
    Check {
        name: "firewall-rules",
        area: "network",
        severity: Severity::Error,
        about: "the rules of the runs' networks are up while the agent runs",
        look: network::firewall_rules,
    },
    Check {
        name: "proxy",
        area: "network",
        severity: Severity::Warning,
        about: "engine and agent use the same proxy, and only root can read its password",
        look: service_proxy::proxy,
    },
    Check {
        name: "dns",
        area: "server",
        severity: Severity::Error,
        about: "the name of the server, or of its proxy, can be resolved",
        look: server::dns,
    },
    Check {
        name: "server",
        area: "server",
        severity: Severity::Error,
        about: "the server answers, through the proxy if one is set",
        look: server::server,
    },
    Check {
        name: "certificate",
        area: "server",
        severity: Severity::Error,
        about: "the server's certificate is trusted",
        look: server::certificate,
    },
    Check {
        name: "clock",
        area: "server",
        severity: Severity::Error,
        about: "this host's clock and the server's agree",
        look: server::clock,
    },
    Check {
        name: "selinux",
        area: "security",
        severity: Severity::Warning,
        about: "the mode of SELinux",
        look: security::selinux,
    },
    Check {
        name: "labels",
        area: "security",
        severity: Severity::Warning,
        about: "our files have the labels of SELinux's policy",
        look: security::labels,
    },
    Check {
        name: "fapolicyd",
        area: "security",
        severity: Severity::Warning,
        about: "fapolicyd, where it is active, trusts our programs",
        look: security::fapolicyd,
    },
    Check {
        name: "writable",
        area: "packages",
        severity: Severity::Error,
        about: "what packages write to is not mounted read-only",
        look: writable::writable,
    },
    Check {
        name: "package-lock",
        area: "packages",
        severity: Severity::Warning,
        about: "no other package manager is running",
        look: packages::package_lock,
    },
    Check {
        name: "half-configured",
        area: "packages",
        severity: Severity::Error,
        about: "no earlier installation was left unfinished",
        look: packages::half_configured,
    },
    Check {
        name: "mirror-lists",
        area: "packages",
        severity: Severity::Error,
        about: "no repository of CentOS's own needs its mirrors, which are gone",
        look: packages::mirror_lists,
    },
    Check {
        name: "container-selinux",
        area: "packages",
        severity: Severity::Error,
        about: "container-selinux, which the rpm needs, is installed or can be",
        look: container_selinux::container_selinux,
    },
    Check {
        name: "vendor-agent",
        area: "packages",
        severity: Severity::Warning,
        about: "there is no older agent of the vendor's in /opt/scalr-agent",
        look: packages::vendor_agent,
    },
];

impl Check {
    /// Whether that is its name, or its area's.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.area == name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_no_areas() {
        for check in CHECKS {
            let same = CHECKS.iter().filter(|other| other.name == check.name).count();
            assert_eq!(same, 1, "{}", check.name);
            let area = CHECKS.iter().find(|other| other.area == check.name);
            assert!(
                area.is_none_or(|other| other.area == check.area),
                "{} is an area as well",
                check.name
            );
        }
    }
}
