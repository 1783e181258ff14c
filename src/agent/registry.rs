//! Image registries: their passwords, and what to do when one refuses.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

use crate::trusted;
use protocol::Secret;

/// The registry of images whose name names none, as people call it.
const DOCKER_HUB: &str = "docker.io";

/// The same in a config.json.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The host (and port) of an image's registry.
pub(crate) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

/// The credentials for the registry of `image` in `file`, which has the form of
/// Docker's config.json; none when it has none for that registry.
///
/// # Errors
/// The file can't be read, can be read by everybody, is not of that form, or
/// leaves the registry to a credential helper, which the agent doesn't call.
pub(crate) fn credentials(file: &Path, image: &str) -> Result<Option<DockerCredentials>> {
    let registry = registry_of(image);
    find(file, registry)
        .with_context(|| format!("cannot use {} for the registry {registry}", file.display()))
}

/// What registries say to those who may not know whether an image exists.
const DENIED: [&str; 4] = ["unauthorized", "no basic auth", "denied", "authentication required"];

/// Whether an error is a registry's word that an image is not to be had. A plain "not found"
/// is none: an engine that cannot ask registries says so of the question.
pub(crate) fn is_refusal(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    let missing = ["manifest unknown", "name unknown", "name invalid", ": not found"];
    missing.iter().chain(&DENIED).any(|text| error.contains(text))
}

/// What to do about a pull that failed, as the end of a message.
pub(crate) fn advice(image: &str, error: &str) -> String {
    let registry = registry_of(image);
    let error = error.to_ascii_lowercase();
    let says = |texts: &[&str]| texts.iter().any(|text| error.contains(text));
    if says(&["no matching manifest", "does not match the specified platform"]) {
        format!("it is not made for linux/{}: use an image that is", go_architecture())
    } else if says(&["has expired or is not yet valid"]) {
        format!(
            "the certificate of {registry} is not valid at this time: check this host's clock first; if that is right, the registry needs a new one"
        )
    } else if says(&["x509", "certificate"]) {
        format!(
            "the engine does not trust {registry}: put the certificate of its authority into /etc/docker/certs.d/{registry}/ca.crt on the agent's host"
        )
    // Before "not found", which registries also say to those who may not know.
    } else if says(&DENIED) {
        format!(
            "either the image does not exist, or {registry} requires other credentials: name a file in the form of Docker's config.json with `scalr-agent configure --registry-auth FILE` and restart the agent"
        )
    } else if says(&["manifest unknown", "not found", "name unknown"]) {
        "there is no image of that name and tag: correct it in the workspace, the pool or with `scalr-agent configure --image`".to_owned()
    } else if says(&["toomanyrequests", "too many requests", "rate limit"]) {
        format!(
            "{registry} limits how often it is asked: wait, or log in (`scalr-agent configure --registry-auth FILE`)"
        )
    } else {
        format!(
            "see that the agent's host reaches {registry}, through the proxy if there is one (`scalr-agent-setup proxy show`)"
        )
    }
}

/// The machine's architecture as registries call it.
pub(crate) fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
}

fn find(file: &Path, registry: &str) -> Result<Option<DockerCredentials>> {
    let text = trusted::private_text(file)?;
    // The parser's error may quote a password.
    let config: DockerConfig = serde_json::from_str(&text).map_err(|error| {
        anyhow::anyhow!("it is not of the form of Docker's config.json (line {})", error.line())
    })?;
    let is_meant = |key: &str| {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://");
        let host = bare.split('/').next().unwrap_or(bare);
        host == registry || (registry == DOCKER_HUB && key == DOCKER_HUB_KEY)
    };
    let auth = config.auths.into_iter().find(|(key, _)| is_meant(key)).map(|(_, auth)| auth);
    let helper = config
        .cred_helpers
        .into_iter()
        .find_map(|(key, helper)| is_meant(&key).then_some(helper))
        .or(config.creds_store);
    let credentials = match auth {
        Some(auth) => unpack(auth, registry)?,
        None => None,
    };
    match (credentials, helper) {
        (None, Some(helper)) => bail!(
            "it leaves the password to the credential helper `{helper}`, which the agent does not call: put the password into `auths`"
        ),
        (credentials, _) => Ok(credentials),
    }
}

/// None when the entry is there and empty, as `docker login` leaves it beside a
/// credential helper.
fn unpack(auth: Auth, registry: &str) -> Result<Option<DockerCredentials>> {
    let mut username = auth.username;
    let mut password = auth.password.map(|password| password.expose().to_owned());
    if let Some(both) = auth.auth.filter(|both| !both.expose().is_empty()) {
        let wrong = "`auth` is not the base64 form of USER:PASSWORD";
        let bytes = STANDARD.decode(both.expose()).ok().context(wrong)?;
        let both = String::from_utf8(bytes).ok().context(wrong)?;
        let (user, pass) = both.split_once(':').context(wrong)?;
        username = Some(user.to_owned());
        password = Some(pass.trim_end_matches('\0').to_owned());
    }
    let identitytoken = auth.identitytoken.map(|token| token.expose().to_owned());
    if password.is_none() && identitytoken.is_none() {
        return Ok(None);
    }
    let serveraddress = Some(registry.to_owned());
    let credentials = DockerCredentials {
        username,
        password,
        identitytoken,
        serveraddress,
        ..Default::default()
    };
    // The engine reads base64's URL alphabet, and the library that speaks to it
    // writes the other one: two of its characters would be lost.
    let sent = STANDARD.encode(serde_json::to_string(&credentials)?);
    if sent.contains(['+', '/']) {
        bail!(
            "its password can't be handed to the engine because of a ~, > or ? in it: use another"
        );
    }
    Ok(Some(credentials))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn found(text: &str, image: &str) -> Result<Option<DockerCredentials>> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        credentials(file.path(), image)
    }

    #[test]
    fn the_registry_of_an_image_is_found_as_docker_finds_it() {
        for (image, registry) in [
            ("busybox", "docker.io"),
            ("hashicorp/terraform:1.9", "docker.io"),
            ("registry.example.com/a/b@sha256:00", "registry.example.com"),
            ("registry:5000/a", "registry:5000"),
            ("localhost/a", "localhost"),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }

    #[test]
    fn credentials_are_those_of_the_registry() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"username": "hub", "password": "secret"},
            "registry:5000": {"auth": "bWU6cGE6c3M="}}}"#;
        let of = |image| found(text, image).unwrap();
        assert_eq!(of("busybox").unwrap().username.unwrap(), "hub");
        let registry = of("registry:5000/a:1").unwrap();
        assert_eq!(registry.username.unwrap(), "me");
        assert_eq!(registry.password.unwrap(), "pa:ss");
        assert!(of("registry.example.com/a").is_none());
    }

    #[test]
    fn an_unusable_file_is_reported_without_the_password() {
        let helper = r#"{"auths": {"r:1": {}}, "credsStore": "pass"}"#;
        let broken = r#"{"auths": {"r:1": {"auth": "hunter2"}}}"#;
        let lost = r#"{"auths": {"r:1": {"username": "u", "password": "~~~???hunter2"}}}"#;
        for (text, wanted) in [
            (helper, "credential helper `pass`"),
            (broken, "`auth` is not"),
            (lost, "use another"),
            (r#"{"auths": {"r:1": "hunter2"}}"#, "line 1"),
        ] {
            let error = format!("{:#}", found(text, "r:1/a").unwrap_err());
            assert!(error.contains(wanted) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_everybody_can_read_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = format!("{:#}", credentials(file.path(), "a").unwrap_err());
        assert!(error.contains("everybody can read it"), "{error}");
    }

    #[test]
    fn each_refusal_has_its_advice() {
        for (error, advice_has) in [
            ("manifest for r:1/a:9 not found: manifest unknown", "no image of that name"),
            ("pull access denied for a, repository does not exist", "--registry-auth"),
            ("Head \"https://r:1/v2/\": no basic auth credentials", "--registry-auth"),
            ("no matching manifest for linux/amd64 in the manifest list", "not made for linux/"),
            ("x509: certificate signed by unknown authority", "/etc/docker/certs.d/r:1/ca.crt"),
            (
                "tls: failed to verify certificate: x509: certificate has expired or is not yet \
                 valid: current time 2025-11-30T13:42:13Z is before 2026-11-30T00:00:00Z",
                "check this host's clock first",
            ),
            ("dial tcp: lookup r: no such host", "reaches r:1"),
        ] {
            let advice = advice("r:1/a:9", error);
            assert!(advice.contains(advice_has), "{error}: {advice}");
        }
    }
}
