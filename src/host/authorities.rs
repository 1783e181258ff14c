//! The certificate authorities that this host trusts.

use std::path::Path;

use anyhow::{Context as _, Result};

use cli::untrusted_file;

/// Where distributions keep them in one file: Debian and its relatives, then Red Hat's.
const BUNDLES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];

/// The largest file of authorities, in bytes: a whole system's bundle has a quarter.
const LARGEST: u64 = 1024 * 1024;

/// The host's and those of the file `also`, in PEM; `None` if there is neither.
///
/// # Errors
/// A file that is there can't be read.
pub fn of_host_and(also: Option<&Path>) -> Result<Option<Vec<u8>>> {
    let system = BUNDLES.iter().map(Path::new).find(|file| file.is_file());
    let mut bundle = Vec::new();
    for file in system.into_iter().chain(also) {
        let pem = untrusted_file::read_linked(file, LARGEST)
            .with_context(|| format!("cannot read {}", file.display()))?;
        bundle.extend_from_slice(&pem);
        bundle.push(b'\n');
    }
    Ok(Some(bundle).filter(|bundle| !bundle.is_empty()))
}
