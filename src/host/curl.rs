//! curl: whether a server can be reached, and downloads.

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::Result;
use tempfile::NamedTempFile;
use url::Url;

use super::authorities;
use super::command::CommandExt as _;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, 0 if there was no answer.
    pub status: u16,
    /// The status of the proxy's answer to CONNECT, 0 if there was none.
    pub proxy_status: u16,
    /// curl's own exit code: 0 is an answer, 6 an unknown name, 60 a certificate
    /// that is not trusted, … (curl(1)).
    pub code: i32,
    /// What curl said of it, without its advice.
    pub said: String,
    /// The server's clock, as its header `Date` has it.
    pub date: Option<String>,
}

impl Answer {
    /// Whether an https proxy did not let it through because its certificate is not trusted,
    /// or is none: before its answer to CONNECT.
    pub fn is_refused_proxy(&self) -> bool {
        self.status == 0 && self.proxy_status == 0 && [35, 51, UNTRUSTED].contains(&self.code)
    }
}

/// curl's exit code for a certificate that is not trusted.
const UNTRUSTED: i32 = 60;

/// What is said of a request besides the answer: its status, that of the proxy's answer to
/// CONNECT, and what OpenSSL says of the server's certificate, 0 if it is trusted.
const REPORT: &str = "%{http_code} %{http_connect} %{ssl_verify_result}";

/// Asks for `url`, with just these variables for a proxy: those of the shell
/// that we run in are none of the service's.
///
/// # Errors
/// curl is missing, or the authorities of an https proxy can't be read.
pub fn get(url: &Url, proxy: &[(String, String)], ca_cert: Option<&Path>) -> Result<Answer> {
    Ok(answer(&asking(url, proxy, ca_cert)?.command.probe()?))
}

/// The same for a `POST` of `json`, which may be a secret.
///
/// # Errors
/// As with [`get`].
pub fn post(
    url: &Url,
    json: &str,
    proxy: &[(String, String)],
    ca_cert: Option<&Path>,
) -> Result<Answer> {
    let mut curl = asking(url, proxy, ca_cert)?;
    curl.command.args(["--header", "Content-Type: application/json", "--data", "@-"]);
    Ok(answer(&curl.command.probe_with(json)?))
}

fn asking(url: &Url, proxy: &[(String, String)], ca_cert: Option<&Path>) -> Result<Curl> {
    let mut curl = Curl::new(proxy, ca_cert)?;
    let command = &mut curl.command;
    command.args(["--output", "/dev/null", "--dump-header", "-", "--max-time", "30"]);
    command.args(["--write-out", REPORT, url.as_str()]);
    Ok(curl)
}

fn answer(output: &Output) -> Answer {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let said = stderr.lines().find(|line| line.starts_with("curl: ")).unwrap_or(stderr.trim());
    let stdout = String::from_utf8_lossy(&output.stdout);
    // A proxy's own headers come first, and the report stands last.
    let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
    let report: Vec<u16> = lines
        .last()
        .map(|report| report.split(' ').map(|number| number.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    let reported = |place: usize| report.get(place).copied().unwrap_or(0);
    let code = match output.status.code().unwrap_or(-1) {
        // Through an https proxy curl 7.88 has a failed handshake where others have this.
        35 if reported(2) != 0 => UNTRUSTED,
        code => code,
    };
    Answer {
        status: reported(0),
        proxy_status: reported(1),
        code,
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
/// As with [`get`], or there is no answer of status 200.
pub fn text(url: &Url, proxy: &[(String, String)], ca_cert: Option<&Path>) -> Result<String> {
    let mut curl = Curl::new(proxy, ca_cert)?;
    Ok(curl.command.args(["--fail", "--retry", "3", url.as_str()]).read()?)
}

/// Saves what is at `url` as `file`, wherever it redirects to; the status, where 200
/// alone means that it was saved. The rest as with [`get`].
///
/// # Errors
/// As with [`get`], or there is no answer, or it stalls for a minute.
pub fn save(
    url: &Url,
    file: &Path,
    proxy: &[(String, String)],
    ca_cert: Option<&Path>,
) -> Result<u16> {
    let mut curl = Curl::new(proxy, ca_cert)?;
    let command = &mut curl.command;
    command.args(["--location", "--retry", "3", "--speed-limit", "1", "--speed-time", "60"]);
    command.args(["--write-out", "%{http_code}", "--output"]).arg(file).arg(url.as_str());
    Ok(command.read()?.trim().parse().unwrap_or(0))
}

/// A call of curl, and the authorities of an https proxy, which it reads meanwhile.
struct Curl {
    command: Command,
    _of_proxy: Option<NamedTempFile>,
}

impl Curl {
    fn new(proxy: &[(String, String)], ca_cert: Option<&Path>) -> Result<Self> {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--connect-timeout", "10"]);
        for name in env::vars_os().map(|(name, _)| name).filter(is_proxy) {
            command.env_remove(name);
        }
        // In the environment: a proxy's password is never on a command line.
        command.envs(proxy.iter().map(|(name, value)| (name, value)));
        let is_encrypted = proxy.iter().any(|(_, value)| value.starts_with("https://"));
        let of_proxy = trust(&mut command, ca_cert, is_encrypted)?;
        Ok(Self { command, _of_proxy: of_proxy })
    }
}

/// curl reads SCHEME_proxy for any scheme.
fn is_proxy(name: &OsString) -> bool {
    name.to_ascii_lowercase().as_encoded_bytes().ends_with(b"_proxy")
}

/// Has curl trust these authorities: a server's instead of the system's, and an https
/// proxy's besides them. Keep what it returns until curl has ended.
fn trust(
    command: &mut Command,
    ca_cert: Option<&Path>,
    by_https_proxy: bool,
) -> Result<Option<NamedTempFile>> {
    let Some(ca_cert) = ca_cert else { return Ok(None) };
    command.arg("--cacert").arg(ca_cert);
    // Curls before 7.52 know neither https proxies nor the option.
    if !by_https_proxy {
        return Ok(None);
    }
    let mut file = NamedTempFile::new()?;
    file.write_all(&authorities::of_host_and(Some(ca_cert))?.unwrap_or_default())?;
    command.arg("--proxy-cacert").arg(file.path());
    Ok(Some(file))
}

/// Downloads `url` to `file`, over HTTPS alone, with three tries; what the file has
/// already is not fetched again. Its progress is shown if `bar` is set.
///
/// # Errors
/// As with [`get`], or curl could not download it.
pub fn download(url: &str, file: &Path, ca_cert: Option<&Path>, bar: bool) -> Result<()> {
    let mut command = Command::new("curl");
    command.args(["--fail", "--location", "--proto", "=https", "--proto-redir", "=https"]);
    command.args(["--retry", "3", "--connect-timeout", "20", "--continue-at", "-"]);
    command.arg("--output").arg(file);
    let by_https_proxy = env::vars_os()
        .any(|(name, value)| is_proxy(&name) && value.as_encoded_bytes().starts_with(b"https://"));
    let _of_proxy = trust(&mut command, ca_cert, by_https_proxy)?;
    if bar {
        command.args(["--progress-bar", url]).stderr(Stdio::inherit());
    } else {
        command.args(["--silent", "--show-error", url]);
    }
    Ok(command.run()?)
}
