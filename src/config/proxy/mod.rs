//! The rules about proxies, for every program of ours: which variables name one,
//! how their values are read, what is reached without a proxy, and which part of
//! a value is secret. `scripts/install.sh` follows the same rules; a test in
//! `tests/install_script` compares the two.

mod address;
mod bypass;
mod credentials;
mod selection;
mod settings;

pub use address::with_port;
pub use credentials::{masked, masked_value, secrets_of};
pub use selection::ProxySelection;
pub use settings::ProxySettings;

/// The variables, upper case; programs differ in which case they read.
const VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// Whether a variable, in either case, is one of a proxy's.
pub fn is_variable(name: &str) -> bool {
    VARIABLES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// The proxy's variables, each under its upper and its lower case name; one that
/// is set in one case gets the same value in the other. An empty value is the
/// same as none. `value` looks a variable up.
pub fn variables<T: Into<String>>(value: impl Fn(&str) -> Option<T>) -> Vec<(String, String)> {
    let value = |name: &str| value(name).map(Into::into).filter(|value| !value.is_empty());
    let mut variables = Vec::new();
    for upper in VARIABLES {
        let lower = upper.to_ascii_lowercase();
        let (in_upper, in_lower) = (value(upper), value(&lower));
        if let Some(value) = in_upper.clone().or_else(|| in_lower.clone()) {
            variables.push((upper.to_owned(), value));
        }
        if let Some(value) = in_lower.or(in_upper) {
            variables.push((lower, value));
        }
    }
    variables
}

/// The [`variables`] of this process.
pub fn of_environment() -> Vec<(String, String)> {
    variables(|name| std::env::var(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(set: &[(&'static str, &'static str)]) -> Vec<(String, String)> {
        variables(|name| set.iter().find(|(known, _)| *known == name).map(|set| set.1))
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_variable_set_in_one_case_gets_the_same_value_in_the_other() {
        let both = owned(&[("HTTPS_PROXY", "http://p:1"), ("https_proxy", "http://p:1")]);
        assert_eq!(found(&[("https_proxy", "http://p:1"), ("HOME", "/")]), both);
        assert_eq!(found(&[("HTTPS_PROXY", "http://p:1"), ("https_proxy", "")]), both);
        let each = [("NO_PROXY", "a"), ("no_proxy", "b")];
        assert_eq!(found(&each), owned(&each));
        assert_eq!(found(&[("ALL_PROXY", "")]), []);
    }

    #[test]
    fn a_proxy_variable_is_recognized_in_either_case() {
        assert!(is_variable("no_proxy") && is_variable("ALL_PROXY"));
        assert!(!is_variable("FTP_PROXY") && !is_variable("PROXY"));
    }
}
