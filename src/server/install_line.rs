//! The lines that install an agent on a host that does not trust this server yet. They go on
//! only with the authority and the key that the server has now.

use crate::commands::quote;

/// Where the lines expect the pool's token on a host.
pub(crate) const TOKEN_ON_HOST: &str = "/root/pool.token";

/// Where they keep the server's own authority: the agent's account reads it, too.
const AUTHORITY_ON_HOST: &str = "/etc/scalr-server-ca.pem";

/// What hosts have to know of a server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Its address.
    pub url: String,
    /// The SHA-256 of its own authority, if it has one.
    pub ca_sha256: Option<String>,
    /// The SHA-256 of the key of its packages, if it serves any.
    pub key_sha256: Option<String>,
}

impl Server {
    /// Downloads the install script and runs it, with `options` besides those that name
    /// server, key and token.
    pub(crate) fn install_line(&self, options: &[&str]) -> String {
        let script = format!("{}/install.sh", self.url);
        let trust = self.ca_file(options).map(|file| format!("--cacert {} ", quote([file])));
        format!(
            "{}curl -fsSL {}{} | sudo sh -s -- {}",
            self.fetch_authority().map(|line| format!("{line} && ")).unwrap_or_default(),
            trust.unwrap_or_default(),
            quote([script.as_str()]),
            self.arguments(options)
        )
    }

    /// Installs from an unpacked bundle.
    pub(crate) fn offline_line(&self, options: &[&str]) -> String {
        let url = ["--url", self.url.as_str()];
        format!(
            "sudo sh scalr-agent-bundle/install.sh --offline scalr-agent-bundle {} {}",
            quote(url),
            self.arguments(options)
        )
    }

    /// Fetches the server's own authority and compares it, if it has one.
    pub(crate) fn fetch_authority(&self) -> Option<String> {
        let (file, address) = (AUTHORITY_ON_HOST, format!("{}/ca.pem", self.url));
        let sha256 = self.ca_sha256.as_ref()?;
        let fetch = quote(["sudo", "curl", "-fsS", "--insecure", "-o", file, &address]);
        Some(format!("{fetch} && echo '{sha256}  {file}' | sha256sum --check"))
    }

    /// The file with the authorities that the lines trust besides the system's.
    fn ca_file<'a>(&self, options: &[&'a str]) -> Option<&'a str> {
        let given = options.iter().position(|option| *option == "--ca-cert");
        given
            .and_then(|at| options.get(at + 1).copied())
            .or(self.ca_sha256.as_ref().map(|_| AUTHORITY_ON_HOST))
    }

    fn arguments(&self, options: &[&str]) -> String {
        let mut words = Vec::new();
        if self.ca_sha256.is_some() {
            words.extend(["--ca-cert", AUTHORITY_ON_HOST]);
        }
        if let Some(sha256) = &self.key_sha256 {
            words.extend(["--key-fingerprint", sha256]);
        }
        words.extend(["--token-file", TOKEN_ON_HOST]);
        words.extend(options);
        quote(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(authority: Option<&str>) -> Server {
        Server {
            url: "https://pools.example.com:8443".to_owned(),
            ca_sha256: authority.map(str::to_owned),
            key_sha256: Some("0b1c".to_owned()),
        }
    }

    #[test]
    fn the_install_line_checks_a_private_authority_before_it_trusts_it() {
        assert_eq!(
            server(Some("f852")).install_line(&[]),
            "sudo curl -fsS --insecure -o /etc/scalr-server-ca.pem \
             https://pools.example.com:8443/ca.pem && \
             echo 'f852  /etc/scalr-server-ca.pem' | sha256sum --check && \
             curl -fsSL --cacert /etc/scalr-server-ca.pem \
             https://pools.example.com:8443/install.sh | \
             sudo sh -s -- --ca-cert /etc/scalr-server-ca.pem --key-fingerprint 0b1c \
             --token-file /root/pool.token"
        );
    }

    #[test]
    fn the_install_line_of_a_public_certificate_trusts_the_system() {
        assert_eq!(
            server(None).install_line(&[]),
            "curl -fsSL https://pools.example.com:8443/install.sh | sudo sh -s -- \
             --key-fingerprint 0b1c --token-file /root/pool.token"
        );
    }

    #[test]
    fn an_authority_of_the_operators_is_trusted_by_curl_too_and_options_are_quoted() {
        let line =
            server(None).install_line(&["--ca-cert", "/srv/my ca.pem", "--agent-name", "a'b"]);
        assert!(line.starts_with("curl -fsSL --cacert '/srv/my ca.pem' https"), "{line}");
        assert!(line.ends_with(r#"--ca-cert '/srv/my ca.pem' --agent-name "a'b""#), "{line}");
    }
}
