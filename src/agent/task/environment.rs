//! A run's variables: those of its environment, and those of its configuration.

use anyhow::{Result, bail};
use url::Url;

use super::paths;
use protocol::{Category, Claimed, Operation, Task};

/// The most bytes that `NAME=VALUE` may have, and all of these together: Linux starts
/// no program with more (`MAX_ARG_STRLEN`; a quarter of the stack's limit, which is
/// 8 MiB, with some room for arguments and for what the image sets).
const MAX_VARIABLE: usize = 128 * 1024 - 1;
const MAX_ENVIRONMENT: usize = 2 * 1024 * 1024 - 128 * 1024;

/// The variables that tell programs which certificate authorities to trust.
const CERTIFICATE_VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "AWS_CA_BUNDLE",
];

/// The text that the entry point sources, a line `variable NAME VALUE` for each: all
/// that the run's environment has, besides what the image sets. It goes in as a file,
/// so that nothing of it is seen by asking the engine. The workspace's variables come
/// last, so they win.
///
/// # Errors
/// A variable's name is none that a shell knows; one of them, or all together, are
/// too large for Linux.
pub(super) fn shell(
    claimed: &Claimed,
    server: &Url,
    proxy: &[(String, String)],
    trust: bool,
) -> Result<String> {
    let task = &claimed.task;
    let mut text = String::new();
    let mut bytes = 0;
    let mut set = |name: &str, value: &str| {
        bytes += name.len() + value.len() + 2;
        text.push_str(&format!("variable {name} '{}'\n", value.replace('\'', r"'\''")));
    };
    for (name, value) in proxy {
        set(name, value);
    }
    if trust {
        for name in CERTIFICATE_VARIABLES {
            set(name, paths::CERTIFICATES);
        }
    }
    for (name, value) in [
        ("TF_IN_AUTOMATION", "1"),
        ("TF_INPUT", "0"),
        // Every start would wait three seconds for an answer where there is
        // no way out.
        ("CHECKPOINT_DISABLE", "1"),
        // An old Terraform (seen: 1.0.3) starts itself again as its own child,
        // and the parent keeps an interrupt to itself: the run goes on. With
        // this there is no child; newer versions don't know it.
        ("TF_FORK", "0"),
        ("SCALR_RUN_ID", &task.run_id),
        ("SCALR_RUN_SOURCE", &task.run_source),
        ("SCALR_RUN_IS_DESTROY", if task.operation == Operation::Destroy { "1" } else { "0" }),
        ("SCALR_TERRAFORM_OPERATION", &task.kind.to_string()),
        ("SCALR_HOSTNAME", &hostname(server)),
        ("SCALR_WORKSPACE_ID", &task.workspace.id),
        ("SCALR_WORKSPACE_NAME", &task.workspace.name),
        ("SCALR_ENVIRONMENT_ID", &task.environment.id),
        ("SCALR_ENVIRONMENT_NAME", &task.environment.name),
    ] {
        set(name, value);
    }
    if let Some(token) = &claimed.run_token {
        set("SCALR_TOKEN", token.expose());
        if let Some(name) = credentials_variable(server) {
            set(&name, token.expose());
        }
    }
    for variable in task.variables.iter().filter(|v| v.category == Category::Shell) {
        if !is_name(&variable.key, "") {
            bail!("`{}` is not the name of an environment variable", variable.key);
        }
        let length = variable.key.len() + 1 + variable.value.expose().len();
        if length > MAX_VARIABLE {
            bail!(
                "the shell variable {} has {length} bytes, more than the {MAX_VARIABLE} that Linux passes to a program. Put the value into a file of the configuration, or into a Terraform variable",
                variable.key
            );
        }
        set(&variable.key, variable.value.expose());
    }
    if bytes > MAX_ENVIRONMENT {
        bail!(
            "the run's shell variables have {bytes} bytes together, more than the {MAX_ENVIRONMENT} that Linux passes to a program. Put large values into files of the configuration, or into Terraform variables"
        );
    }
    Ok(text)
}

/// The server as a run calls it: its host, and its port where that is not
/// HTTPS's own.
fn hostname(server: &Url) -> String {
    let host = server.host_str().unwrap_or_default();
    server.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The variable that Terraform (1.2 and newer) takes the token for a host from,
/// the host's dots being `_` and its hyphens `__` in it. None for a host whose
/// name no variable can carry: one with a port, or an IPv6 address.
fn credentials_variable(server: &Url) -> Option<String> {
    let host = hostname(server);
    let fits = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
    fits.then(|| format!("TF_TOKEN_{}", host.replace('-', "__").replace('.', "_")))
}

/// Terraform's CLI configuration with the run's token for the server: the one way for hosts with
/// a port, and for a Terraform before 1.2. None for a host that Terraform does not take there,
/// an IPv6 address.
pub(super) fn credentials(claimed: &Claimed, server: &Url) -> Option<String> {
    let token = serde_json::Value::from(claimed.run_token.as_ref()?.expose());
    let host = hostname(server);
    (!host.starts_with('[')).then(|| format!("credentials \"{host}\" {{\n  token = {token}\n}}\n"))
}

/// The files with the configuration's variables, which the entry point puts beside the
/// configuration: their paths and contents.
///
/// # Errors
/// A variable's name is none that Terraform knows.
pub(super) fn terraform(task: &Task) -> Result<Vec<(&'static str, String)>> {
    let mut texts = serde_json::Map::new();
    let mut expressions = String::new();
    for variable in task.variables.iter().filter(|v| v.category == Category::Terraform) {
        if !is_name(&variable.key, "-") {
            bail!("`{}` is not the name of a Terraform variable", variable.key);
        }
        let value = variable.value.expose();
        if variable.hcl {
            expressions.push_str(&format!("{} = {value}\n", variable.key));
        } else {
            texts.insert(variable.key.clone(), value.into());
        }
    }
    let mut files = Vec::new();
    if !texts.is_empty() {
        files.push((paths::TEXTS, serde_json::Value::Object(texts).to_string()));
    }
    if !expressions.is_empty() {
        files.push((paths::EXPRESSIONS, expressions));
    }
    Ok(files)
}

fn is_name(name: &str, also: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || also.contains(c))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::task::tests::claimed;
    use host::command::CommandExt as _;
    use protocol::Secret;
    use protocol::Variable;

    fn with(key: &str, value: &str, category: Category, hcl: bool) -> Claimed {
        let mut claimed = claimed();
        let (key, value) = (key.to_owned(), Secret::new(value));
        claimed.task.variables = vec![Variable { key, value, category, hcl, sensitive: true }];
        claimed
    }

    fn server() -> Url {
        "https://pools.my-company.example".parse().unwrap()
    }

    /// What a shell that sources the text finds in the variable.
    fn sourced(text: &str, name: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let script =
            format!("variable() {{ export \"$1=$2\"; }}; . \"$1\"; printf '%s' \"${name}\"");
        Command::new("sh").args(["-c", &script, "sh"]).arg(file.path()).read().unwrap()
    }

    #[test]
    fn a_shell_reads_every_value_as_it_was() {
        let value = "it's \"$HOME\" `id` \\ \nsecond line";
        let task = with("MINE", value, Category::Shell, false);
        let text = shell(&task, &server(), &[], true).unwrap();
        assert_eq!(sourced(&text, "MINE"), value);
    }

    #[test]
    fn the_runs_token_is_terraforms_too_unless_the_workspace_has_one() {
        let text = shell(&claimed(), &server(), &[], false).unwrap();
        assert_eq!(sourced(&text, "SCALR_TOKEN"), "token-of-the-run");
        let name = "TF_TOKEN_pools_my__company_example";
        assert_eq!(sourced(&text, name), "token-of-the-run");
        let own = with(name, "mine", Category::Shell, false);
        let text = shell(&own, &server(), &[], false).unwrap();
        assert_eq!(sourced(&text, name), "mine");
        assert_eq!(sourced(&text, "SCALR_TOKEN"), "token-of-the-run");

        let old_server = Claimed { run_token: None, ..claimed() };
        let text = shell(&old_server, &server(), &[], false).unwrap();
        assert!(!text.contains("TOKEN"), "{text}");
    }

    #[test]
    fn a_port_is_part_of_the_host_and_of_no_variable() {
        let named = |url: &str| {
            let url = url.parse().unwrap();
            (hostname(&url), credentials_variable(&url))
        };
        let variable = Some("TF_TOKEN_10_0_0_5".to_owned());
        assert_eq!(named("https://10.0.0.5:443"), ("10.0.0.5".to_owned(), variable));
        assert_eq!(named("https://pools.test:8443"), ("pools.test:8443".to_owned(), None));
        assert_eq!(named("https://[::1]"), ("[::1]".to_owned(), None));
    }

    #[test]
    fn terraforms_configuration_has_the_token_for_every_host_that_it_takes() {
        let of = |url: &str| credentials(&claimed(), &url.parse().unwrap());
        let block =
            |host| Some(format!("credentials \"{host}\" {{\n  token = \"token-of-the-run\"\n}}\n"));
        assert_eq!(of("https://pools.test"), block("pools.test"));
        assert_eq!(of("https://pools.test:8443"), block("pools.test:8443"));
        assert_eq!(of("https://10.0.0.5:8443"), block("10.0.0.5:8443"));
        assert_eq!(of("https://[::1]:8443"), None, "Terraform would refuse all of the file");
        let old_server = Claimed { run_token: None, ..claimed() };
        assert_eq!(credentials(&old_server, &server()), None);
    }

    #[test]
    fn a_name_cannot_carry_a_command() {
        let task = with("A=1;id;B", "x", Category::Shell, false);
        assert!(shell(&task, &server(), &[], false).is_err());
        let task = with("a = 1\nb", "x", Category::Terraform, true);
        assert!(terraform(&task.task).is_err());
    }

    #[test]
    fn what_linux_does_not_pass_on_is_refused_with_its_name() {
        let refusal =
            |claimed: &Claimed| shell(claimed, &server(), &[], false).unwrap_err().to_string();
        let large = "x".repeat(MAX_VARIABLE - "MINE=".len());
        let fits = with("MINE", &large, Category::Shell, false);
        let text = shell(&fits, &server(), &[], false).unwrap();
        assert_eq!(sourced(&text, "{#MINE}"), large.len().to_string());
        let too_large = with("MINE", &format!("{large}x"), Category::Shell, false);
        assert!(refusal(&too_large).starts_with("the shell variable MINE has 131072 bytes"));

        let mut many = with("MINE", &large, Category::Shell, false);
        let variable = many.task.variables[0].clone();
        many.task.variables =
            (0..16).map(|n| Variable { key: format!("A{n:03}"), ..variable.clone() }).collect();
        assert!(refusal(&many).contains("bytes together"), "{}", refusal(&many));
    }

    #[test]
    fn texts_and_expressions_go_into_files_of_their_own() {
        let task = with("name", "a \"b\" ${c}", Category::Terraform, false);
        assert_eq!(
            terraform(&task.task).unwrap(),
            [(paths::TEXTS, r#"{"name":"a \"b\" ${c}"}"#.to_owned())]
        );
        let task = with("zones", "[\"a\", \"b\"]", Category::Terraform, true);
        assert_eq!(
            terraform(&task.task).unwrap(),
            [(paths::EXPRESSIONS, "zones = [\"a\", \"b\"]\n".to_owned())]
        );
    }
}
