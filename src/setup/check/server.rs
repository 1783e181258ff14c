//! Whether the server can be reached.

use url::Url;

use super::{Outcome, Subject};
use crate::config::proxy::masked;
use crate::host::curl::{self, Answer};

pub fn server(subject: &Subject) -> Outcome {
    let Some(url) = &subject.url else {
        return Outcome::Skipped("no server is set yet; name one with --url".to_owned());
    };
    if !subject.machine.is_this_one() {
        return Outcome::tree();
    }
    let Ok(health) = url.join("/healthz") else {
        return Outcome::problem(format!("{url} can't be the server's address"));
    };
    match curl::get(&health, &subject.proxy, subject.settings.ca_cert.as_deref()) {
        Err(error) => Outcome::could_not_look(error),
        Ok(answer) => judge(url, &answer, proxy_for(url, &subject.proxy), shell_has_proxy()),
    }
}

/// Which proxy curl was told to use.
fn proxy_for(url: &Url, proxy: &[(String, String)]) -> Option<String> {
    let name = format!("{}_proxy", url.scheme());
    proxy
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(&name))
        .map(|(_, value)| masked(value))
}

fn shell_has_proxy() -> bool {
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some())
}

fn judge(url: &Url, answer: &Answer, proxy: Option<String>, shell_has_proxy: bool) -> Outcome {
    let host = url.host_str().unwrap_or_default();
    let way = match &proxy {
        Some(proxy) => format!("through the proxy {proxy}"),
        None => "directly, without a proxy".to_owned(),
    };
    if answer.code == 0 && (200..300).contains(&answer.status) {
        return Outcome::Passed(format!("{url} answers, {way}"));
    }
    let why = match (answer.code, answer.status) {
        (0, status @ (301..=308)) => {
            format!("it answers {status} and sends us elsewhere; use the address that it names")
        }
        (0, 407) => "the proxy wants a user and a password".to_owned(),
        (0, status) => format!("it answers {status}; is this a server of agent pools?"),
        (5, _) => "the proxy's name is not known; look at it with `scalr-agent-setup proxy show`"
            .to_owned(),
        (6, _) => format!("the name {host} is not known here"),
        (7, _) => {
            "nothing accepts the connection; is the port right, and no firewall between?".to_owned()
        }
        (28, _) => {
            "there was no answer in time; a firewall, or a proxy that is missing?".to_owned()
        }
        (35 | 51 | 60, _) => format!(
            "its certificate is not trusted here; add its authority to the system's, or name \
             the authority's file with `scalr-agent configure --ca-cert FILE` ({})",
            answer.said
        ),
        (56, _) if answer.said.contains("407") => {
            "the proxy wants a user and a password".to_owned()
        }
        _ => answer.said.clone(),
    };
    let hint = if proxy.is_none() && shell_has_proxy {
        "\nThis shell has a proxy that services don't see: \
         `scalr-agent-setup proxy --from-environment` gives it to them."
    } else {
        ""
    };
    Outcome::problem(format!("{url} can't be reached {way}: {why}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: i32, status: u16, proxy: Option<&str>, shell: bool) -> String {
        let url = "https://pools.example.com".parse().unwrap();
        let answer = Answer { status, code, said: "curl: (x) y".to_owned() };
        match judge(&url, &answer, proxy.map(str::to_owned), shell) {
            Outcome::Passed(text) | Outcome::Problem(text, _) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_says_which_way_and_what_was_wrong() {
        assert!(said(0, 200, None, false).ends_with("answers, directly, without a proxy"));
        assert!(said(0, 200, Some("http://p:1"), false).ends_with("through the proxy http://p:1"));
        assert!(said(6, 0, None, false).contains("pools.example.com is not known"));
        assert!(said(60, 0, None, false).contains("--ca-cert"));
        assert!(said(0, 404, None, false).contains("answers 404"));
        assert!(said(28, 0, None, true).contains("proxy --from-environment"));
        assert!(!said(28, 0, Some("http://p:1"), true).contains("--from-environment"));
    }

    #[test]
    fn the_proxys_password_is_not_shown() {
        let url: Url = "https://pools.example.com".parse().unwrap();
        let proxy = [("https_proxy".to_owned(), "http://u:hunter2@p:1".to_owned())];
        assert_eq!(proxy_for(&url, &proxy).as_deref(), Some("http://u:***@p:1"));
    }
}
