//! The script's rules about proxies, against those of the programs.

use std::collections::BTreeMap;

use config::proxy::{ProxySelection, ProxySettings};

use crate::host::{Host, Packages, Said};

/// Options and environment.
const CASES: [(&str, &[(&str, &str)]); 13] = [
    ("", &[]),
    ("", &[("HTTPS_PROXY", "http://p.test:1"), ("NO_PROXY", "intra.test")]),
    ("", &[("https_proxy", "http://p.test:1"), ("no_proxy", ".intra.test")]),
    ("", &[("http_proxy", "http://p.test"), ("HTTPS_PROXY", "")]),
    ("", &[("HTTP_PROXY", "http://upper.test:1"), ("http_proxy", "http://lower.test:1")]),
    ("", &[("ALL_PROXY", "http://p.test:1"), ("NO_PROXY", "*")]),
    ("", &[("all_proxy", "p.test:1")]),
    ("--http-proxy http://robot:pa55@p.test:1", &[]),
    ("--http-proxy http://p.test", &[("https_proxy", "http://other.test:1")]),
    ("--http-proxy https://robot:pa55@p.test/ --no-proxy intra.test", &[("NO_PROXY", "x.test")]),
    ("--http-proxy http://p.test:1 --https-proxy http://secure.test:2", &[]),
    ("--http-proxy http://[2001:db8::1]", &[]),
    ("--http-proxy http://[2001:db8::1]:3128/ --no-proxy pools.test", &[]),
];

const URLS: [&str; 4] =
    ["https://pools.test", "http://pools.test", "https://intra.test", "http://a.intra.test:8080"];

/// Each proxy variable that the script exports.
fn exported(host: &Host, options: &str, environment: &[(&str, &str)]) -> Vec<(String, String)> {
    host.tool("variables", "exec /usr/bin/env\n");
    let said =
        host.run_with(&format!("read_options {options}; use_proxy; variables"), environment, "");
    said.went_well();
    let lines = said.stdout.lines().filter_map(|line| line.split_once('='));
    let set: BTreeMap<_, _> = lines.collect();
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
    let names = names.into_iter().chain(["ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"]);
    let value = |name| Some((name, *set.get(name)?)).filter(|(_, value)| !value.is_empty());
    names.filter_map(value).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What the programs make of the same options and environment.
fn expected(options: &str, environment: &[(&str, &str)]) -> Vec<(String, String)> {
    let words: Vec<&str> = options.split_whitespace().collect();
    let option = |name| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
    let Some(http) = option("--http-proxy") else {
        let value = |name: &str| environment.iter().find(|(known, _)| *known == name);
        return config::proxy::variables(|name| value(name).map(|(_, value)| *value));
    };
    let (https, no_proxy) = (option("--https-proxy"), option("--no-proxy"));
    ProxySettings::check(http, https, no_proxy).unwrap().variables()
}

#[test]
fn the_script_selects_the_same_proxy_as_the_programs() {
    Host::each(Packages::Apt, |host| {
        for (options, environment) in CASES {
            let of_script = exported(host, options, environment);
            let of_programs = expected(options, environment);
            let script = ProxySelection::of(&of_script).unwrap();
            let programs = ProxySelection::of(&of_programs).unwrap();
            for url in URLS {
                let url = url.parse().unwrap();
                assert_eq!(
                    script.for_url(&url),
                    programs.for_url(&url),
                    "{url} with `{options}` in {environment:?}: {of_script:?}"
                );
            }
            // The lists differ by what setup always adds.
            let urls = |all: &[(String, String)]| -> BTreeMap<String, String> {
                all.iter()
                    .filter(|(name, _)| !name.eq_ignore_ascii_case("NO_PROXY"))
                    .cloned()
                    .collect()
            };
            assert_eq!(urls(&of_script), urls(&of_programs), "`{options}` in {environment:?}");
        }
    });
}

#[test]
fn a_download_goes_through_the_proxy_and_its_password_is_on_no_command_line() {
    Host::each(Packages::Apt, |host| {
        host.tool(
            "curl",
            "[ \"$1\" != - ] && echo \"$http_proxy $HTTPS_PROXY $no_proxy\"\nexit 7\n",
        );
        let said = host.run(
            "read_options --http-proxy http://robot:pa55@proxy.test:1 --no-proxy intra.test\n\
             use_proxy\n\
             curl || :",
        );
        let proxy = "http://robot:pa55@proxy.test:1";
        assert_eq!(said.stdout, format!("{proxy} {proxy} intra.test\n"), "{said:?}");
    });
}

#[test]
fn a_proxy_is_read_from_standard_input() {
    Host::each(Packages::Apt, |host| {
        let said: Said = host.run_with(
            "read_options --http-proxy=-; use_proxy; echo \"$https_proxy\"",
            &[("https_proxy", "http://other.test")],
            "http://proxy.test\n",
        );
        assert_eq!(said.stdout, "http://proxy.test:80\n", "{said:?}");
    });
}
