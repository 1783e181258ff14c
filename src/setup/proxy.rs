//! `proxy`: the proxy that scalr-agent and scalr-docker use.

use std::fs;
use std::io::{self, BufRead as _};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde::Serialize;
use url::Url;

use crate::context::{Context, require_root};
use crate::output::Format;
use crate::{start, units};
use cli::Failure;
use config::layout::AGENT_DROP_INS;
use config::proxy::{self, DROP_IN, ENGINE_DROP_IN, SECRETS, masked};
use host::changes::{Attributes, Changes};
use host::machine::Machine;
use host::systemd::{self, Services};
use host::unit;

/// What never goes through a proxy: this host, and a cloud's metadata address.
const ALWAYS_DIRECT: [&str; 4] = ["localhost", "127.0.0.1", "::1", "169.254.169.254"];

/// The units that are given the proxy, in the order they are restarted in.
const UNITS: [&str; 2] = ["scalr-docker", AGENT];

const AGENT: &str = "scalr-agent";

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
    /// The proxy for plain HTTP, http://[USER:PASSWORD@]HOST:PORT; - reads it
    /// from standard input
    #[arg(long, value_name = "URL", required_unless_present = "from_environment")]
    http: Option<String>,
    /// The proxy for HTTPS, if it is another one than --http; - reads it from
    /// standard input
    #[arg(long, value_name = "URL", requires = "http")]
    https: Option<String>,
    /// What is reached directly: names, .domains and addresses, separated by
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
    /// Leave the services running as they are
    #[arg(long)]
    no_restart: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace or remove also what was written by hand
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
        Some(Action::Show) => show(context),
        // Whoever takes the only way out away means it: the agent may fail then.
        Some(Action::Remove(manner)) => {
            change(context, manner, Restart::Begin, "No proxy is set.", |changes| {
                remove(changes, manner.force)
            })
        }
        None => {
            let proxy = wanted(args)?;
            let nothing = "The proxy is set like this already.";
            change(context, &args.manner, Restart::Wait, nothing, |changes| {
                proxy.put(changes, args.manner.force)
            })
        }
    }
}

/// The proxy's settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    http: String,
    https: String,
    no_proxy: String,
}

impl Proxy {
    /// Checks a proxy for HTTP, one for HTTPS (the same if `None`) and a list of
    /// what is reached directly.
    ///
    /// # Errors
    /// A URL has control characters or spaces, another scheme than http and
    /// https, no good host, or a path; a name in the list is none. No message
    /// shows a password.
    pub(crate) fn check(http: &str, https: Option<&str>, no_proxy: Option<&str>) -> Result<Self> {
        let http = checked(http)?;
        let https = https.map_or_else(|| Ok(http.clone()), checked)?;
        Ok(Self { http, https, no_proxy: direct(no_proxy.unwrap_or_default())? })
    }

    /// Whether a URL carries a user or a password.
    pub(crate) fn has_credentials(&self) -> bool {
        [&self.http, &self.https].iter().any(|url| url.contains('@'))
    }

    /// The variables, upper and lower case: programs differ in which they read.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let pairs = [
            ("HTTP_PROXY", &self.http),
            ("HTTPS_PROXY", &self.https),
            ("NO_PROXY", &self.no_proxy),
        ];
        let lower = pairs.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).clone()));
        let upper = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone()));
        upper.chain(lower).collect()
    }

    /// Writes the drop-ins; tells whether anything changed.
    ///
    /// # Errors
    /// A file was written by hand and `force` is not set; one can't be written.
    pub(crate) fn put(&self, changes: &mut Changes, force: bool) -> Result<bool> {
        let drop_in = self.drop_in()?;
        let mut changed = if self.has_credentials() {
            own(changes, SECRETS, Some(&self.secrets()), force)?;
            changes.write(SECRETS, &self.secrets(), Attributes::SECRET)?
        } else if changes.is_ours(SECRETS)? {
            changes.remove(SECRETS)?
        } else {
            false
        };
        own(changes, DROP_IN, Some(&drop_in), force)?;
        changed |= changes.write(DROP_IN, &drop_in, Attributes::PUBLIC)?;
        if !is_linked(changes.machine()) {
            own(changes, ENGINE_DROP_IN, None, force)?;
            changed |= changes.symlink(ENGINE_DROP_IN, DROP_IN)?;
        }
        Ok(changed)
    }

    fn drop_in(&self) -> Result<String> {
        #[derive(Serialize)]
        struct Variable {
            name: String,
            escaped: String,
        }
        let variables: Vec<Variable> = self
            .variables()
            .into_iter()
            .map(|(name, value)| Variable { name, escaped: escaped(&value) })
            .collect();
        let mut context = tera::Context::new();
        context.insert("secrets", &self.has_credentials().then_some(SECRETS));
        context.insert("variables", &variables);
        units::fill(include_str!("../../templates/systemd/drop-ins/proxy.conf.tera"), &context)
    }

    /// Environment files know neither specifiers nor variables, but quotes and
    /// backslashes; `$` and the backtick are for a shell that reads it.
    fn secrets(&self) -> String {
        let quoted = |value: &str| {
            let mut text = String::new();
            for character in value.chars() {
                if "\\\"$`".contains(character) {
                    text.push('\\');
                }
                text.push(character);
            }
            text
        };
        let lines: String = self
            .variables()
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"\n", quoted(value)))
            .collect();
        format!("# Written by \"scalr-agent-setup proxy\".\n{lines}")
    }
}

/// As it must stand between the quotes of `Environment="…"`.
fn escaped(value: &str) -> String {
    value.replace('%', "%%").replace('\\', r"\\").replace('"', "\\\"")
}

fn wanted(args: &Args) -> Result<Proxy> {
    if args.from_environment {
        let of = |upper: &str| {
            let lower = upper.to_ascii_lowercase();
            [upper, &lower]
                .iter()
                .find_map(|name| std::env::var(name).ok())
                .filter(|v| !v.is_empty())
        };
        let (http, https) = (of("HTTP_PROXY"), of("HTTPS_PROXY"));
        let Some(first) = http.as_deref().or(https.as_deref()) else {
            return Err(Failure::Usage.because(
                "neither HTTP_PROXY nor HTTPS_PROXY is in the environment; \
                 sudo passes them on with --preserve-env=HTTP_PROXY,HTTPS_PROXY,NO_PROXY",
            ));
        };
        return Proxy::check(first, https.as_deref(), of("NO_PROXY").as_deref());
    }
    let http = given(args.http.as_deref().context("clap requires --http")?)?;
    let https = args.https.as_deref().map(given).transpose()?;
    Proxy::check(&http, https.as_deref(), args.no_proxy.as_deref())
}

/// A URL as given on the command line, or by standard input.
///
/// # Errors
/// Standard input can't be read or is empty.
pub(crate) fn given(url: &str) -> Result<String> {
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

fn checked(text: &str) -> Result<String> {
    let shown = if text.chars().any(char::is_control) { "…".to_owned() } else { masked(text) };
    let wrong = |why: &str| Failure::Usage.because(format!("the proxy `{shown}` {why}"));
    // The URL parser would drop them silently.
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong("has a space or a control character in it"));
    }
    let lower = text.to_ascii_lowercase();
    if !lower.starts_with("http://") && !lower.starts_with("https://") {
        return Err(wrong("should begin with http:// or https://"));
    }
    let url = Url::parse(text).map_err(|error| wrong(&format!("is no URL: {error}")))?;
    let host = url.host_str().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
    if host.is_empty() || !host.chars().all(plain) || host.starts_with(['-', '.']) {
        return Err(wrong("has no valid host name"));
    }
    if !["", "/"].contains(&url.path()) || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("should end after its port"));
    }
    // The port always, for programs differ in what they take for granted.
    let port = url.port_or_known_default().filter(|port| *port != 0);
    let Some(port) = port else { return Err(wrong("has no valid port")) };
    let user = match (url.username(), url.password()) {
        ("", None) => String::new(),
        (user, None) => format!("{user}@"),
        (user, Some(password)) => format!("{user}:{password}@"),
    };
    Ok(format!("{}://{user}{host}:{port}", url.scheme()))
}

/// The list of what is reached directly, with what always is.
fn direct(list: &str) -> Result<String> {
    let mut names: Vec<&str> = Vec::new();
    let given = list.split(',').map(|name| name.trim_matches(' ')).filter(|name| !name.is_empty());
    for name in given.chain(ALWAYS_DIRECT) {
        let bad = |c: char| c.is_control() || c.is_whitespace() || "\"'\\@".contains(c);
        if name.contains(bad) || name.contains("://") {
            return Err(Failure::Usage.because(format!(
                "`{}` in --no-proxy is neither a name, a .domain nor an address",
                name.escape_debug()
            )));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names.join(","))
}

/// Refuses to touch what somebody wrote by hand, unless it says the same
/// already or `force` is set.
fn own(changes: &Changes, path: &str, text: Option<&str>, force: bool) -> Result<()> {
    let file = changes.machine().path(path);
    if force || file.symlink_metadata().is_err() || changes.is_ours(path)? {
        return Ok(());
    }
    if text.is_some() && fs::read_to_string(&file).ok().as_deref() == text {
        return Ok(());
    }
    bail!(
        "{path} was written by hand, and it is in use as it is; look at it with \
         `scalr-agent-setup proxy show`, and add --force to replace it"
    )
}

/// Whether the engine's drop-in is a link to the agent's, as our own is and the
/// one that the vendor's documentation tells people to make.
fn is_linked(machine: &Machine) -> bool {
    let target = fs::read_link(machine.path(ENGINE_DROP_IN)).unwrap_or_default();
    [DROP_IN, "../scalr-agent.service.d/proxy.conf"]
        .iter()
        .any(|known| target.as_os_str() == *known)
}

fn remove(changes: &mut Changes, force: bool) -> Result<bool> {
    for path in [DROP_IN, SECRETS] {
        own(changes, path, None, force)?;
    }
    let mut changed = false;
    if is_linked(changes.machine()) {
        changed |= changes.remove(ENGINE_DROP_IN)?;
    }
    for path in [DROP_IN, SECRETS] {
        changed |= changes.remove(path)?;
    }
    Ok(changed)
}

/// How far a restart of the agent goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    /// It is begun.
    Begin,
    /// It is waited for.
    Wait,
}

/// Makes a change of the drop-ins and lets the services that run see it.
fn change(
    context: &Context,
    manner: &Manner,
    wait: Restart,
    nothing: &str,
    change: impl FnOnce(&mut Changes) -> Result<bool>,
) -> Result<()> {
    require_root(&context.machine, manner.dry_run)?;
    let mut changes = Changes::begin(&context.machine, manner.dry_run)?;
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
    changes.finish()
}

fn restart(changes: &mut Changes, services: Services, wait: Restart) -> Result<()> {
    for unit in UNITS {
        // One that has not come up yet may be waiting for just this proxy.
        let state = services.state(unit).unwrap_or_default();
        let was_up = state.active == "active";
        if !was_up && !["activating", "reloading"].contains(&state.active.as_str()) {
            continue;
        }
        changes.restart_when_undone(unit)?;
        let restart = || {
            if unit == AGENT && wait == Restart::Begin {
                println!("scalr-agent restarts; `scalr-agent-setup status` tells whether it is up");
                return Ok(services.begin_restart(unit)?);
            }
            match start::bring_up(services, unit) {
                // It failed before, so the proxy need not be what is wrong now.
                Err(error) if !was_up => {
                    eprintln!("warning: {error:#}");
                    Ok(())
                }
                result => result,
            }
        };
        changes.act(format!("restart {unit}"), restart, None)?;
    }
    Ok(())
}

/// What `proxy show --format json` prints.
#[derive(Serialize)]
struct Shown {
    /// 1.
    schema: u32,
    /// The variables that the agent's unit sets, without passwords.
    variables: std::collections::BTreeMap<String, String>,
    /// `setup`, `hand`, or null when no proxy is set.
    written_by: Option<&'static str>,
    /// Whether the engine uses the same.
    engine: bool,
}

/// The proxy's variables that the agent's unit sets, each under its upper and
/// its lower case name; `None` if it sets none. Every drop-in counts, whoever
/// wrote it.
///
/// # Errors
/// A drop-in can't be read.
pub(crate) fn of_units(machine: &Machine) -> Result<Option<Vec<(String, String)>>> {
    let set = unit::environment(machine, AGENT_DROP_INS)?;
    Ok(proxy::variables(|name| Some(set.get(name)?.value.as_str())))
}

fn show(context: &Context) -> Result<()> {
    let machine = &context.machine;
    let variables = of_units(machine)?;
    let changes = Changes::begin(machine, true)?;
    let shown = Shown {
        schema: 1,
        written_by: match machine.path(DROP_IN).exists() || variables.is_some() {
            true if changes.is_ours(DROP_IN)? => Some("setup"),
            true => Some("hand"),
            false => None,
        },
        variables: variables
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, masked(&value)))
            .collect(),
        engine: is_linked(machine),
    };
    if context.format == Format::Json {
        println!("{}", serde_json::to_string_pretty(&shown)?);
        return Ok(());
    }
    if shown.written_by.is_none() {
        println!("No proxy is set.");
        return Ok(());
    }
    for (name, value) in shown.variables.iter().filter(|(name, _)| name.contains("PROXY")) {
        println!("{name:<12} {value}");
    }
    if shown.variables.is_empty() {
        println!("{SECRETS} has the proxy; only root can read it.");
    }
    if shown.written_by == Some("hand") {
        println!("{DROP_IN} was written by hand; it is used as it is.");
    }
    if !shown.engine {
        println!("scalr-docker does not use it: {ENGINE_DROP_IN} is no link to it.");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(http: &str) -> Result<Proxy> {
        Proxy::check(http, None, None)
    }

    #[test]
    fn a_good_url_names_its_port() {
        for (given, kept) in [
            ("http://proxy.example.com:3128", "http://proxy.example.com:3128"),
            ("http://proxy.example.com:3128/", "http://proxy.example.com:3128"),
            ("HTTP://Proxy.example.com", "http://proxy.example.com:80"),
            ("https://proxy", "https://proxy:443"),
            ("http://[::1]:3128", "http://[::1]:3128"),
            ("http://u:p%2Fw@proxy:1", "http://u:p%2Fw@proxy:1"),
            ("http://u:p\"w@proxy:1", "http://u:p%22w@proxy:1"),
        ] {
            let proxy = check(given).unwrap();
            assert_eq!((proxy.http.as_str(), proxy.https.as_str()), (kept, kept));
        }
    }

    #[test]
    fn a_bad_url_is_refused() {
        for bad in [
            "",
            "proxy:3128",
            "proxy.example.com",
            "ftp://proxy:21",
            "socks5://proxy:1080",
            "http://",
            "http://:3128",
            "http:proxy:3128",
            "http://pro xy:1",
            "http://proxy:1\n",
            "http://proxy:1\nExecStart=/bin/sh",
            "http://proxy\u{7}:1",
            "http://proxy:99999",
            "http://proxy:0",
            "http://proxy:1/path",
            "http://proxy:1?q",
            "http://pro\"xy:1",
            "http://-proxy:1",
            "file:///etc/passwd",
        ] {
            let error = check(bad).expect_err(bad);
            assert_eq!(Failure::of(&error), Failure::Usage, "{bad}");
        }
    }

    #[test]
    fn no_message_shows_a_password() {
        for bad in
            ["http://u:hunter2@proxy:1/path", "ftp://u:hunter2@proxy", "http://u:hunter2@p\n"]
        {
            let error = format!("{:#}", check(bad).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn this_host_and_the_metadata_address_are_always_direct() {
        assert_eq!(direct("").unwrap(), "localhost,127.0.0.1,::1,169.254.169.254");
        assert_eq!(
            direct(" .example.com, ::1,,10.0.0.5").unwrap(),
            ".example.com,::1,10.0.0.5,localhost,127.0.0.1,169.254.169.254"
        );
        for bad in ["a b", "http://x", "a\nb", "a\"b"] {
            direct(bad).expect_err(bad);
        }
    }

    #[test]
    fn what_is_written_is_what_units_read() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        for (url, secret) in
            [("http://u:p%2F%b$x`y@proxy:3128", true), ("http://proxy:3128", false)]
        {
            let proxy = Proxy::check(url, Some("http://other:1"), Some("*.a,100%,b")).unwrap();
            let mut changes = Changes::begin(&machine, false).unwrap();
            assert!(proxy.put(&mut changes, false).unwrap());
            assert!(!proxy.put(&mut changes, false).unwrap(), "the same again");
            changes.commit().unwrap();

            let mut read = of_units(&machine).unwrap().unwrap();
            let mut wrote = proxy.variables();
            read.sort();
            wrote.sort();
            assert_eq!(read, wrote);
            assert_eq!(machine.path(SECRETS).exists(), secret);
            let drop_in = fs::read_to_string(machine.path(DROP_IN)).unwrap();
            assert_eq!(drop_in.contains("HTTP_PROXY"), !secret, "{drop_in}");
        }
        let target = fs::read_link(machine.path(ENGINE_DROP_IN)).unwrap();
        assert_eq!(target.to_str(), Some(DROP_IN));
    }

    #[test]
    fn specifiers_are_doubled() {
        assert_eq!(escaped(r#"p%2F"\"#), r#"p%%2F\"\\"#);
        let proxy = Proxy::check("http://p:1", None, Some("100%")).unwrap();
        let drop_in = proxy.drop_in().unwrap();
        assert!(drop_in.contains("Environment=\"NO_PROXY=100%%,localhost"), "{drop_in}");
    }

    #[test]
    fn what_was_written_by_hand_stays() {
        let tree = tempfile::tempdir().unwrap();
        let machine = Machine::at(tree.path());
        let by_hand = "[Service]\nEnvironment=\"HTTP_PROXY=http://old:1\"\n";
        fs::create_dir_all(machine.path(DROP_IN).parent().unwrap()).unwrap();
        fs::write(machine.path(DROP_IN), by_hand).unwrap();
        let read = || fs::read_to_string(machine.path(DROP_IN)).unwrap();

        let proxy = check("http://new:1").unwrap();
        let mut changes = Changes::begin(&machine, false).unwrap();
        let error = proxy.put(&mut changes, false).unwrap_err();
        assert!(error.to_string().contains("written by hand"), "{error}");
        let error = remove(&mut changes, false).unwrap_err();
        assert!(error.to_string().contains("written by hand"), "{error}");
        drop(changes);
        assert_eq!(read(), by_hand);

        let mut changes = Changes::begin(&machine, false).unwrap();
        proxy.put(&mut changes, true).unwrap();
        changes.commit().unwrap();
        assert!(read().contains("http://new:1"));
    }
}
