//! The proxy that the services are given: by their drop-in, or by the
//! environment file that it names.
//!
//! A program that is run by hand has to use the same proxy as the service.

/// The variables, upper case; programs differ in which case they read.
pub const VARIABLES: [&str; 4] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"];

/// The proxy's variables of an environment, each under its upper and its lower
/// case name; `None` if it sets none. `value` looks a variable up.
pub fn variables<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Vec<(String, String)>> {
    let variables: Vec<_> = VARIABLES
        .iter()
        .filter_map(|upper| {
            let lower = upper.to_ascii_lowercase();
            let value = value(upper).or_else(|| value(&lower))?.to_owned();
            Some([((*upper).to_owned(), value.clone()), (lower, value)])
        })
        .flatten()
        .collect();
    (!variables.is_empty()).then_some(variables)
}

/// The text with the password of its URL hidden, and a user's name that stands
/// alone, since that is usually a token.
pub fn masked(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let Some((user, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    match user.split_once(':') {
        Some((name, _)) => format!("{scheme}://{name}:***@{host}"),
        None => format!("{scheme}://***@{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_counts_in_either_case_and_is_given_in_both() {
        let set = [("https_proxy", "http://proxy:1"), ("HOME", "/")];
        let found = variables(|name| set.iter().find(|(known, _)| *known == name).map(|set| set.1));
        let expected = ["HTTPS_PROXY", "https_proxy"]
            .map(|name| (name.to_owned(), "http://proxy:1".to_owned()));
        assert_eq!(found.unwrap(), expected);
        assert_eq!(variables(|_| None), None);
    }

    #[test]
    fn no_password_is_shown() {
        assert_eq!(masked("http://user:p@ss@host:1"), "http://user:***@host:1");
        assert_eq!(masked("http://token@host:1"), "http://***@host:1");
        assert_eq!(masked("http://host:1"), "http://host:1");
        assert_eq!(masked("localhost,127.0.0.1"), "localhost,127.0.0.1");
    }
}
