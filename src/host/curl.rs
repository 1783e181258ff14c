//! curl: whether a server can be reached, and downloads.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
    /// What curl said of it, without its advice.
    pub said: String,
    /// The server's clock, as its header `Date` has it.
    pub date: Option<String>,
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
    Ok(answer(&asking(url, proxy, ca_cert).probe()?))
}

/// The same for a `POST` of `json`, which may be a secret.
///
/// # Errors
/// curl is missing.
pub fn post(
    url: &Url,
    json: &str,
    proxy: &[(String, String)],
    ca_cert: Option<&Path>,
) -> Result<Answer, CommandError> {
    let mut command = asking(url, proxy, ca_cert);
    command.args(["--header", "Content-Type: application/json", "--data", "@-"]);
    Ok(answer(&command.probe_with(json)?))
}

fn asking(url: &Url, proxy: &[(String, String)], ca_cert: Option<&Path>) -> Command {
    let mut command = curl(proxy, ca_cert);
    command.args(["--output", "/dev/null", "--dump-header", "-", "--max-time", "30"]);
    command.args(["--write-out", "%{http_code}", url.as_str()]);
    command
}

fn answer(output: &Output) -> Answer {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = stderr.lines().find(|line| line.starts_with("curl: ")).unwrap_or(stderr.trim());
    let stdout = String::from_utf8_lossy(&output.stdout);
    // A proxy's own headers come first, and the status stands last.
    let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
    Answer {
        status: lines.last().and_then(|status| status.parse().ok()).unwrap_or(0),
        code: output.status.code().unwrap_or(-1),
        said: said.to_owned(),
        date: lines.iter().rev().find_map(|line| header(line, "date")),
    }
}

fn header(line: &str, name: &str) -> Option<String> {
    let (found, value) = line.split_once(':')?;
    found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
}

/// The text at `url`; the rest as with [`get`].
///
/// # Errors
/// curl is missing, or there is no answer of status 200.
pub fn text(
    url: &Url,
    proxy: &[(String, String)],
    ca_cert: Option<&Path>,
) -> Result<String, CommandError> {
    curl(proxy, ca_cert).args(["--fail", "--retry", "3", url.as_str()]).read()
}

/// Saves what is at `url` as `file`, wherever it redirects to; the status, where 200
/// alone means that it was saved. The rest as with [`get`].
///
/// # Errors
/// curl is missing, or there is no answer, or it stalls for a minute.
pub fn save(
    url: &Url,
    file: &Path,
    proxy: &[(String, String)],
    ca_cert: Option<&Path>,
) -> Result<u16, CommandError> {
    let mut command = curl(proxy, ca_cert);
    command.args(["--location", "--retry", "3", "--speed-limit", "1", "--speed-time", "60"]);
    command.args(["--write-out", "%{http_code}", "--output"]).arg(file).arg(url.as_str());
    Ok(command.read()?.trim().parse().unwrap_or(0))
}

fn curl(proxy: &[(String, String)], ca_cert: Option<&Path>) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--connect-timeout", "10"]);
    if let Some(file) = ca_cert {
        command.arg("--cacert").arg(file);
    }
    // curl reads SCHEME_proxy for any scheme.
    let is_proxy =
        |name: &OsString| name.to_ascii_lowercase().as_encoded_bytes().ends_with(b"_proxy");
    for name in env::vars_os().map(|(name, _)| name).filter(is_proxy) {
        command.env_remove(name);
    }
    // In the environment: a proxy's password is never on a command line.
    command.envs(proxy.iter().map(|(name, value)| (name, value)));
    command
}

/// Downloads `url` to `file`, over HTTPS alone, with three tries; what the file has
/// already is not fetched again. Its progress is shown if `bar` is set.
///
/// # Errors
/// curl is missing, or could not download it.
pub fn download(
    url: &str,
    file: &Path,
    ca_cert: Option<&Path>,
    bar: bool,
) -> Result<(), CommandError> {
    let mut command = Command::new("curl");
    command.args(["--fail", "--location", "--proto", "=https", "--proto-redir", "=https"]);
    command.args(["--retry", "3", "--connect-timeout", "20", "--continue-at", "-"]);
    command.arg("--output").arg(file);
    if let Some(file) = ca_cert {
        command.arg("--cacert").arg(file);
    }
    if !bar {
        return command.args(["--silent", "--show-error", url]).run();
    }
    command.args(["--progress-bar", url]).stderr(Stdio::inherit()).run()
}
