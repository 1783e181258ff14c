//! What the URL of a proxy may leave out.

use std::borrow::Cow;

use url::Url;

/// A value without a scheme is meant as http://, as in curl and Go's `net/http`.
pub(super) fn with_scheme(value: &str) -> Cow<'_, str> {
    if value.contains("://") { value.into() } else { format!("http://{value}").into() }
}

/// The URL of a proxy with its port, also where that is the scheme's own: without one,
/// curl takes 1080. `None` for a scheme whose port we do not know, or port 0.
pub fn with_port(proxy: &Url) -> Option<String> {
    let port = proxy.port_or_known_default().filter(|port| *port != 0)?;
    let user = match (proxy.username(), proxy.password()) {
        ("", None) => String::new(),
        (user, None) => format!("{user}@"),
        (user, Some(password)) => format!("{user}:{password}@"),
    };
    Some(format!("{}://{user}{}:{port}", proxy.scheme(), proxy.host_str()?))
}
