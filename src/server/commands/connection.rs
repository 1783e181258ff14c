//! Which server a command calls: that of this host by its socket, or another one by its URL.

use std::env;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use reqwest::Certificate;
use url::Url;

use cli::{Failure, untrusted_file};
use protocol::Secret;

use super::client::Client;
use crate::args::public_url;
use crate::local_api::SOCKET;

/// Where a package keeps the data of its server.
const DATA: &str = "/var/lib/scalr-server";

/// The variable with an admin's token.
const TOKEN: &str = "SCALR_SERVER_TOKEN";

/// Which server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub struct Connection {
    /// Another server's URL [default: the server of this host]
    #[arg(long, value_name = "URL", env = "SCALR_SERVER", value_parser = public_url)]
    server: Option<Url>,

    /// File with an admin's token for --server; or SCALR_SERVER_TOKEN has the token
    #[arg(long, value_name = "FILE", env = "SCALR_SERVER_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// Authorities to trust for --server besides the system's, PEM
    #[arg(long, value_name = "FILE", env = "SCALR_SERVER_CA_CERT")]
    ca_cert: Option<PathBuf>,

    /// The folder of this host's server
    #[arg(long, value_name = "DIR", default_value = DATA, env = "SCALR_SERVER_DATA")]
    data: PathBuf,
}

impl Connection {
    /// A client for the server.
    ///
    /// # Errors
    /// No server runs in the folder, or this user may not call it; the token or the
    /// certificates can't be read.
    pub(super) fn client(&self) -> Result<Client> {
        match &self.server {
            Some(url) => self.remote(url),
            None => local(&self.data, ", or name a server: --server URL --token-file FILE"),
        }
    }

    /// A command for the same server, as a shell takes it.
    pub(super) fn command(&self, words: &[&str]) -> String {
        let mut line: Vec<String> =
            ["scalr-server"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        let mut add = |option: &str, variable: &str, value: String| {
            if env::var(variable).ok().as_ref() != Some(&value) {
                line.extend([option.to_owned(), value]);
            }
        };
        match &self.server {
            Some(url) => {
                let url = url.as_str().trim_end_matches('/').to_owned();
                add("--server", "SCALR_SERVER", url);
                if let Some(file) = &self.token_file {
                    add("--token-file", "SCALR_SERVER_TOKEN_FILE", file.display().to_string());
                }
                if let Some(file) = &self.ca_cert {
                    add("--ca-cert", "SCALR_SERVER_CA_CERT", file.display().to_string());
                }
            }
            None if self.data.as_os_str() == DATA => {}
            None => add("--data", "SCALR_SERVER_DATA", self.data.display().to_string()),
        }
        quote(line.iter().map(String::as_str))
    }

    fn remote(&self, url: &Url) -> Result<Client> {
        if !config::is_encrypted_or_local(url) {
            return Err(Failure::Usage.because(format!(
                "cannot send a token to {url}: it is not encrypted\n\
                 Give --server https://HOST; plain http is only for localhost"
            )));
        }
        let mut http = reqwest::Client::builder();
        if let Some(file) = &self.ca_cert {
            let cannot = || format!("cannot read the authorities in {}", file.display());
            let pem =
                untrusted_file::read_linked(file, config::MAX_CERTIFICATES).with_context(cannot)?;
            let certificates = Certificate::from_pem_bundle(&pem).with_context(cannot)?;
            if certificates.is_empty() {
                let text = format!("--ca-cert: there is no certificate in {}", file.display());
                return Err(Failure::Usage.because(text));
            }
            http = http.tls_certs_merge(certificates);
        }
        Client::new(http, url.clone(), Some(self.token()?))
    }

    fn token(&self) -> Result<Secret> {
        let token = match &self.token_file {
            Some(file) => untrusted_file::read_text(file)
                .with_context(|| format!("cannot read the token in {}", file.display()))?,
            None => env::var(TOKEN).map_err(|_| {
                Failure::Usage.because(format!(
                    "--server needs an admin's token: give --token-file FILE, or set {TOKEN}\n\
                     On the server's host `scalr-server admin-token create` makes one."
                ))
            })?,
        };
        let token = token.trim();
        if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
            let text = "the token of --token-file, or SCALR_SERVER_TOKEN, is no token: it takes \
                        one line, as `scalr-server admin-token create` prints it";
            return Err(Failure::Usage.because(text));
        }
        Ok(Secret::new(token))
    }
}

/// A client for the server whose folder on this host is `data`. `instead` ends the sentence
/// that says what to do where there is none.
///
/// # Errors
/// No server runs there, or this user may not call it.
pub(super) fn local(data: &Path, instead: &str) -> Result<Client> {
    let socket = data.join(SOCKET);
    // The client would say less about why it can't connect.
    if let Err(error) = UnixStream::connect(&socket) {
        let data = data.display();
        return Err(match error.kind() {
            ErrorKind::PermissionDenied => Failure::NotPermitted.because(format!(
                "cannot call the server in {data}: only root and the server's user may\n\
                 Use sudo{instead}"
            )),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::Failed.because(format!(
                "cannot call the server in {data}: no server runs there\n\
                 Start it (systemctl start scalr-server), or name its folder with --data{instead}"
            )),
            _ => {
                anyhow::Error::new(error).context(format!("cannot connect to {}", socket.display()))
            }
        });
    }
    let base = Url::parse("http://localhost/")?;
    Client::new(reqwest::Client::builder().unix_socket(socket).no_proxy(), base, None)
}

/// Words as a shell takes them.
pub(crate) fn quote<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    // No command line has a NUL in it.
    shlex::try_join(words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_token_is_read_from_a_regular_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe) = (folder.path().join("file"), folder.path().join("pipe"));
        let token = |file: &Path| {
            let (server, ca_cert, data) = (None, None, PathBuf::new());
            Connection { server, token_file: Some(file.to_owned()), ca_cert, data }.token()
        };
        std::fs::write(&file, "token\n").unwrap();
        assert_eq!(token(&file).unwrap().expose(), "token");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for odd in [&*pipe, Path::new("/dev/zero")] {
            let error = format!("{:#}", token(odd).unwrap_err());
            assert!(error.contains("not a regular file"), "{error}");
        }
    }
}
