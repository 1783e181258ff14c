//! The credentials in the URL of a proxy, which no output shows.

use url::Url;

use super::address::with_scheme;

/// The text with the password of the URL in it hidden, and a user name without a
/// password, since that is usually a token.
pub fn masked(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", without_credentials(rest)),
        None => text.to_owned(),
    }
}

/// As [`masked`], for the value of a proxy's variable, where a URL needs no scheme.
pub fn masked_value(value: &str) -> String {
    if value.contains("://") { masked(value) } else { without_credentials(value) }
}

fn without_credentials(rest: &str) -> String {
    let Some((user, host)) = rest.rsplit_once('@') else { return rest.to_owned() };
    match user.split_once(':') {
        Some((name, _)) => format!("{name}:***@{host}"),
        None => format!("***@{host}"),
    }
}

/// What to do about a user or password with characters that end it in a URL; empty where there
/// are none.
pub(super) fn hint(value: &str) -> &'static str {
    let rest = value.split_once("://").map_or(value, |(_, rest)| rest);
    let credentials = rest.rsplit_once('@').map_or("", |(credentials, _)| credentials);
    if credentials.contains(['@', '#', '/', '?', '\\']) || has_bare_percent(credentials) {
        "\nIn a user or password, write @ as %40, # as %23, / as %2F, ? as %3F, \\ as %5C and \
         % as %25."
    } else {
        ""
    }
}

/// Whether a `%` begins no escape: Docker's and other Go programs take no such URL.
pub(super) fn has_bare_percent(text: &str) -> bool {
    text.split('%').skip(1).any(|rest| {
        let digits = rest.as_bytes().iter().take(2).take_while(|byte| byte.is_ascii_hexdigit());
        digits.count() < 2
    })
}

/// The password in the value of a proxy's variable, or a user name without one, as
/// it is written in the URL, in a unit file, and decoded.
pub fn secrets_of(value: &str) -> Vec<String> {
    let Ok(url) = Url::parse(&with_scheme(value)) else { return Vec::new() };
    let Some(secret) = url.password().or(Some(url.username())).filter(|text| !text.is_empty())
    else {
        return Vec::new();
    };
    let decoded = percent_encoding::percent_decode_str(secret).decode_utf8_lossy().into_owned();
    vec![secret.to_owned(), secret.replace('%', "%%"), decoded]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        assert_eq!(masked("http://user:p@ss@host:1"), "http://user:***@host:1");
        assert_eq!(masked("http://token@host:1"), "http://***@host:1");
        assert_eq!(masked("http://host:1"), "http://host:1");
        assert_eq!(masked("name:1.0@sha256:ab"), "name:1.0@sha256:ab");
    }

    #[test]
    fn a_variable_without_a_scheme_shows_no_password_either() {
        assert_eq!(masked_value("user:p@ss@host:1"), "user:***@host:1");
        assert_eq!(masked_value("token@host:1"), "***@host:1");
        assert_eq!(masked_value("http://user:pass@host:1"), "http://user:***@host:1");
        assert_eq!(masked_value("localhost,127.0.0.1"), "localhost,127.0.0.1");
    }

    #[test]
    fn the_secret_of_a_url_is_its_password_or_a_lone_user_name() {
        assert_eq!(secrets_of("http://me:a%20b@proxy:1"), ["a%20b", "a%%20b", "a b"]);
        assert_eq!(secrets_of("me:word@proxy:1"), ["word"; 3]);
        assert_eq!(secrets_of("http://token@proxy:1"), ["token"; 3]);
        assert_eq!(secrets_of("http://proxy:1"), [""; 0]);
        assert_eq!(secrets_of("localhost,127.0.0.1"), [""; 0]);
    }
}
