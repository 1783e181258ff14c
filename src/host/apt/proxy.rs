//! The proxy that apt's configuration names, with file and line: apt's errors name neither.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use url::Url;

use crate::command::CommandExt as _;
use crate::hold::place;
use crate::machine::Machine;
use cli::untrusted_file;

/// How apt reports that it does not get through to a host, or to its proxy.
const UNREACHABLE: [&str; 9] = [
    "Could not connect",
    "Unable to connect",
    "Cannot initiate the connection",
    "Could not resolve",
    "Temporary failure resolving",
    "Connection failed",
    "Connection timed out",
    "Connection refused",
    "407",
];

/// What to say about the configured proxy where apt's output says that it cannot get through.
pub(crate) fn advice(machine: &Machine, output: &str) -> Option<String> {
    if !UNREACHABLE.iter().any(|text| output.contains(text)) {
        return None;
    }
    let dump = Command::new("apt-config").arg("dump").read().ok()?;
    advice_of(machine, &dump, output)
}

fn advice_of(machine: &Machine, dump: &str, output: &str) -> Option<String> {
    let urls = output.lines().filter_map(|line| {
        let (_, rest) = line.split_once("Failed to fetch ")?;
        rest.split_whitespace().next()?.parse::<Url>().ok()
    });
    urls.into_iter().find_map(|url| {
        let host = url.host_str()?;
        let (way, value) = configured(dump, &url)?;
        let named = place_of(machine, &value)
            .map_or_else(|| "apt's configuration sets".to_owned(), |at| format!("{at} sets"));
        Some(format!(
            "apt reaches {host} through {way}, which {named}; correct it there, or reach {host} \
             directly with `Acquire::{}::Proxy::{host} \"DIRECT\";`",
            url.scheme()
        ))
    })
}

/// A proxy as messages call it, and the setting's value.
fn configured(dump: &str, url: &Url) -> Option<(String, String)> {
    let value = |name: String| {
        let text = |line: &str| {
            let value = line.strip_prefix(&name)?.strip_prefix(" \"")?.strip_suffix("\";")?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        dump.lines().rev().find_map(text)
    };
    // https has the settings of http where it has none of its own.
    let schemes = if url.scheme() == "https" { vec!["https", "http"] } else { vec!["http"] };
    let host = url.host_str()?;
    let of = |setting: String| {
        schemes.iter().find_map(|scheme| value(format!("Acquire::{scheme}::{setting}")))
    };
    if let Some(proxy) = of(format!("Proxy::{host}")) {
        return (proxy != "DIRECT").then(|| (shown(&proxy), proxy));
    }
    let program =
        ["Proxy-Auto-Detect", "ProxyAutoDetect"].into_iter().find_map(|name| of(name.to_owned()));
    if let Some(program) = program {
        return Some((format!("the proxy that the program {program} prints"), program));
    }
    of("Proxy".to_owned()).filter(|proxy| proxy != "DIRECT").map(|proxy| (shown(&proxy), proxy))
}

/// Without user and password.
fn shown(proxy: &str) -> String {
    let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    format!("the proxy {scheme}://{host}")
}

/// The last line that has the value: later files take precedence.
fn place_of(machine: &Machine, value: &str) -> Option<String> {
    let quoted = format!("\"{value}\"");
    let is_it = |line: &str| {
        let line = line.trim_start();
        line.contains(&quoted) && !line.starts_with('#') && !line.starts_with("//")
    };
    files(machine).into_iter().rev().find_map(|file| {
        let text = untrusted_file::read_text(machine.path(&file)).ok()?;
        let lines: Vec<&str> = text.lines().collect();
        let number = lines.iter().rposition(|line| is_it(line))?;
        Some(place(&file, number + 1))
    })
}

/// In the order in which apt reads them (apt.conf(5)).
fn files(machine: &Machine) -> Vec<PathBuf> {
    let folder = Path::new("/etc/apt/apt.conf.d");
    let entries = fs::read_dir(machine.path(folder)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| folder.join(entry.file_name()))
        .filter(|file| file.extension().is_none_or(|extension| extension == "conf"))
        .collect();
    files.sort();
    files.push(PathBuf::from("/etc/apt/apt.conf"));
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: &str = "E: Failed to fetch http://x.example.com/apt/dists/stable/InRelease  \
                          Could not connect to 127.0.0.1:9 (127.0.0.1). - connect (111: Connection \
                          refused)";

    /// What apt-config prints of the files, and what is said about the failure.
    fn advised(files: &[(&str, &str)], dump: &str) -> Option<String> {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (path, text) in files {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        advice_of(&machine, dump, FAILED)
    }

    #[test]
    fn a_proxy_is_traced_to_its_file_and_line_in_every_form() {
        for (path, text, dump, said) in [
            (
                "/etc/apt/apt.conf.d/01proxy",
                "// A proxy\nAcquire::http::Proxy \"http://me:word@127.0.0.1:9\";\n",
                "Acquire::http::Proxy \"http://me:word@127.0.0.1:9\";",
                "through the proxy http://127.0.0.1:9, which /etc/apt/apt.conf.d/01proxy:2 sets",
            ),
            (
                "/etc/apt/apt.conf",
                "Acquire {\n  http {\n    Proxy::x.example.com \"http://127.0.0.1:9\";\n  };\n};\n",
                "Acquire::http::Proxy \"\";\nAcquire::http::Proxy::x.example.com \
                 \"http://127.0.0.1:9\";",
                "which /etc/apt/apt.conf:3 sets",
            ),
            (
                "/etc/apt/apt.conf.d/auto",
                "Acquire::http::ProxyAutoDetect \"/usr/bin/auto\";\n",
                "Acquire::http::Proxy \"http://127.0.0.1:8\";\nAcquire::http::ProxyAutoDetect \
                 \"/usr/bin/auto\";",
                "the program /usr/bin/auto prints, which /etc/apt/apt.conf.d/auto:1 sets",
            ),
            (
                "/etc/apt/apt.conf.d/other.bak",
                "Acquire::http::Proxy \"http://127.0.0.1:9\";\n",
                "Acquire::http::Proxy \"http://127.0.0.1:9\";",
                "which apt's configuration sets",
            ),
        ] {
            let found = advised(&[(path, text)], dump).expect(dump);
            assert!(found.contains(said) && !found.contains("word"), "{found}");
            assert!(found.contains("`Acquire::http::Proxy::x.example.com \"DIRECT\";`"), "{found}");
        }
    }

    #[test]
    fn the_last_file_that_sets_it_is_named() {
        let line = "Acquire::http::Proxy \"http://127.0.0.1:9\";";
        let first = ("/etc/apt/apt.conf.d/01a", line);
        let last = ("/etc/apt/apt.conf.d/99b", "#Acquire::http::Proxy \"http://127.0.0.1:9\";\n");
        let found = advised(&[first, last], line).unwrap();
        assert!(found.contains("/etc/apt/apt.conf.d/01a:1"), "{found}");
        let found = advised(&[first, ("/etc/apt/apt.conf.d/99b", line)], line).unwrap();
        assert!(found.contains("/etc/apt/apt.conf.d/99b:1"), "{found}");
    }

    #[test]
    fn a_host_without_a_proxy_gets_no_advice_about_one() {
        assert_eq!(advised(&[], ""), None);
        assert_eq!(advised(&[], "Acquire::http::Proxy \"\";"), None);
        let direct = "Acquire::http::Proxy \"http://127.0.0.1:9\";\n\
                      Acquire::http::Proxy::x.example.com \"DIRECT\";";
        assert_eq!(advised(&[], direct), None);
        let of_https = "Acquire::https::Proxy \"http://127.0.0.1:9\";";
        assert_eq!(advised(&[], of_https), None);
    }

    #[test]
    fn https_goes_through_the_proxy_of_http_where_it_has_none_of_its_own() {
        let url: Url = "https://x.example.com/apt".parse().unwrap();
        let general = "Acquire::http::Proxy \"http://127.0.0.1:9\";";
        assert_eq!(configured(general, &url).unwrap().1, "http://127.0.0.1:9");
        let own = format!("{general}\nAcquire::https::Proxy \"DIRECT\";");
        assert_eq!(configured(&own, &url), None);
    }
}
