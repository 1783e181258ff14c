//! A repository's signing key, and one of somebody else's.

use std::os::unix::fs::symlink;
use std::path::Path;

use tests::workshop::{Workshop, run};

use crate::host::{Host, sha256};

pub(crate) const PROGRAM: &str = "scalr-agent-setup-x86_64";

pub(crate) struct Keys {
    workshop: Workshop,
    /// 40 digits.
    pub own: String,
    /// Of somebody who may write to a mirror.
    pub other: String,
}

impl Keys {
    pub(crate) fn new() -> Self {
        // It only signs.
        let workshop = Workshop::new(Path::new(""));
        let own = workshop.key("packages");
        let other = workshop.key("stranger");
        Self { workshop, own, other }
    }

    /// Has the host's server publish its setup program with our key, and gives the
    /// host gpgv.
    pub(crate) fn publish(&self, host: &Host) {
        symlink(which::which("gpgv").unwrap(), host.path("bin/gpgv")).unwrap();
        host.serve("scalr-agent.asc", &self.public(&[&self.own]));
        self.sign(host, &[&self.own]);
    }

    /// The keys' file, each key in a block of its own.
    pub(crate) fn public(&self, keys: &[&str]) -> String {
        let export = |key: &&str| run(self.workshop.gpg().args(["--armor", "--export", key]));
        keys.iter().map(export).collect()
    }

    /// Signs the program that the host's server has, and writes its checksum.
    pub(crate) fn sign(&self, host: &Host, keys: &[&str]) {
        let mut gpg = self.workshop.gpg();
        gpg.args(["--batch", "--yes", "--armor", "--digest-algo", "SHA256"]);
        for key in keys {
            gpg.args(["--local-user", key]);
        }
        let program = host.path("server/packages").join(PROGRAM);
        run(gpg.args(["--detach-sign"]).arg(program));
        let sum = sha256(host, PROGRAM);
        host.serve(&format!("{PROGRAM}.sha256"), &format!("{sum}  {PROGRAM}\n"));
    }
}
