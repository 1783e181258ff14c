//! The command line of `scalr-server`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use jiff::SpanRelativeTo;
use url::Url;

use cli::Failure;
use cli::documents;
use protocol::limits::MAX_STATE;

use crate::commands::{Pool, Run, SignInLink, Trial, TrustKey, Variable, Workspace};
use crate::connections::Limits;
use crate::usage::Quotas;
use crate::variables;

/// Keeps agent pools, workspaces, runs and state.
#[derive(Debug, Parser)]
#[command(name = "scalr-server", version, max_term_width = 80, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What this process was called with; ends it if that is wrong.
    pub fn of_process() -> Self {
        Self::try_parse().unwrap_or_else(|error| variables::named(error, Self::command()).exit())
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the agents, the pool API, the install script and the packages
    #[command(after_help = EXAMPLES)]
    Serve(Box<Serve>),

    /// Try it out on this machine: a server, a pool, a workspace and an agent
    ///
    /// All of it is in a temporary folder, and Ctrl-C removes it. The agent needs
    /// Docker and the program scalr-agent; without them, everything but runs works.
    #[command(after_help = TRIAL_EXAMPLE)]
    Trial(Trial),

    /// Make, list and revoke admins' tokens
    ///
    /// It may be called while the server runs.
    #[command(subcommand)]
    AdminToken(AdminToken),

    /// Print a link that signs one browser in to the server's pages, once
    ///
    /// It works for 15 minutes. Only root and the server's user may make one.
    SignInLink(SignInLink),

    /// Trust a new key of the packages
    ///
    /// The install script names the trusted key, which is the one of the first
    /// start. It is not served while the packages have another one.
    #[command(
        after_help = "Example, on the server's host and as its user:\n  scalr-server trust-key --packages ./repository \\\n      --sha256 \"$(ssh build sha256sum scalr-agent.asc | cut -c-64)\""
    )]
    TrustKey(TrustKey),

    /// Create, list, show and delete agent pools, and create their tokens
    #[command(subcommand)]
    Pool(Pool),

    /// Create and list workspaces
    #[command(subcommand)]
    Workspace(Workspace),

    /// Set variables of workspaces
    #[command(subcommand)]
    Variable(Variable),

    /// Start, follow, apply and cancel runs
    #[command(subcommand)]
    Run(Run),

    /// Write the manual pages and completions of this program
    #[command(hide = true)]
    Documents(documents::Args),
}

/// What to do with admins' tokens.
#[derive(Debug, Subcommand)]
pub enum AdminToken {
    /// Make a token and print it, once
    #[command(
        after_help = "Example:\n  scalr-server admin-token create --name=ci --expires-in=90d"
    )]
    Create {
        /// The server's folder
        #[command(flatten)]
        folder: ServerFolder,

        /// The token's name, for people
        #[arg(long, value_name = "NAME", default_value = "admin")]
        name: String,

        /// When it stops working, for example 90d, 12h or 30m [default: never]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires_in: Option<Duration>,

        /// Write the token into this file (mode 0600) instead of standard output
        #[arg(long, value_name = "FILE")]
        admin_token_file: Option<PathBuf>,
    },

    /// List the tokens, without their secrets
    List {
        /// The server's folder
        #[command(flatten)]
        folder: ServerFolder,
    },

    /// Revoke a token: it stops working at once
    Revoke {
        /// The server's folder
        #[command(flatten)]
        folder: ServerFolder,

        /// The token's id, at-…
        #[arg(value_name = "ID")]
        id: String,

        /// Also if no other token works
        #[arg(long)]
        force: bool,
    },
}

impl AdminToken {
    /// The server's folder.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Create { folder, .. } | Self::List { folder } | Self::Revoke { folder, .. } => {
                &folder.data
            }
        }
    }
}

/// Which server.
#[derive(Debug, Args)]
pub struct ServerFolder {
    /// The server's folder
    #[arg(long, value_name = "DIR", default_value = "/var/lib/scalr-server")]
    #[arg(env = "SCALR_SERVER_DATA")]
    pub data: PathBuf,
}

const TRIAL_EXAMPLE: &str = "\
Example:
  sudo scalr-server trial --image hashicorp/terraform:1.9";

const EXAMPLES: &str = "\
Examples:
  Try it out, with a certificate authority of the server's own in DIR/tls/ca.pem:
    scalr-server serve --data ./data --url https://pools.example.com:8443 --tls-self-signed

  With your own certificate, and the packages that agents are installed from:
    scalr-server serve --listen 0.0.0.0:443 --url https://pools.example.com \\
        --tls-cert fullchain.pem --tls-key key.pem --packages ./repository

  Behind a proxy that speaks TLS for it:
    scalr-server serve --listen 127.0.0.1:8080 --url https://pools.example.com --insecure-http

The first start prints the admin's token for the pool API, once.";

/// The options of `serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8443")]
    #[arg(env = "SCALR_SERVER_LISTEN")]
    pub listen: SocketAddr,

    /// Folder for the database, objects and logs; made if it is missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/scalr-server")]
    #[arg(env = "SCALR_SERVER_DATA")]
    pub data: PathBuf,

    /// Where agents and people find the server [default: this host's name and the port]
    #[arg(long, env = "SCALR_SERVER_URL", value_parser = public_url)]
    pub url: Option<Url>,

    /// How the server speaks TLS
    #[command(flatten)]
    pub tls: TlsOptions,

    /// Folder with the package repositories (what `scalr-agent-setup repository` wrote)
    #[arg(long, value_name = "DIR", env = "SCALR_SERVER_PACKAGES")]
    pub packages: Option<PathBuf>,

    /// On the first start, write the admin's token into this file as well (mode 0600)
    #[arg(long, value_name = "FILE", env = "SCALR_SERVER_ADMIN_TOKEN_FILE")]
    pub admin_token_file: Option<PathBuf>,

    /// How long a task stays with an agent without a heartbeat, in seconds
    ///
    /// Agents send four heartbeats in that time.
    #[arg(long, value_name = "SECONDS", default_value = "40", value_parser = lease)]
    #[arg(env = "SCALR_SERVER_LEASE")]
    pub lease: Duration,

    /// How long a plan may run, in seconds, from 10 to 604800
    ///
    /// For workspaces without plan-timeout-seconds. Its agent interrupts a plan then.
    #[arg(long, value_name = "SECONDS", default_value = "7200", value_parser = timeout)]
    #[arg(env = "SCALR_SERVER_PLAN_TIMEOUT")]
    pub plan_timeout: Duration,

    /// How long an apply may run, in seconds, from 10 to 604800
    ///
    /// For workspaces without apply-timeout-seconds.
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = timeout)]
    #[arg(env = "SCALR_SERVER_APPLY_TIMEOUT")]
    pub apply_timeout: Duration,

    /// How many state versions of each workspace are kept
    #[arg(long, value_name = "N", default_value_t = 50, env = "SCALR_SERVER_KEEP_STATES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub keep_states: u32,

    /// How long logs and plans are kept after a run's end, and configurations, in days
    #[arg(long, value_name = "DAYS", default_value = "90", value_parser = days)]
    #[arg(env = "SCALR_SERVER_KEEP_RUNS")]
    pub keep_runs: Duration,

    /// How much of the disk uploads leave free for the database, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 512, env = "SCALR_SERVER_RESERVE")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1_048_576))]
    pub reserve: u64,

    /// The largest state, in MiB, from 1 to 1024
    ///
    /// Agents keep a larger one on their host, and their workspace is locked.
    #[arg(long, value_name = "MIB", default_value_t = 512, env = "SCALR_SERVER_MAX_STATE")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MAX_STATE / (1024 * 1024)))]
    pub max_state: u64,

    /// How much may be stored
    #[command(flatten)]
    pub quotas: QuotaOptions,

    /// How many connections there may be
    #[command(flatten)]
    pub connections: ConnectionOptions,

    /// A token that may read GET /metrics and nothing else, in a file
    ///
    /// Of at least 32 letters and digits, for example from: openssl rand -hex 32
    #[arg(long, value_name = "FILE", env = "SCALR_SERVER_METRICS_TOKEN_FILE")]
    pub metrics_token_file: Option<PathBuf>,

    /// How the log on standard error looks
    #[arg(long, value_enum, default_value_t = LogFormat::Plain, env = "SCALR_SERVER_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// The time limits that a plan or an apply may have, in seconds.
pub(crate) const TIMEOUTS: RangeInclusive<u32> = 10..=7 * 24 * 60 * 60;

/// How much may be stored.
#[derive(Debug, Args)]
pub struct QuotaOptions {
    /// How much each workspace may store, in MiB; 0: as much as the disk has
    ///
    /// A workspace beyond it takes no uploads and begins no runs.
    #[arg(long, value_name = "MIB", default_value_t = 0, env = "SCALR_SERVER_WORKSPACE_QUOTA")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1_073_741_824))]
    pub workspace_quota: u64,

    /// How much all workspaces together may store, in MiB; 0: as much as the disk has
    #[arg(long, value_name = "MIB", default_value_t = 0, env = "SCALR_SERVER_ACCOUNT_QUOTA")]
    #[arg(value_parser = clap::value_parser!(u64).range(0..=1_073_741_824))]
    pub account_quota: u64,
}

impl QuotaOptions {
    pub(crate) fn bytes(&self) -> Quotas {
        let bytes = |mib: u64| (mib > 0).then_some(mib * 1024 * 1024);
        Quotas { workspace: bytes(self.workspace_quota), account: bytes(self.account_quota) }
    }
}

/// How many connections there may be.
#[derive(Debug, Args)]
pub struct ConnectionOptions {
    /// Most connections at once; an agent holds two or three
    #[arg(long, value_name = "N", default_value = "40000", value_parser = connections)]
    #[arg(env = "SCALR_SERVER_MAX_CONNECTIONS")]
    pub max_connections: usize,

    /// Most connections at once that have not authenticated
    ///
    /// Others wait for up to 20 seconds, and are refused then.
    #[arg(long, value_name = "N", default_value = "1000", value_parser = connections)]
    #[arg(env = "SCALR_SERVER_MAX_UNAUTHENTICATED")]
    pub max_unauthenticated: usize,

    /// Most connections at once from one address that have not authenticated
    #[arg(long, value_name = "N", default_value = "500", value_parser = connections)]
    #[arg(env = "SCALR_SERVER_MAX_UNAUTHENTICATED_PER_ADDRESS")]
    pub max_unauthenticated_per_address: usize,
}

impl ConnectionOptions {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            all: self.max_connections,
            unauthenticated: self.max_unauthenticated,
            per_address: self.max_unauthenticated_per_address,
        }
    }
}

/// How the server speaks TLS.
#[derive(Debug, Args)]
pub struct TlsOptions {
    /// The server's certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "SCALR_SERVER_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "SCALR_SERVER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,

    /// Use a certificate authority of the server's own, kept in DATA/tls
    #[arg(long, conflicts_with = "tls_cert", env = "SCALR_SERVER_TLS_SELF_SIGNED")]
    #[arg(value_parser = BoolishValueParser::new())]
    pub tls_self_signed: bool,

    /// Another name or address that the self-signed certificate is for
    #[arg(long, value_name = "NAME", requires = "tls_self_signed", value_delimiter = ',')]
    #[arg(env = "SCALR_SERVER_TLS_NAMES", value_parser = crate::tls::name)]
    pub tls_name: Vec<String>,

    /// Speak plain HTTP: tokens and states can be read on the way
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_self_signed"])]
    #[arg(env = "SCALR_SERVER_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
    pub insecure_http: bool,
}

/// How the server speaks TLS, checked.
#[derive(Debug)]
pub enum Tls {
    /// With a certificate and key from files.
    Files {
        /// The certificate with its chain.
        cert: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// With a certificate of the server's own authority.
    SelfSigned {
        /// What it is for, besides the host of the URL.
        names: Vec<String>,
    },
    /// Not at all.
    Off,
}

impl TlsOptions {
    /// What was chosen, for a server that people find at `url`.
    ///
    /// # Errors
    /// Nothing was: that has to be said, not guessed. Or the URL is plain HTTP, and the
    /// server would speak TLS: hosts that follow it would not reach the server.
    pub fn choice(self, url: Option<&Url>) -> anyhow::Result<Tls> {
        let (tls, option) = match (self.tls_cert, self.tls_key) {
            (Some(cert), Some(key)) => {
                (Tls::Files { cert, key }, "--tls-cert (SCALR_SERVER_TLS_CERT)")
            }
            _ if self.tls_self_signed => (
                Tls::SelfSigned { names: self.tls_name },
                "--tls-self-signed (SCALR_SERVER_TLS_SELF_SIGNED)",
            ),
            _ if self.insecure_http => return Ok(Tls::Off),
            _ => return Err(Failure::Usage.because(NO_TLS)),
        };
        match url {
            Some(url) if url.scheme() == "http" => Err(Failure::Usage.because(format!(
                "cannot serve {url} with TLS: the URL is plain HTTP, and {option} is set\n\
                 Set --url (SCALR_SERVER_URL) to https://…"
            ))),
            _ => Ok(tls),
        }
    }
}

const NO_TLS: &str = "\
cannot start: nothing says whether the server speaks TLS. Set one of these:
  --tls-cert and --tls-key (SCALR_SERVER_TLS_CERT, SCALR_SERVER_TLS_KEY): a certificate of yours
  --tls-self-signed (SCALR_SERVER_TLS_SELF_SIGNED=true): an authority of the server's own
  --insecure-http (SCALR_SERVER_INSECURE_HTTP=true): plain HTTP, behind a proxy that speaks TLS";

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line of text for each event.
    Plain,
    /// A JSON object for each event.
    Json,
}

pub(crate) fn public_url(text: &str) -> Result<Url, String> {
    let is_plain = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.host().is_some()
            && url.path() == "/"
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    };
    Url::parse(text).ok().filter(is_plain).ok_or_else(|| {
        "it takes scheme, host and port, for example https://pools.example.com:8443".to_owned()
    })
}

/// The name of an image, which the engine knows only once a run begins.
pub(crate) fn image(text: &str) -> Result<String, String> {
    config::check_image(text).map(|()| text.to_owned()).map_err(|why| format!("it {why}"))
}

fn timeout(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if TIMEOUTS.contains(&seconds) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(format!("it takes seconds, from {} to {}", TIMEOUTS.start(), TIMEOUTS.end())),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=1_000_000) => Ok(number),
        _ => Err("it takes a number from 1 to 1000000".to_owned()),
    }
}

fn lease(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("it takes seconds, from 1 to 86400".to_owned()),
    }
}

fn days(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(days @ 1..=36_500) => Ok(Duration::from_secs(days * 86_400)),
        _ => Err("it takes days, from 1 to 36500".to_owned()),
    }
}

/// A time from a minute to 100 years, as the pool API has it for tokens.
pub(crate) fn expiry(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| expected_expiry())?;
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let time = time.ok().and_then(|time| Duration::try_from(time).ok());
    time.filter(|time| (60..=100 * 365 * 86_400).contains(&time.as_secs()))
        .ok_or_else(expected_expiry)
}

fn expected_expiry() -> String {
    "it takes a time from a minute to 100 years, for example 90d, 12h or 30m".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_fits_a_terminal() {
        fn check(command: &mut clap::Command) {
            let help = command.render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
            command.get_subcommands_mut().for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&mut command);
    }

    #[test]
    fn a_token_expires_after_days_hours_or_minutes() {
        for (text, seconds) in [("90d", 90 * 86_400), ("12h", 43_200), ("30m", 1_800)] {
            assert_eq!(expiry(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "90", "0d", "-1d", "30s", "101y", "never"] {
            assert!(expiry(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_word_on_tls_nothing_starts() {
        let cli = Cli::parse_from(["scalr-server", "serve"]);
        let Command::Serve(serve) = cli.command else { panic!("{cli:?}") };
        let error = serve.tls.choice(None).unwrap_err();
        assert_eq!(Failure::of(&error), Failure::Usage);
        for name in ["--insecure-http", "SCALR_SERVER_TLS_SELF_SIGNED", "SCALR_SERVER_TLS_KEY"] {
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn tls_behind_a_plain_url_is_refused_with_the_names_of_both() {
        let choice = |options: &[&str]| {
            let cli = Cli::parse_from([&["scalr-server", "serve", "--url"], options].concat());
            let Command::Serve(serve) = cli.command else { panic!("{cli:?}") };
            serve.tls.choice(serve.url.as_ref())
        };
        let files = ["--tls-cert=a", "--tls-key=b"];
        for (tls, variable) in [
            (&["--tls-self-signed"][..], "SCALR_SERVER_TLS_SELF_SIGNED"),
            (&files, "SCALR_SERVER_TLS_CERT"),
        ] {
            let error = choice(&[&["http://x:8443"], tls].concat()).unwrap_err();
            assert_eq!(Failure::of(&error), Failure::Usage);
            let error = error.to_string();
            assert!(error.contains(variable) && error.contains("SCALR_SERVER_URL"), "{error}");
            assert!(choice(&[&["https://x:8443"], tls].concat()).is_ok());
        }
        // A proxy before it speaks TLS, or nobody does.
        for url in ["https://x", "http://x"] {
            assert!(choice(&[url, "--insecure-http"]).is_ok(), "{url}");
        }
    }

    #[test]
    fn an_image_is_a_name_and_no_address() {
        for name in [
            "hashicorp/terraform:1.9",
            &format!("r.example.com:5000/t@sha256:{}", "0123456789abcdef".repeat(4)),
            "t:{version}",
        ] {
            assert_eq!(image(name).as_deref(), Ok(name));
        }
        for name in ["", "two words", "https://r.example.com/t", "--rm"] {
            assert!(image(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_public_url_is_scheme_host_and_port() {
        assert!(public_url("https://pools.example.com:8443").is_ok());
        for url in ["pools.example.com", "ftp://x", "https://u:p@x", "https://x/y", "https://x?y"] {
            assert!(public_url(url).is_err(), "{url}");
        }
    }
}
