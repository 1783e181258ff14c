//! `install`: from a checked host to an agent that takes runs.

mod accounts;
mod authority;
mod image;
mod key;
mod package;
mod pool_token;
pub(crate) mod route;
mod same_id;
mod signed_by;
pub(crate) mod source;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use url::Url;

use self::authority::Authority;
use self::source::{Access, Source};
use crate::check::{self, Consent, Engine, Overrides, Print, Selection, Subject};
use crate::context::{Context, RECORDS, require_root};
use crate::document::{self, Progress};
use crate::runs::{self, Places};
use crate::{network, proxy, settings, start, units};
use cli::Failure;
use cli::{eprintln, println};
use config::edit::{self, Change};
use config::layout::{self, AGENT_UNIT, ENGINE_UNIT};
use config::proxy::ProxySettings;
use config::{ENGINE, Key, Settings};
use host::changes::{Attributes, Changes};
use host::machine::Machine;
use host::os::Os;
use host::systemd::{self, Services};

/// Keeps the agent's unit from starting the private engine where it is not used.
const DOCKER_MASK: &str = "/etc/systemd/system/scalr-docker.service";

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup install --url https://pools.example.com \\
      --token-file /root/pool-token --concurrency 2
  pass pools/token | scalr-agent-setup install --token-file - \\
      --url https://pools.example.com --http-proxy http://proxy:3128
  scalr-agent-setup install --engine system --dry-run

The token comes from --token-file or from SCALR_AGENT_TOKEN in the environment,
never from the command line, which other users can see. Settings that no option
names stay as they are. If a step fails, everything is undone.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 a check failed, 5 the
platform is not supported, 6 the package can't be installed, 7 not root or a
refused token, 8 a download failed, 9 the key is not the expected one, 10 the
package manager's lock was held for too long.";

/// Install the agent: check the host, write its settings, start its services
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The address of the server that has the pool
    #[arg(long, value_name = "URL", value_parser = config::address)]
    url: Option<Url>,
    /// The file with the pool's token; - reads it from standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The agent's name in its pool [default: the host's name]
    #[arg(long, value_name = "NAME")]
    agent_name: Option<String>,
    /// Number of concurrent runs
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Memory of each run, in MB
    #[arg(long, value_name = "MB")]
    memory: Option<u64>,
    /// CPU cores of each run
    #[arg(long, value_name = "N")]
    cpu: Option<f64>,
    #[arg(
        long,
        value_name = "NAME",
        help = "The user in a run's container: root, a name or UID[:GID]"
    )]
    user: Option<String>,
    /// The image of runs whose workspace and pool have none; {version} stands
    /// for the Terraform version [default: hashicorp/terraform:{version}]
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// A PEM file of authorities that the agent, and apt or yum for its server, trust;
    /// a copy is kept in /etc/scalr-agent/ca.pem
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The Docker engine of the runs: the package's own, or the host's
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// The proxy of agent, engine and runs; - reads it from standard input
    #[arg(long, value_name = "URL")]
    http_proxy: Option<String>,
    /// The proxy for HTTPS, if it is another one
    #[arg(long, value_name = "URL", requires = "http_proxy")]
    https_proxy: Option<String>,
    /// Hosts reached without the proxy, separated by commas
    #[arg(long, value_name = "LIST", requires = "http_proxy")]
    no_proxy: Option<String>,
    #[command(flatten)]
    source: Source,
    /// Add the package repository, and install nothing
    #[arg(long, conflicts_with_all = ["package", "token_file"])]
    repository_only: bool,
    /// Run the commands that fix what the checks find
    #[arg(long)]
    fix: bool,
    /// Continue if these checks or areas fail, separated by commas, or all
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    ignore: Vec<String>,
    /// Do not start the services
    #[arg(long)]
    no_start: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `install`.
///
/// # Errors
/// Not root (7); the platform is not supported (5); a check failed (3); the
/// settings are wrong (2); the repository's key can't be fetched (8) or is not the
/// expected one (9); the package can't be installed (6); another package tool is
/// at work (10); a service does not come up. Then everything is as it was before.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    document::of_changes("install", args.dry_run, |progress| install(context, args, progress))
}

fn install(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    let machine = &context.machine;
    require_root(machine, args.dry_run)?;
    if args.repository_only {
        return add_repository(context, args, progress);
    }
    progress.begin("settings");
    let wanted = args.settings()?;
    let proxy = args.proxy()?;
    require_usable(machine, args, proxy.as_ref())?;
    let authority = Authority::of(machine, args.ca_cert.as_deref())?;
    // First of all, so that what is checked is not what an interrupted one has left.
    let mut changes = Changes::begin(machine, &RECORDS, args.dry_run)?;
    // It is missed now, not when the package is installed.
    let (_, settings) = new_settings(machine, &wanted)?;
    refuse_another_engine(machine, args)?;
    package::require_no_hold(machine, &args.source, args.url.as_ref())?;
    progress.begin("check");
    let subject = subject(machine, args, proxy.as_ref())?;
    let verdict =
        check_host(context, args, &subject).and_then(|()| pool_token::check(&subject, &settings));
    if !args.dry_run {
        verdict.as_ref().map_err(|error| Failure::of(error).because(format!("{error:#}")))?;
    }

    let services = Services::of(machine);
    progress.begin("package");
    let variables = variables(machine, proxy.as_ref())?;
    let access = Access { proxy: variables, authority };
    package::put(&mut changes, &args.source, args.url.as_ref(), &access)?;
    progress.begin("files");
    if let Some(authority) = &access.authority {
        authority.put(&mut changes)?;
    }
    let settings = write_settings(&mut changes, &wanted)?;
    let bundled = settings.engine.as_deref().is_none_or(|engine| engine == ENGINE);
    let engine_chosen = choose_engine(&mut changes, services, bundled)?;
    // The unit's variables count, too; a dry run has not written the file.
    let settings = if args.dry_run { settings } else { settings::of_service(machine)? };
    let units_changed = units::put(&mut changes, None, &settings)?;
    let proxy_changed = match &proxy {
        Some(proxy) => proxy::write(&mut changes, proxy, false)?,
        None => false,
    };
    route::put(&mut changes, Os::of(machine)?.family, &agents_proxy(machine, proxy.as_ref())?)?;
    let changed = !changes.changed().is_empty();
    let units: &[_] = if bundled { &[ENGINE_UNIT, AGENT_UNIT] } else { &[AGENT_UNIT] };
    enable(&mut changes, services, units)?;
    if !changes.changed().is_empty() && services.can_run() {
        changes.run("reload systemd", systemd::daemon_reload(), None)?;
    }
    progress.begin("engine");
    if bundled {
        let need = Need::restart_if(engine_chosen || proxy_changed);
        bring_up(&mut changes, services, ENGINE_UNIT, need, args.no_start)?;
    }
    if args.image.is_some() && machine.is_this_one() && !args.dry_run {
        progress.begin("image");
        image::check()?;
    }
    progress.begin("agent");
    // After a new package too, which has reloaded it: it has to come up as the new program.
    let need = if changed { Need::Reload } else { Need::Nothing };
    // What systemd does when it starts the agent.
    let need = need.max(Need::restart_if(engine_chosen || units_changed || proxy_changed));
    bring_up(&mut changes, services, AGENT_UNIT, need, args.no_start)?;
    if !bundled && services.is_active(ENGINE_UNIT) {
        changes.when_undone(start::again(ENGINE_UNIT))?;
        changes.run(format!("stop {ENGINE_UNIT}"), systemd::stop(&[ENGINE_UNIT]), None)?;
    }

    let is_new = !changes.changed().is_empty();
    let changed = changes.changed().to_vec();
    changes.finish()?;
    progress.changed(&changed);
    if !args.dry_run {
        say_what_is_next(machine, is_new, args.no_start);
    }
    // A dry run has shown all that would come if it were ready.
    verdict
}

fn add_repository(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    progress.begin("repository");
    let machine = &context.machine;
    let proxy = args.proxy()?;
    require_usable(machine, args, proxy.as_ref())?;
    let access = Access {
        proxy: variables(machine, proxy.as_ref())?,
        authority: Authority::of(machine, args.ca_cert.as_deref())?,
    };
    let mut changes = Changes::begin(machine, &RECORDS, args.dry_run)?;
    package::add_repository(&mut changes, &args.source, args.url.as_ref(), &access)?;
    route::put(&mut changes, Os::of(machine)?.family, &agents_proxy(machine, proxy.as_ref())?)?;
    let changed = changes.changed().to_vec();
    changes.finish()?;
    progress.changed(&changed);
    if !args.dry_run {
        println!("The repository is set up. Next, install the package scalr-agent.");
    }
    Ok(())
}

/// Refuses a proxy that the package tool cannot be given.
fn require_usable(machine: &Machine, args: &Args, proxy: Option<&ProxySettings>) -> Result<()> {
    let fetches = args.repository_only || args.source.upgrade || !package::is_there(machine);
    let variables =
        if fetches { variables(machine, proxy)? } else { agents_proxy(machine, proxy)? };
    let server = args.url.as_ref().filter(|_| args.source.package.is_none());
    route::require_usable(machine, Os::of(machine)?.family, &variables, server)
}

/// The proxy that the agent is to have: the one of the options, or that of its unit.
fn agents_proxy(machine: &Machine, proxy: Option<&ProxySettings>) -> Result<Vec<(String, String)>> {
    proxy.map_or_else(|| proxy::of_units(machine), |proxy| Ok(proxy.variables()))
}

/// The proxy by which the package is fetched: the one of the options, the services',
/// or that of the shell we run in.
fn variables(machine: &Machine, proxy: Option<&ProxySettings>) -> Result<Vec<(String, String)>> {
    if let Some(proxy) = proxy {
        return Ok(proxy.variables());
    }
    let mut subject = Subject::of(machine)?;
    subject.use_shells_proxy();
    Ok(subject.proxy)
}

impl Args {
    /// The settings of the options, as texts for the settings' file.
    fn settings(&self) -> Result<Vec<Change>> {
        let named = [
            ("url", self.url.as_ref().map(ToString::to_string)),
            ("token", self.token()?),
            ("agent_name", self.agent_name.clone()),
            ("concurrency", self.concurrency.map(|n| n.to_string())),
            ("memory", self.memory.map(|n| n.to_string())),
            ("cpu", self.cpu.map(|n| n.to_string())),
            ("user", self.user.clone()),
            ("image", self.image.clone()),
            ("ca_cert", self.ca_cert.as_ref().map(|_| layout::CA_CERT.to_owned())),
        ];
        let mut changes: Vec<Change> = Vec::new();
        for (name, value) in named {
            let key = Key::named(name).with_context(|| format!("there is no setting {name}"))?;
            if value.is_some() {
                changes.push((key, value));
            }
        }
        if let (Some(engine), Some(key)) = (self.engine, Key::named("engine")) {
            // The private one is what is used where nothing is set.
            let socket = (engine == Engine::System).then(|| engine.socket().to_owned());
            changes.push((key, socket));
        }
        Ok(changes)
    }

    fn token(&self) -> Result<Option<String>> {
        let Some(file) = &self.token_file else {
            return Ok(std::env::var("SCALR_AGENT_TOKEN").ok().filter(|token| !token.is_empty()));
        };
        config::read_token(file).map(Some)
    }

    fn proxy(&self) -> Result<Option<ProxySettings>> {
        let Some(http) = &self.http_proxy else { return Ok(None) };
        proxy::from_options(http, self.https_proxy.as_deref(), self.no_proxy.as_deref()).map(Some)
    }
}

fn subject(machine: &Machine, args: &Args, proxy: Option<&ProxySettings>) -> Result<Subject> {
    let mut subject = Subject::of(machine)?;
    subject.override_settings(Overrides {
        url: args.url.clone(),
        concurrency: args.concurrency,
        memory: args.memory,
        engine: args.engine,
        ca_cert: args.ca_cert.clone(),
    });
    subject.proxy = proxy.map_or(subject.proxy, ProxySettings::variables);
    if args.no_start && subject.proxy.is_empty() {
        // Nothing is started that would need it yet.
        subject.use_shells_proxy();
        if !subject.proxy.is_empty() {
            println!(
                "This shell has a proxy that the services do not use. Before you start them, set \
                 it with `scalr-agent-setup proxy --from-environment`."
            );
        }
    }
    subject.before_install = !package::is_there(machine);
    Ok(subject)
}

fn check_host(context: &Context, args: &Args, subject: &Subject) -> Result<()> {
    let selection = Selection { ignore: args.ignore.clone(), ..Selection::default() };
    let consent = (args.fix && !args.dry_run).then_some(Consent::Given);
    let print = Print::text(context.verbose);
    let report = check::check_and_fix(subject, &selection, consent, print)?;
    match report.verdict() {
        Some(Failure::CheckFailed) if report.is_unsupported() => Err(Failure::Unsupported
            .because("this platform is not supported; nothing has been changed")),
        Some(Failure::CheckFailed) => Err(Failure::CheckFailed.because(
            "this host is not ready, and nothing has been changed; fix the problems above, by \
             hand or with --fix, and run this again",
        )),
        _ => Ok(()),
    }
}

fn write_settings(changes: &mut Changes, wanted: &[Change]) -> Result<Settings> {
    let (text, settings) = new_settings(changes.machine(), wanted)?;
    changes.write(config::FILE, &text, Attributes::secret_of(layout::AGENT))?;
    Ok(settings)
}

/// The settings' file as it is to be, and what it says.
fn new_settings(machine: &Machine, wanted: &[Change]) -> Result<(String, Settings)> {
    let old = edit::read(&machine.path(config::FILE))
        .with_context(|| format!("cannot change {}", config::FILE))?
        .unwrap_or_default();
    let text = edit::apply(&old, wanted)
        .with_context(|| format!("cannot write the settings ({})", config::FILE))?;
    let settings: Settings = toml::from_str(&text).context("cannot read the settings back")?;
    if settings.url.is_none() || settings.token.is_none() {
        return Err(Failure::Usage.because(
            "which pool? Give --url https://SERVER, and its token in --token-file FILE or in the \
             environment as SCALR_AGENT_TOKEN",
        ));
    }
    Ok((text, settings))
}

/// The agent finds runs only on the engine that they began on.
fn refuse_another_engine(machine: &Machine, args: &Args) -> Result<()> {
    let places = Places::of(machine);
    let Some(engine) = args.engine.filter(|engine| engine.socket() != places.engine) else {
        return Ok(());
    };
    let active = runs::active(machine, &places)?;
    if active.is_empty() {
        return Ok(());
    }
    let message = format!(
        "these runs are active on the engine {}:\n  {}\nWait until they have ended \
         (`scalr-agent status` shows them), then change the engine to {} with the same command.",
        places.engine,
        active.join("\n  "),
        engine.socket()
    );
    if args.dry_run {
        eprintln!("it would refuse: {message}");
        return Ok(());
    }
    Err(Failure::Failed.because(message))
}

/// Prepares the engine that the settings name; returns whether that changed
/// anything that a running engine or agent has to be restarted for.
fn choose_engine(changes: &mut Changes, services: Services, bundled: bool) -> Result<bool> {
    let machine = changes.machine().clone();
    if bundled {
        if machine.is_this_one()
            && !changes.is_dry_run()
            && !machine.path(layout::ENGINE_PROGRAMS).exists()
        {
            return Err(Failure::NotInstalled.because(format!(
                "{} is missing: this package has no engine; add --engine system to use the \
                 host's Docker",
                layout::ENGINE_PROGRAMS
            )));
        }
        let was_masked = changes.is_ours(DOCKER_MASK)? && changes.remove(DOCKER_MASK)?;
        return Ok(network::write_docker_json(changes)? || was_masked);
    }
    // Before it is masked: a masked unit can't be disabled.
    if services.is_enabled(ENGINE_UNIT) {
        changes.disable(ENGINE_UNIT)?;
    }
    changes.symlink(DOCKER_MASK, "/dev/null")
}

/// What a unit that runs needs for a change to be in effect; each does what those
/// before it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    Reload,
    Restart,
}

impl Need {
    fn restart_if(changed: bool) -> Self {
        if changed { Self::Restart } else { Self::Nothing }
    }
}

/// Enables those of `units` that are not.
fn enable(changes: &mut Changes, services: Services, units: &[&str]) -> Result<()> {
    for unit in units.iter().filter(|unit| services.can_run() && !services.is_enabled(unit)) {
        changes.enable(unit)?;
    }
    Ok(())
}

fn bring_up(
    changes: &mut Changes,
    services: Services,
    unit: &'static str,
    need: Need,
    no_start: bool,
) -> Result<()> {
    if !services.can_run() || no_start {
        return Ok(());
    }
    let was = services.state(unit).unwrap_or_default();
    // One that still tries to start may need just what is installed now.
    let need = if was.active == "activating" { Need::Restart } else { need };
    if !was.is_up() {
        let mut stopped = vec![unit];
        if unit == ENGINE_UNIT && !services.is_active(layout::CONTAINERD_UNIT) {
            stopped.push(layout::CONTAINERD_UNIT);
        }
        let undo = Some(systemd::stop(&stopped));
        return changes.act(format!("start {unit}"), || start::bring_up(services, unit), undo);
    }
    match need {
        Need::Nothing => Ok(()),
        Need::Reload => {
            let machine = changes.machine().clone();
            // One that has ended, because the server refuses its token for example, starts.
            let again = systemd::systemctl(&["--no-block", "reload-or-restart", unit]);
            changes.when_undone(again)?;
            let reload = || start::reload_agent(&machine, services);
            changes.act(format!("reload {unit}"), reload, None)
        }
        Need::Restart => {
            changes.when_undone(start::again(unit))?;
            let machine = changes.machine().clone();
            let restart = || match unit {
                AGENT_UNIT => start::restart_agent(&machine, services),
                _ => start::bring_up(services, unit),
            };
            changes.act(format!("restart {unit}"), restart, None)
        }
    }
}

fn say_what_is_next(machine: &Machine, is_new: bool, no_start: bool) {
    if !is_new {
        println!("The agent is already installed and up to date; nothing was changed.");
    } else if !machine.is_this_one() {
        println!("The agent starts when this tree is booted and its units are enabled.");
    } else if no_start {
        println!("Start the agent with: systemctl start scalr-agent");
    } else {
        println!(
            "The agent is registered and waits for runs.\n  \
             look at it:        scalr-agent-setup status\n  \
             read its journal:  journalctl -u scalr-agent\n  \
             change a setting:  scalr-agent configure --help"
        );
    }
}
