//! The secrets of this host, and texts without them: what people show others
//! must hold none, wherever it comes from.

use std::collections::BTreeSet;

use cli::untrusted_file;
use config::Settings;
use config::layout::AGENT_DROP_INS;
use config::proxy::{is_variable, masked, secrets_of};
use host::machine::Machine;
use host::unit;
use protocol::redact::Redactor;

/// Words in the name of a variable whose value is a secret.
const TELLING: [&str; 4] = ["TOKEN", "SECRET", "PASSWORD", "KEY"];

/// The secrets of a host, as far as we may read them.
pub(crate) struct Secrets {
    known: BTreeSet<String>,
}

impl Secrets {
    /// The agent's token, the passwords of its proxies, and what else its unit is
    /// given under a telling name.
    pub(crate) fn of(machine: &Machine) -> Self {
        let mut known = BTreeSet::new();
        let file = machine.path(config::FILE);
        match Settings::read(&file) {
            Ok(settings) => known.extend(settings.token.map(|token| token.expose().to_owned())),
            Err(_) => known.extend(tokens(&untrusted_file::read_text(file).unwrap_or_default())),
        }
        for (name, given) in unit::environment(machine, AGENT_DROP_INS).unwrap_or_default() {
            let name = name.to_ascii_uppercase();
            if is_variable(&name) {
                known.extend(secrets_of(&given.value));
            } else if TELLING.iter().any(|word| name.contains(word)) || holds_headers(&name) {
                known.insert(given.value);
            }
        }
        Self { known }
    }

    /// The text without any of them, in whatever form, and without the password
    /// of any URL in it.
    pub(crate) fn mask(&self, text: &str) -> String {
        Redactor::new(self.known.iter().map(String::as_str))
            .mask(text)
            .split_inclusive(|c: char| c.is_whitespace() || "\"'`".contains(c))
            .map(masked)
            .collect()
    }
}

/// Whether a variable holds the headers of telemetry, which may be passwords:
/// `OTEL_EXPORTER_OTLP_HEADERS`, for example.
fn holds_headers(name: &str) -> bool {
    name.starts_with("OTEL_") && name.ends_with("_HEADERS")
}

/// The tokens in settings that can't be used: whatever stands after the name.
fn tokens(text: &str) -> Vec<String> {
    let value = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().trim_matches(['"', '\'']);
        name.contains("token").then(|| value.to_owned())
    };
    text.lines().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::layout::PROXY_DROP_IN;
    use std::fs;

    #[test]
    fn what_is_known_and_what_looks_like_it_is_masked() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (path, text) in [
            (config::FILE, "token = \"the-token\"\n"),
            (
                PROXY_DROP_IN,
                "[Service]\nEnvironment=HTTPS_PROXY=http://me:hunter%%202@proxy:1\n\
                 Environment=SCALR_TOKEN=the-other GITHUB_API_KEY=third-one\n\
                 Environment=OTEL_EXPORTER_OTLP_HEADERS=api=fourth\n",
            ),
        ] {
            let file = machine.path(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let secrets = Secrets::of(&machine);
        let text = "the-token \"the-other\" third-one api=fourth hunter 2 hunter%202 hunter%%202 \
            dGhlLXRva2Vu http://me:hunter%202@proxy:1 --url=https://you:unknown@host/x y@z";
        assert_eq!(
            secrets.mask(text),
            "*** \"***\" *** *** *** *** *** *** http://me:***@proxy:1 --url=https://you:***@host/x y@z"
        );
    }

    #[test]
    fn where_nothing_is_secret_nothing_is_masked() {
        let tree = tempfile::tempdir().unwrap();
        let text = "a\n  b: https://pools.example.com\n";
        assert_eq!(Secrets::of(&Machine::at(tree.path())).mask(text), text);
    }
}
