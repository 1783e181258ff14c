//! curl: whether a server can be reached.

use std::path::Path;
use std::process::Command;

use url::Url;

use super::command::{CommandError, CommandExt as _};

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, 0 if there was no answer.
    pub status: u16,
    /// curl's own exit code: 0 is an answer, 6 an unknown name, 60 a certificate
    /// that is not trusted, … (curl(1)).
    pub code: i32,
    /// What curl said of it.
    pub said: String,
}

/// Asks for `url`, with just these variables for a proxy: those of the shell
/// that we run in are none of the service's.
///
/// # Errors
/// curl is missing.
pub fn get(
    url: &Url,
    proxy: &[(String, String)],
    ca_cert: Option<&Path>,
) -> Result<Answer, CommandError> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--output", "/dev/null"]);
    command.args(["--connect-timeout", "10", "--max-time", "30", "--write-out", "%{http_code}"]);
    if let Some(file) = ca_cert {
        command.arg("--cacert").arg(file);
    }
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_ascii_lowercase());
    }
    // In the environment: a proxy's password is never on a command line.
    command.envs(proxy.iter().map(|(name, value)| (name, value)));
    let output = command.arg(url.as_str()).probe()?;
    Ok(Answer {
        status: String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0),
        code: output.status.code().unwrap_or(-1),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
