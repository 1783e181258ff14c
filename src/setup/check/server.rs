//! Whether the server can be reached: its name, its answer, its certificate, its
//! clock. All but the name are from one and the same request.

use std::net::ToSocketAddrs as _;

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::{Outcome, Subject};
use config::proxy::masked;
use host::curl::Answer;
use host::os::Family;

/// How far apart the clocks may be. Tokens and certificates allow more; two logs could
/// not be compared.
const GOOD_CLOCK: SignedDuration = SignedDuration::from_secs(60);

/// From here on apt and dnf may refuse a repository's new index ("not valid yet", "Bad GPG
/// signature"), and a new certificate is not valid yet.
const WRONG_CLOCK: SignedDuration = SignedDuration::from_mins(5);

pub(super) fn dns(subject: &Subject) -> Outcome {
    on_server(subject, |url| {
        let proxy = match subject.proxy_for(url) {
            Err(error) => return unusable_proxy(&error, Program::of(subject)),
            Ok(proxy) => proxy,
        };
        let asked = proxy.as_ref().unwrap_or(url);
        let host = asked.host_str().unwrap_or_default();
        let port = asked.port_or_known_default().unwrap_or(443);
        let bare = host.trim_matches(['[', ']']);
        let found = (bare, port).to_socket_addrs().map_err(|error| error.to_string());
        let found = found.map(|all| all.map(|one| one.ip().to_string()).collect::<Vec<_>>());
        judge_name(host, url, proxy.is_some(), found)
    })
}

pub(super) fn server(subject: &Subject) -> Outcome {
    on_server(subject, |url| match (subject.proxy_for(url), subject.answer(url)) {
        (Err(error), _) => unusable_proxy(&error, Program::of(subject)),
        (_, Err(error)) => Outcome::unknown(error),
        (Ok(proxy), Ok(answer)) => {
            let proxy = proxy.map(|proxy| masked(proxy.as_str().trim_end_matches('/')));
            judge_answer(url, answer, proxy, shell_has_proxy(), Program::of(subject))
        }
    })
}

fn unusable_proxy(error: &str, program: Program) -> Outcome {
    Outcome::problem(format!("{error}; {}", program.look()))
}

/// Whether the host has the setup program, for advice that names it.
#[derive(Clone, Copy)]
enum Program {
    Installed,
    /// It came for this installation, and options of that are what there is.
    Temporary,
}

impl Program {
    fn of(subject: &Subject) -> Self {
        if subject.before_install { Self::Temporary } else { Self::Installed }
    }

    fn look(self) -> &'static str {
        match self {
            Self::Installed => "look at it with `scalr-agent-setup proxy show`",
            Self::Temporary => "check --http-proxy, or HTTPS_PROXY in this shell",
        }
    }

    fn set(self) -> &'static str {
        match self {
            Self::Installed => {
                "with `scalr-agent-setup proxy --http -`, which reads the URL from standard input"
            }
            Self::Temporary => "with --http-proxy URL",
        }
    }
}

pub(super) fn certificate(subject: &Subject) -> Outcome {
    on_server(subject, |url| {
        if url.scheme() != "https" {
            return Outcome::Skipped(format!("{url} is not https://"));
        }
        let family = subject.os().map_or(Family::Other, |os| os.family);
        match subject.answer(url) {
            Err(error) => Outcome::unknown(error),
            Ok(answer) if has_no_way_to(url, subject, answer) => {
                Outcome::Skipped("there is no connection; see the check server".to_owned())
            }
            Ok(answer) => match judge_certificate(answer, family) {
                Outcome::Passed(text) => match subject.refusal_of_agent(url) {
                    Some(said) => Outcome::problem(format!(
                        "curl accepts the server's certificate, but the agent does not: {said}"
                    )),
                    None => Outcome::Passed(text),
                },
                outcome => outcome,
            },
        }
    })
}

pub(super) fn clock(subject: &Subject) -> Outcome {
    on_server(subject, |url| match subject.answer(url) {
        Err(error) => Outcome::unknown(error),
        Ok(answer) => judge_clock(answer.date.as_deref(), Timestamp::now()),
    })
}

/// Whether it is the proxy's certificate that is not trusted.
fn has_no_way_to(url: &Url, subject: &Subject, answer: &Answer) -> bool {
    let proxy = subject.proxy_for(url).ok().flatten();
    proxy.is_some_and(|proxy| is_about_certificate_of(proxy.as_str(), answer))
}

fn on_server(subject: &Subject, look: impl FnOnce(&Url) -> Outcome) -> Outcome {
    match &subject.url {
        None => Outcome::Skipped("no server is set yet; name one with --url".to_owned()),
        Some(_) if !subject.machine.is_this_one() => Outcome::tree(),
        Some(url) => look(url),
    }
}

fn shell_has_proxy() -> bool {
    config::proxy::of_environment().iter().any(|(name, _)| name != "NO_PROXY" && name != "no_proxy")
}

fn judge_name(
    asked: &str,
    url: &Url,
    through_proxy: bool,
    found: Result<Vec<String>, String>,
) -> Outcome {
    let server = url.host_str().unwrap_or_default();
    let what = if through_proxy { "the proxy's name" } else { "the server's name" };
    match found {
        Ok(addresses) if !addresses.is_empty() => {
            let addresses = addresses.join(", ");
            Outcome::Passed(match through_proxy {
                true => format!("the proxy {asked} is {addresses}; it looks {server} up itself"),
                false if addresses == asked => format!("{asked} is an address, not a name"),
                false => format!("{asked} is {addresses}"),
            })
        }
        result => Outcome::problem(format!(
            "cannot resolve {what} {asked} ({}); check the name, and the name servers in \
             /etc/resolv.conf with `getent hosts {asked}`",
            result.err().as_deref().unwrap_or("it has no address")
        )),
    }
}

fn judge_answer(
    url: &Url,
    answer: &Answer,
    proxy: Option<String>,
    shell_has_proxy: bool,
    program: Program,
) -> Outcome {
    let host = url.host_str().unwrap_or_default();
    let way = match &proxy {
        Some(proxy) => format!("through the proxy {proxy}"),
        None => "directly, without a proxy".to_owned(),
    };
    if answer.code == 0 && (200..300).contains(&answer.status) {
        return Outcome::Passed(format!("{url} answers, {way}"));
    }
    let why = proxy.as_deref().and_then(|proxy| fault_of_proxy(proxy, answer, program));
    let why = why.unwrap_or_else(|| match (answer.code, answer.status) {
        (0, status @ (301..=308)) => {
            format!("it answers {status}, a redirect; use the address that it redirects to")
        }
        (0, status) => format!("it answers {status}; is this a server of agent pools?"),
        (6, _) => format!("cannot resolve the name {host}"),
        (7, _) => "the connection is refused; check the port and the firewalls".to_owned(),
        (28, _) => {
            "no answer in time; check the firewalls, and whether a proxy is needed".to_owned()
        }
        _ if is_about_certificate(answer) => {
            "there is no connection because of certificates; see the check certificate".to_owned()
        }
        _ => answer.said.clone(),
    });
    let hint = match program {
        _ if proxy.is_some() || !shell_has_proxy => "",
        Program::Installed => {
            "\nThis shell has a proxy that services don't see: \
             `scalr-agent-setup proxy --from-environment` gives it to them."
        }
        Program::Temporary => {
            "\nThis shell has a proxy that services don't see: --http-proxy gives it to them."
        }
    };
    Outcome::problem(format!("{url} can't be reached {way}: {why}{hint}"))
}

/// What the proxy does wrong, if it is the proxy's fault. `proxy` is its URL without a password.
fn fault_of_proxy(proxy: &str, answer: &Answer, program: Program) -> Option<String> {
    let (look, set) = (program.look(), program.set());
    if is_about_certificate_of(proxy, answer) {
        return Some(fault_of_proxys_certificate(answer, program));
    }
    Some(match (answer.code, status_of_proxy(answer)) {
        // Some proxies refuse a wrong password with 401.
        (_, Some(status @ (401 | 407))) if proxy.contains('@') => format!(
            "the proxy refuses its user and password ({status}); set the right ones {set}, with @ \
             written as %40 and # as %23"
        ),
        (_, Some(status @ (401 | 407))) => format!(
            "the proxy requires a user and a password ({status}); set them {set}: \
             http://USER:PASSWORD@HOST:PORT"
        ),
        (56, Some(status)) => {
            format!(
                "the proxy does not connect to the server: it answers {status}; check the \
                 server's address, and ask the proxy's operator"
            )
        }
        // Curls before 7.52.
        (2, _) if answer.said.contains("proxy-cacert") => too_old(set),
        _ if answer.said.contains("nsupported proxy") => too_old(set),
        (5, _) => format!("cannot resolve the proxy's name; {look}"),
        (7, _) => format!("the proxy does not answer: no connection to it; {look}"),
        // While it connects; later it is an operation.
        (28, _) if answer.said.contains("Connection time") || answer.said.contains("CONNECT") => {
            format!("the proxy does not answer in time; {look}")
        }
        _ => return None,
    })
}

fn too_old(set: &str) -> String {
    format!(
        "this host's curl is too old for a proxy with https://, which takes 7.52; set the \
         proxy's http:// address {set}"
    )
}

/// curl has got no answer of this proxy to CONNECT because of TLS.
fn is_about_certificate_of(proxy: &str, answer: &Answer) -> bool {
    proxy.starts_with("https://")
        && (answer.is_refused_proxy() || answer.said.contains("SSL connection timeout"))
}

fn fault_of_proxys_certificate(answer: &Answer, program: Program) -> String {
    let why = match fault_of_certificate(answer) {
        Some(fault) => format!("the proxy's certificate is not accepted: {fault}"),
        None if answer.code != 51 && answer.code != 60 => format!(
            "the TLS handshake with the proxy failed; if it takes no TLS, set it {} as http://",
            program.set()
        ),
        None => format!(
            "the proxy's certificate is of an authority that is not trusted here; {}",
            match program {
                Program::Installed => {
                    "name a file with this authority, and with the server's if that has one of \
                     its own: `scalr-agent-setup install --ca-cert FILE`"
                }
                Program::Temporary => {
                    "add this authority to the file that --ca-cert names, or name one with it"
                }
            }
        ),
    };
    format!("{why}\n{}", answer.said)
}

/// The status with which a proxy refused: its answer to CONNECT is in what curl says.
fn status_of_proxy(answer: &Answer) -> Option<u16> {
    if answer.code == 0 {
        return Some(answer.status).filter(|status| *status == 407);
    }
    let words = answer.said.split(|c: char| !c.is_ascii_digit());
    words.filter_map(|word| word.parse().ok()).find(|status| (400..600).contains(status))
}

/// curl's exit codes for what TLS does not let pass (curl(1)).
fn is_about_certificate(answer: &Answer) -> bool {
    [35, 51, 60, 77, 83].contains(&answer.code)
}

fn judge_certificate(answer: &Answer, family: Family) -> Outcome {
    if answer.status > 0 {
        return Outcome::Passed("the server's certificate is trusted".to_owned());
    }
    if !is_about_certificate(answer) {
        return Outcome::Skipped("there is no connection; see the check server".to_owned());
    }
    let said = &answer.said;
    let why = match answer.code {
        35 => "the TLS handshake failed; check whether a device between this host and the server \
               intercepts TLS"
            .to_owned(),
        77 => "cannot read the file of trusted authorities; check the setting ca_cert".to_owned(),
        _ => fault_of_certificate(answer).unwrap_or_else(|| {
            format!(
                "its authority is not trusted here (curl exit 60): name the authority's file with \
             `scalr-agent configure --ca-cert FILE` (before the installation: install --ca-cert \
             FILE), or let the whole system trust it: {}",
                trust_store(family)
            )
        }),
    };
    Outcome::problem(format!("{why}\n{said}"))
}

/// What is wrong with a certificate, whoever has signed it.
fn fault_of_certificate(answer: &Answer) -> Option<String> {
    let says = |texts: &[&str]| texts.iter().any(|text| answer.said.contains(text));
    if says(&["expired", "not yet valid"]) {
        Some(format!(
            "it is not valid at this time; is this host's clock right? It says {:.0}",
            Timestamp::now()
        ))
    } else if answer.code == 51 || says(&["subject name"]) {
        Some("it is for another name than the one in the address".to_owned())
    } else {
        None
    }
}

fn trust_store(family: Family) -> &'static str {
    match family {
        Family::RedHat => "copy it to /etc/pki/ca-trust/source/anchors/ and run `update-ca-trust`",
        _ => {
            "copy it to /usr/local/share/ca-certificates/NAME.crt and run `update-ca-certificates`"
        }
    }
}

fn judge_clock(date: Option<&str>, now: Timestamp) -> Outcome {
    let Some(date) = date else {
        return Outcome::Skipped("the server's answer has no time".to_owned());
    };
    let server = match jiff::fmt::rfc2822::parse(date) {
        Ok(server) => server.timestamp(),
        Err(error) => return Outcome::Unknown(format!("the server says `{date}`: {error}")),
    };
    let ahead = now.duration_since(server);
    if ahead.abs() <= GOOD_CLOCK {
        return Outcome::Passed("this host's clock agrees with the server's".to_owned());
    }
    let which = if ahead.is_positive() { "ahead of" } else { "behind" };
    let difference = SignedDuration::from_secs(ahead.abs().as_secs());
    let fix = vec!["timedatectl set-ntp true".to_owned()];
    let found = format!(
        "this host's clock is {difference:#} {which} the server's: it is {now:.0} here and \
         {server:.0} there"
    );
    if ahead.abs() < WRONG_CLOCK {
        return Outcome::Warning(format!("{found}; times in logs cannot be compared"), fix);
    }
    Outcome::Problem(
        format!(
            "{found}; package repositories (\"not valid yet\", \"Bad GPG signature\"), certificates \
             and tokens may be rejected"
        ),
        fix,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, status: u16, said: &str) -> Answer {
        Answer { status, proxy_status: 0, code, said: said.to_owned(), date: None }
    }

    fn text(outcome: Outcome) -> String {
        match outcome {
            Outcome::Passed(text) | Outcome::Problem(text, _) => text,
            other => panic!("{other:?}"),
        }
    }

    fn said(code: i32, status: u16, proxy: Option<&str>, shell: bool) -> String {
        let url = "https://pools.example.com".parse().unwrap();
        let answer = answer(code, status, "curl: (x) y");
        text(judge_answer(&url, &answer, proxy.map(str::to_owned), shell, Program::Installed))
    }

    #[test]
    fn before_the_installation_advice_names_its_options_and_no_program() {
        let url = "https://pools.example.com".parse().unwrap();
        let proxies = [None, Some("http://p:1"), Some("http://u:***@p:1")];
        for (code, status, said) in
            [(56, 0, "response 407"), (0, 407, ""), (7, 0, ""), (5, 0, ""), (28, 0, "CONNECT")]
        {
            for proxy in proxies {
                let answer = answer(code, status, said);
                let proxy = proxy.map(str::to_owned);
                let text = text(judge_answer(&url, &answer, proxy, true, Program::Temporary));
                assert!(text.contains("--http-proxy"), "{text}");
                assert!(!text.contains("scalr-agent-setup"), "{text}");
            }
        }
    }

    #[test]
    fn it_says_which_way_and_what_was_wrong() {
        assert!(said(0, 200, None, false).ends_with("answers, directly, without a proxy"));
        assert!(said(0, 200, Some("http://p:1"), false).ends_with("through the proxy http://p:1"));
        assert!(said(6, 0, None, false).contains("cannot resolve the name pools.example.com"));
        assert!(said(60, 0, None, false).contains("the check certificate"));
        assert!(said(0, 404, None, false).contains("answers 404"));
        assert!(said(28, 0, None, true).contains("proxy --from-environment"));
        assert!(!said(28, 0, Some("http://p:1"), true).contains("--from-environment"));
    }

    #[test]
    fn a_proxy_that_is_dead_or_refuses_is_named_as_the_cause() {
        let of = |code, status, said: &str, proxy: &str| {
            let url = "https://pools.example.com".parse().unwrap();
            let answer = answer(code, status, said);
            let proxy = Some(proxy.to_owned());
            text(judge_answer(&url, &answer, proxy, false, Program::Installed))
        };
        let bare = "http://proxy:3128";
        for said in [
            "curl: (56) CONNECT tunnel failed, response 407",
            "curl: (56) Received HTTP code 407 from proxy after CONNECT",
        ] {
            assert!(of(56, 0, said, bare).contains("requires a user and a password (407)"));
            assert!(of(56, 0, said, "http://u:***@proxy:3128").contains("refuses its user"));
        }
        assert!(of(0, 407, "", bare).contains("requires a user and a password (407)"));
        let said = "curl: (56) CONNECT tunnel failed, response 401";
        assert!(of(56, 0, said, "http://u:***@proxy:3128").contains("user and password (401)"));
        let said = "curl: (56) CONNECT tunnel failed, response 503";
        assert!(of(56, 0, said, bare).contains("does not connect to the server: it answers 503"));
        let refused = of(7, 0, "curl: (7) Failed to connect to proxy port 3128", bare);
        assert!(refused.contains("the proxy does not answer: no connection"), "{refused}");
        let late = "curl: (28) Connection timed out after 10001 milliseconds";
        assert!(of(28, 0, late, bare).contains("the proxy does not answer in time"));
        let late = "curl: (28) Operation timed out after 30001 milliseconds";
        assert!(of(28, 0, late, bare).contains("no answer in time"));
        assert!(said_directly(7).contains("the connection is refused"));
    }

    #[test]
    fn the_certificate_of_an_https_proxy_is_its_own_cause() {
        let of = |code, proxy_status, said: &str, proxy: &str, program| {
            let url = "https://pools.example.com".parse().unwrap();
            let answer = Answer { proxy_status, ..answer(code, 0, said) };
            text(judge_answer(&url, &answer, Some(proxy.to_owned()), false, program))
        };
        let (tls, now) = ("https://proxy:3128", Program::Temporary);
        let unknown = "curl: (60) SSL certificate problem: unable to get local issuer certificate";
        let said = of(60, 0, unknown, tls, now);
        assert!(said.contains("the proxy's certificate is of an authority"), "{said}");
        assert!(said.contains("--ca-cert names") && said.ends_with(unknown), "{said}");
        let said = of(60, 0, unknown, tls, Program::Installed);
        assert!(said.contains("`scalr-agent-setup install --ca-cert FILE`"), "{said}");
        let name = "curl: (60) SSL: no alternative certificate subject name matches";
        assert!(
            of(60, 0, name, tls, now).contains("proxy's certificate is not accepted: it is for")
        );
        for (code, said) in [(35, "wrong version number"), (28, "SSL connection timeout")] {
            let plain = of(code, 0, &format!("curl: ({code}) {said}"), tls, now);
            assert!(plain.contains("if it takes no TLS"), "{plain}");
        }
        let old = of(2, 0, "curl: option --proxy-cacert: is unknown", tls, now);
        assert!(old.contains("curl is too old for a proxy with https://"), "{old}");
        for (proxy_status, proxy) in [(200, tls), (0, "http://proxy:3128")] {
            let said = of(60, proxy_status, unknown, proxy, now);
            assert!(said.contains("see the check certificate"), "{said}");
        }
    }

    fn said_directly(code: i32) -> String {
        said(code, 0, None, false)
    }

    #[test]
    fn names_are_looked_up_by_whom_it_concerns() {
        let url: Url = "https://pools.example.com".parse().unwrap();
        let known = || Ok(vec!["192.0.2.1".to_owned()]);
        let direct = text(judge_name("pools.example.com", &url, false, known()));
        assert_eq!(direct, "pools.example.com is 192.0.2.1");
        let proxy = text(judge_name("proxy", &url, true, known()));
        assert!(proxy.ends_with("it looks pools.example.com up itself"), "{proxy}");
        let unknown = judge_name("proxy", &url, true, Err("no such name".to_owned()));
        assert!(text(unknown).starts_with("cannot resolve the proxy's name proxy ("));
    }

    #[test]
    fn what_is_wrong_with_a_certificate() {
        let of = |code, said: &str| judge_certificate(&answer(code, 0, said), Family::RedHat);
        let unknown =
            text(of(60, "curl: (60) SSL certificate problem: unable to get local issuer"));
        assert!(
            unknown.contains("curl exit 60") && unknown.contains("--ca-cert FILE"),
            "{unknown}"
        );
        assert!(unknown.contains("update-ca-trust"), "{unknown}");
        assert!(text(of(60, "certificate is not yet valid")).contains("clock right?"));
        assert!(text(of(51, "")).contains("another name"));
        assert!(text(of(60, "no alternative certificate subject name")).contains("another name"));
        assert!(matches!(of(7, ""), Outcome::Skipped(_)));
        let other_status = judge_certificate(&answer(0, 404, ""), Family::Debian);
        assert!(matches!(other_status, Outcome::Passed(_)));
    }

    #[test]
    fn clocks_may_differ_by_a_minute() {
        let now: Timestamp = "2026-02-01T12:00:00Z".parse().unwrap();
        let at = |date| judge_clock(Some(date), now);
        assert!(matches!(at("Sun, 01 Feb 2026 12:00:59 GMT"), Outcome::Passed(_)));
        let behind = at("Sun, 01 Feb 2026 13:02:00 GMT");
        assert!(
            matches!(&behind, Outcome::Problem(text, _) if text.contains("1h 2m behind")),
            "{behind:?}"
        );
        let near = at("Sun, 01 Feb 2026 12:02:00 GMT");
        assert!(
            matches!(&near, Outcome::Warning(text, _) if text.contains("2m behind")),
            "{near:?}"
        );
        assert!(matches!(&near, Outcome::Warning(text, _)
            if text.contains("2026-02-01T12:00:00Z here and 2026-02-01T12:02:00Z there")));
        let ahead = at("Sun, 01 Feb 2026 11:50:00 GMT");
        assert!(matches!(&ahead, Outcome::Problem(text, fix)
            if text.contains("10m ahead of") && fix == &["timedatectl set-ntp true"]));
        assert!(matches!(at("yesterday"), Outcome::Unknown(_)));
        assert!(matches!(judge_clock(None, now), Outcome::Skipped(_)));
    }
}
