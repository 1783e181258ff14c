//! The proxy that an operator sets: written so that every program reads it alike.

use anyhow::Result;
use url::Url;

use super::credentials::{has_bare_percent, hint};
use super::{masked_value, with_port};
use cli::Failure;

/// What never goes through a proxy: this host, and a cloud's metadata address.
const ALWAYS_DIRECT: [&str; 4] = ["localhost", "127.0.0.1", "::1", "169.254.169.254"];

/// A proxy for HTTP, one for HTTPS, and what is reached directly.
#[derive(Clone)]
pub struct ProxySettings {
    http: String,
    https: String,
    no_proxy: String,
}

impl ProxySettings {
    /// Checks a proxy for HTTP, one for HTTPS (the same if `None`) and a list of
    /// what is reached directly.
    ///
    /// # Errors
    /// A URL has control characters or spaces, another scheme than http and
    /// https, no good host, or a path; a name in the list is none. No message
    /// shows a password.
    pub fn check(http: &str, https: Option<&str>, no_proxy: Option<&str>) -> Result<Self> {
        let http = checked(http)?;
        let https = https.map_or_else(|| Ok(http.clone()), checked)?;
        Ok(Self { http, https, no_proxy: direct(no_proxy.unwrap_or_default())? })
    }

    /// Whether a URL carries a user or a password.
    pub fn has_credentials(&self) -> bool {
        [&self.http, &self.https].iter().any(|url| url.contains('@'))
    }

    /// The variables, upper and lower case: programs differ in which they read.
    pub fn variables(&self) -> Vec<(String, String)> {
        let pairs = [
            ("HTTP_PROXY", &self.http),
            ("HTTPS_PROXY", &self.https),
            ("NO_PROXY", &self.no_proxy),
        ];
        let lower = pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).clone()));
        let upper = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone()));
        upper.chain(lower).collect()
    }
}

fn checked(text: &str) -> Result<String> {
    let shown =
        if text.chars().any(char::is_control) { "…".to_owned() } else { masked_value(text) };
    let wrong =
        |why: &str| Failure::Usage.because(format!("the proxy `{shown}` {why}{}", hint(text)));
    // The URL parser would drop them silently.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong("has a space or a control character in it"));
    }
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err(wrong("should begin with http:// or https://"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    let host = url.host_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(plain) || host.starts_with(['-', '.']) {
        return Err(wrong("has no valid host name"));
    }
    if !["", "/"].contains(&url.path()) || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("should end after its port"));
    }
    if has_bare_percent(url.username()) || url.password().is_some_and(has_bare_percent) {
        return Err(wrong("has a % in its user or password that begins no escape"));
    }
    // The port always, for programs differ in what they take for granted.
    with_port(&url).ok_or_else(|| wrong("has no valid port"))
}

/// The list of what is reached directly, with what always is.
fn direct(list: &str) -> Result<String> {
    let mut names: Vec<&str> = Vec::new();
    let given = list.split(',').map(|name| name.trim_matches(' ')).filter(|name| !name.is_empty());
    for name in given.chain(ALWAYS_DIRECT) {
        let bad = |c: char| c.is_control() || c.is_whitespace() || "\"'\\@;|".contains(c);
        if name.contains(bad) || name.contains("://") {
            return Err(Failure::Usage.because(format!(
                "`{}` in --no-proxy is neither a name, a .domain nor an address; commas separate them",
                name.escape_debug()
            )));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(http: &str) -> Result<ProxySettings> {
        ProxySettings::check(http, None, None)
    }

    #[test]
    fn a_good_url_names_its_port() {
        for (given, kept) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("http://proxy.example.com:3128/", "http://proxy.example.com:3128"),
            ("HTTP://Proxy.example.com", "http://proxy.example.com:80"),
            ("https://proxy", "https://proxy:443"),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("http://u:p%2Fw@proxy:1", "http://u:p%2Fw@proxy:1"),
            ("http://u:p\"w@proxy:1", "http://u:p%22w@proxy:1"),
            ("http://u:p@w@proxy:1", "http://u:p%40w@proxy:1"),
            ("http://u:p%25w@proxy:1", "http://u:p%25w@proxy:1"),
        ] {
            let proxy = check(given).unwrap();
            assert_eq!((proxy.http.as_str(), proxy.https.as_str()), (kept, kept));
        }
    }

    #[test]
    fn a_bad_url_is_refused() {
        for bad in [
            "",
            "proxy:3128",
            "proxy.example.com",
            "ftp://proxy:21",
            "socks5://proxy:1080",
            "http://",
            "http://:3128",
            "http:proxy:3128",
            "http://pro xy:1",
            "http://proxy:1\n",
            "http://proxy:1\nExecStart=/bin/sh",
            "http://proxy\u{7}:1",
            "http://proxy:99999",
            "http://proxy:0",
            "http://proxy:1/path",
            "http://proxy:1?q",
            "http://pro\"xy:1",
            "http://-proxy:1",
            "file:///etc/passwd",
        ] {
            let error = check(bad).err().expect(bad);
            assert_eq!(Failure::of(&error), Failure::Usage, "{bad}");
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        for bad in
            ["http://u:hunter2@proxy:1/path", "ftp://u:hunter2@proxy", "http://u:hunter2@p\n"]
        {
            let error = format!("{:#}", check(bad).err().unwrap());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_that_ends_the_url_gets_the_form_in_which_it_does_not() {
        for password in ["p#w", "p/w", "p?w", "1#w", "@#w", "p\\w", "p%w", "p%4", "%zz"] {
            let error = check(&format!("http://u:{password}@proxy:1")).err().unwrap().to_string();
            assert!(error.contains("# as %23"), "{error}");
            assert!(!error.contains(password), "{error}");
        }
        let error = check("http://proxy:1/path").err().unwrap().to_string();
        assert!(!error.contains("%23"), "{error}");
    }

    #[test]
    fn this_host_and_the_metadata_address_are_always_direct() {
        assert_eq!(direct("").unwrap(), "localhost,127.0.0.1,::1,169.254.169.254");
        assert_eq!(
            direct(" .example.com, ::1,,10.0.0.5").unwrap(),
            ".example.com,::1,10.0.0.5,localhost,127.0.0.1,169.254.169.254"
        );
        for bad in ["a b", "http://x", "a\nb", "a\"b", "a;b", "a|b"] {
            direct(bad).expect_err(bad);
        }
    }
}
