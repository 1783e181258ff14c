//! `proxy`: the proxy that scalr-agent and scalr-docker use.

mod drop_in;
mod engine_proxy;
mod restart;
mod show;

use std::io::{self, BufRead as _};

use anyhow::{Context as _, Result};
use clap::Subcommand;

pub(crate) use self::drop_in::{of_units, write};
use self::restart::{Restart, restart};
use crate::context::{Context, RECORDS, require_root};
use crate::document::{self, Progress};
use crate::install::route;
use cli::Failure;
use cli::{eprintln, println};
use config::layout::{AGENT_UNIT, ENGINE_UNIT};
use config::proxy::{self, ProxySettings};
use host::changes::Changes;
use host::os::Os;
use host::systemd::{self, Services};

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup proxy --http http://proxy.example.com:3128
  scalr-agent-setup proxy --http http://proxy.example.com:3128 \\
      --no-proxy .example.com,10.0.0.5
  scalr-agent-setup proxy --http - < url-with-password
  scalr-agent-setup proxy show
  scalr-agent-setup proxy remove

A URL with a password goes into /etc/scalr-agent/proxy.env, which only root can
read. Give it by standard input (-) or by the environment: other users can see
a command line.";

/// Set, show or remove the proxy that agent, engine and runs use
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = EXAMPLES
)]
pub(crate) struct Args {
    #[arg(
        long,
        value_name = "URL",
        required_unless_present = "from_environment",
        help = "The proxy for plain HTTP, http://[USER:PASSWORD@]HOST:PORT; - reads it from \
                standard input"
    )]
    http: Option<String>,
    /// The proxy for HTTPS; - reads it from standard input [default: that of
    /// --http]
    #[arg(long, value_name = "URL", requires = "http")]
    https: Option<String>,
    /// Names, .domains and addresses that are reached directly, separated by
    /// commas; this host and 169.254.169.254 always are
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,
    /// Take HTTP_PROXY, HTTPS_PROXY and NO_PROXY from the environment
    #[arg(long, conflicts_with_all = ["http", "https", "no_proxy"])]
    from_environment: bool,
    #[command(flatten)]
    manner: Manner,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the proxy that is set, without its password
    Show,
    /// Remove the proxy
    Remove(Manner),
}

#[derive(Debug, clap::Args)]
struct Manner {
    /// Do not restart the services
    #[arg(long)]
    no_restart: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace or remove files written by hand, too
    #[arg(long)]
    force: bool,
}

/// Runs `proxy`.
///
/// # Errors
/// A URL is refused, something was written by hand, a file can't be changed or a
/// service does not come up again; then nothing is changed.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    match &args.action {
        Some(Action::Show) => show::show(context),
        Some(Action::Remove(manner)) => document::of_changes("proxy", manner.dry_run, |progress| {
            remove(context, manner, progress)
        }),
        None => document::of_changes("proxy", args.manner.dry_run, |progress| {
            set(context, args, progress)
        }),
    }
}

fn set(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    let proxy = wanted(args)?;
    let family = Os::of(&context.machine)?.family;
    route::require_usable(&context.machine, family, &proxy.variables(), None)?;
    let nothing = "The proxy is already up to date; nothing changed.";
    change(context, &args.manner, progress, Restart::Wait, nothing, |changes| {
        let changed = write(changes, &proxy, args.manner.force)?;
        Ok(route::put(changes, family, &proxy.variables())? || changed)
    })
}

fn remove(context: &Context, manner: &Manner, progress: &mut Progress) -> Result<()> {
    // Whoever takes the only way out away means it: the agent may fail then.
    change(context, manner, progress, Restart::Begin, "No proxy is set.", |changes| {
        let changed = drop_in::remove(changes, manner.force)?;
        let family = Os::of(changes.machine())?.family;
        Ok(route::put(changes, family, &[])? || changed)
    })
}

fn wanted(args: &Args) -> Result<ProxySettings> {
    if args.from_environment {
        let set = proxy::of_environment();
        let of = |name: &str| Some(set.iter().find(|(known, _)| known == name)?.1.as_str());
        let (http, https) = (of("HTTP_PROXY"), of("HTTPS_PROXY"));
        let Some(first) = http.or(https) else {
            return Err(Failure::Usage.because(
                "neither HTTP_PROXY nor HTTPS_PROXY is in the environment; \
                 sudo passes them on with --preserve-env=HTTP_PROXY,HTTPS_PROXY,NO_PROXY",
            ));
        };
        return ProxySettings::check(first, https, of("NO_PROXY"));
    }
    let http = args.http.as_deref().context("clap requires --http")?;
    from_options(http, args.https.as_deref(), args.no_proxy.as_deref())
}

/// The proxy that options name; a URL `-` is read from standard input.
///
/// # Errors
/// Standard input can't be read or is empty, besides those of [`ProxySettings::check`].
pub(crate) fn from_options(
    http: &str,
    https: Option<&str>,
    no_proxy: Option<&str>,
) -> Result<ProxySettings> {
    let http = read_url(http)?;
    let https = https.map(read_url).transpose()?;
    ProxySettings::check(&http, https.as_deref(), no_proxy)
}

fn read_url(url: &str) -> Result<String> {
    if url != "-" {
        if url.rsplit_once('@').is_some_and(|(before, _)| before.contains("://")) {
            eprintln!(
                "warning: other users can see a command line, so they may have seen this \
                 password; next time give the URL by standard input: --http -"
            );
        }
        return Ok(url.to_owned());
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("cannot read standard input")?;
    let line = line.trim_end_matches(['\n', '\r']);
    if line.is_empty() {
        return Err(Failure::Usage.because("there is no URL on standard input"));
    }
    Ok(line.to_owned())
}

/// Makes a change of the drop-ins and lets the services that run see it.
fn change(
    context: &Context,
    manner: &Manner,
    progress: &mut Progress,
    wait: Restart,
    nothing: &str,
    change: impl FnOnce(&mut Changes) -> Result<bool>,
) -> Result<()> {
    require_root(&context.machine, manner.dry_run)?;
    let mut changes = Changes::begin(&context.machine, &RECORDS, manner.dry_run)?;
    let services = Services::of(&context.machine);
    if !change(&mut changes)? {
        changes.commit()?;
        println!("{nothing}");
        return Ok(());
    }
    if services.can_run() {
        changes.run("reload systemd", systemd::daemon_reload(), None)?;
    }
    if !manner.no_restart {
        restart(&mut changes, services, wait)?;
    }
    let changed = changes.changed().to_vec();
    changes.finish()?;
    progress.changed(&changed);
    if manner.no_restart && !manner.dry_run && services.can_run() {
        println!(
            "Next: systemctl restart {ENGINE_UNIT} && systemctl restart {AGENT_UNIT} (runs continue)"
        );
    }
    Ok(())
}
