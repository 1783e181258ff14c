//! Which proxy a request goes through.

use anyhow::{Context as _, Result};
use url::{Position, Url};

use super::address::with_scheme;
use super::bypass::Bypass;
use super::credentials::hint;

/// The proxies that a set of variables names, and what goes through which.
#[derive(Clone)]
pub struct ProxySelection {
    http: Option<Url>,
    https: Option<Url>,
    all: Option<Url>,
    bypass: Bypass,
}

impl ProxySelection {
    /// What `variables` select, in either case; of a variable that is set in both, the
    /// first counts.
    ///
    /// # Errors
    /// A value is not the URL of a proxy; the message does not show the value.
    pub fn of(variables: &[(String, String)]) -> Result<Self> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
        };
        let url = |name: &str| {
            let url = value(name).map(|value| {
                let url = Url::parse(&with_scheme(value)).ok().filter(is_proxy);
                url.with_context(|| format!("{name} is not the URL of a proxy{}", hint(value)))
            });
            url.transpose()
        };
        Ok(Self {
            http: url("HTTP_PROXY")?,
            https: url("HTTPS_PROXY")?,
            all: url("ALL_PROXY")?,
            bypass: Bypass::read(value("NO_PROXY").unwrap_or_default()),
        })
    }

    /// The proxy for requests to `url`: that of its scheme, else the one for all, unless
    /// `NO_PROXY` names its host.
    pub fn for_url(&self, url: &Url) -> Option<&Url> {
        if self.bypass.contains(url) {
            return None;
        }
        let own = match url.scheme() {
            "http" => &self.http,
            "https" => &self.https,
            _ => &None,
        };
        own.as_ref().or(self.all.as_ref())
    }
}

/// Whether a URL names a host, and nothing after it is the rest of a password.
fn is_proxy(url: &Url) -> bool {
    url.has_host() && !url[Position::BeforePath..].contains('@')
}

#[cfg(test)]
mod tests {
    use super::super::with_port;
    use super::*;

    fn selected(url: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let selection = ProxySelection::of(&variables).unwrap();
        selection.for_url(&url.parse().unwrap()).and_then(with_port)
    }

    #[test]
    fn the_proxy_of_the_scheme_takes_precedence_over_the_one_for_all() {
        let https = ("https_proxy", "http://p:1");
        let server = "https://pools.example.com";
        assert_eq!(selected(server, &[https]).as_deref(), Some("http://p:1"));
        assert_eq!(
            selected(server, &[("ALL_PROXY", "http://a:1"), https]).as_deref(),
            Some("http://p:1")
        );
        assert_eq!(selected(server, &[("ALL_PROXY", "http://a:1")]).as_deref(), Some("http://a:1"));
        assert_eq!(selected("http://pools.example.com", &[https]), None);
        assert_eq!(selected(server, &[https, ("NO_PROXY", "example.com")]), None);
        assert_eq!(selected(server, &[("HTTPS_PROXY", "")]), None);
    }

    #[test]
    fn a_password_that_ends_the_url_names_no_other_host() {
        for value in ["http://u:1#w@proxy:3128", "u:1/w@proxy:3128", "http://u?w@proxy:3128"] {
            let variables = [("HTTPS_PROXY".to_owned(), value.to_owned())];
            let error = ProxySelection::of(&variables).err().unwrap().to_string();
            assert!(error.contains("# as %23") && !error.contains("w@"), "{error}");
        }
    }

    #[test]
    fn scheme_and_port_have_defaults() {
        for (value, proxy) in [
            ("proxy", "http://proxy:80"),
            ("proxy:3128", "http://proxy:3128"),
            ("me:word@proxy:3128", "http://me:word@proxy:3128"),
            ("http://proxy", "http://proxy:80"),
            ("https://proxy", "https://proxy:443"),
            ("http://[::1]", "http://[::1]:80"),
        ] {
            assert_eq!(selected("https://x", &[("HTTPS_PROXY", value)]).as_deref(), Some(proxy));
        }
    }

    #[test]
    fn an_error_names_the_variable_but_shows_no_password() {
        let variables = [("HTTPS_PROXY".to_owned(), "http://me:hunter2@pro xy".to_owned())];
        let error = ProxySelection::of(&variables).err().unwrap().to_string();
        assert_eq!(error, "HTTPS_PROXY is not the URL of a proxy");
    }
}
