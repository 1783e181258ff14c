//! What keeps the server from starting, or agents from reaching it, with the setting that
//! changes it.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Error, Result, anyhow};
use url::Url;

use crate::args::Tls;
use crate::packages::KEY;
use cli::Failure;

/// What the database says of one that it cannot write names no cause.
pub(crate) fn require_writable(database: &Path) -> io::Result<()> {
    match File::options().read(true).write(true).open(database) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}

pub(crate) fn cannot_use(data: &Path, action: &str, error: &io::Error) -> Error {
    let data = data.display();
    let user = user();
    anyhow!(
        "cannot {action} the data folder {data}: {error}\n\
         Set --data (SCALR_SERVER_DATA) to a folder that the user {user} can write into. What \
         another user has made there: `chown -R {user}: {data}`."
    )
}

pub(crate) fn cannot_lock(data: &Path, error: TryLockError) -> Error {
    let data = data.display();
    match error {
        TryLockError::WouldBlock => anyhow!("another server runs in {data}"),
        TryLockError::Error(error) => anyhow!(
            "cannot lock the data folder {data}: {error}\n\
             Set --data (SCALR_SERVER_DATA) to a folder of a local disk: not every file system of \
             a network has locks (flock)."
        ),
    }
}

/// The name of the user that the server runs as.
fn user() -> String {
    let id = nix::unistd::geteuid();
    let found = nix::unistd::User::from_uid(id).ok().flatten();
    found.map_or_else(|| id.to_string(), |user| user.name)
}

/// Refuses a folder that no host can install from.
///
/// # Errors
/// It is not there or can't be read, or `scalr-agent-setup repository` did not write it.
pub(crate) fn require_repository(folder: &Path) -> Result<()> {
    let refuse = |why: &str| {
        Failure::Usage.because(format!(
            "cannot serve the packages in {} (--packages, SCALR_SERVER_PACKAGES): {why}",
            folder.display()
        ))
    };
    let entries = fs::read_dir(folder).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => refuse(&format!(
            "{error}\nMove them where the user {} can read them, such as below /srv: its unit sees \
             nothing of /home and /root.",
            user()
        )),
        _ => refuse(&error.to_string()),
    })?;
    if folder.join(KEY).is_file() {
        return Ok(());
    }
    let has_packages = entries.filter_map(std::result::Result::ok).any(|entry| {
        let name = entry.file_name();
        [".deb", ".rpm"].iter().any(|end| name.to_string_lossy().ends_with(end))
    });
    let why = match has_packages {
        true => "it has packages, and no signed repository of them",
        false => "it is no signed repository",
    };
    Err(refuse(&format!(
        "{why}: there is no {KEY}\nMake one, and name that folder: scalr-agent-setup repository \
         --packages DIR --key KEY --output OTHER-DIR"
    )))
}

pub(crate) fn cannot_listen(address: SocketAddr, error: &io::Error) -> Error {
    let port = address.port();
    let advice = match error.kind() {
        ErrorKind::AddrInUse => format!(
            "Stop the program that has the port (`ss -ltnp 'sport = :{port}'` shows it), or set \
             --listen (SCALR_SERVER_LISTEN) to another one."
        ),
        ErrorKind::PermissionDenied => format!(
            "Set --listen (SCALR_SERVER_LISTEN) to a port from 1024 on: {port} takes root or \
             CAP_NET_BIND_SERVICE."
        ),
        _ => format!(
            "Set --listen (SCALR_SERVER_LISTEN) to an address of this host, or to 0.0.0.0:{port} \
             for all of them."
        ),
    };
    anyhow!("cannot listen on {address}: {error}\n{advice}")
}

/// A server that speaks TLS itself is seldom behind something that forwards another port to it.
pub(crate) fn other_port(url: &Url, port: u16, tls: &Tls) -> Option<String> {
    let named = url.port_or_known_default().filter(|named| *named != port)?;
    (!matches!(tls, Tls::Off)).then(|| {
        format!(
            "agents and people get the address {url}, which is port {named}, and the server listens \
             on port {port}; unless something forwards it, set SCALR_SERVER_URL or \
             SCALR_SERVER_LISTEN"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_locked_is_not_taken_for_another_servers() {
        let data = Path::new("/srv/data");
        let taken = cannot_lock(data, TryLockError::WouldBlock).to_string();
        assert_eq!(taken, "another server runs in /srv/data");
        let of_network = io::Error::from(nix::errno::Errno::ENOLCK);
        let lockless = cannot_lock(data, TryLockError::Error(of_network)).to_string();
        assert!(
            lockless.starts_with("cannot lock the data folder /srv/data: No locks"),
            "{lockless}"
        );
        assert!(lockless.contains("SCALR_SERVER_DATA"), "{lockless}");
    }

    #[test]
    fn an_address_with_another_port_than_that_of_the_server_gets_a_warning() {
        let warning = |url: &str, port, tls: &Tls| other_port(&url.parse().unwrap(), port, tls);
        let own = Tls::SelfSigned { names: Vec::new() };
        let found = warning("https://pools.example.com", 8443, &own).unwrap();
        assert!(found.contains("port 443") && found.contains("port 8443"), "{found}");
        assert_eq!(warning("https://pools.example.com", 443, &own), None);
        assert_eq!(warning("https://pools.example.com:8443", 8443, &own), None);
        // Behind a proxy that speaks TLS.
        assert_eq!(warning("https://pools.example.com", 8080, &Tls::Off), None);
    }
}
