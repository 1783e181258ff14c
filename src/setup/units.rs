//! `units`: the drop-ins of scalr-agent.service that depend on the host.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::context::{Context, RECORDS, require_root};
use crate::document::{self, Progress};
use crate::{data_dir, settings};
use cli::Failure;
use cli::untrusted_file;
use cli::whole_file::WholeFile;
use cli::{eprintln, println};
use config::defaults;
use config::layout;
use config::layout::AGENT_DROP_INS;
use config::{OnStop, Settings};
use host::changes::{Attributes, Changes};
use host::machine::Machine;
use host::systemd::{self, Services};
use host::{engine, users};

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup units
  scalr-agent-setup units --systemd-version 219 --output /tmp/drop-ins

Without --output they are written into
/etc/systemd/system/scalr-agent.service.d and systemd is reloaded; the agent
takes them when it is next started.";

/// Render the drop-ins that depend on this host's systemd and settings
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Write them into this directory and leave the machine alone
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Render for this systemd instead of this host's, for example 219
    #[arg(long, value_name = "N")]
    systemd_version: Option<u32>,
    /// Print what would change, and change nothing
    #[arg(long, conflicts_with = "output")]
    dry_run: bool,
}

/// Runs `units`.
///
/// # Errors
/// There is no systemd and no version was named; a file can't be written.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    document::of_changes("units", args.dry_run, |progress| units(context, args, progress))
}

fn units(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    let machine = &context.machine;
    if let Some(directory) = &args.output {
        let settings = settings::of_service(machine).unwrap_or_default();
        let systemd = version(machine, args.systemd_version)?;
        return write_into(directory, &render(machine, systemd, &settings)?, progress);
    }
    require_root(machine, args.dry_run)?;
    let settings = settings::of_service(machine)?;
    let mut changes = Changes::begin(machine, &RECORDS, args.dry_run)?;
    let services = Services::of(machine);
    if put(&mut changes, args.systemd_version, &settings)? {
        if services.can_run() {
            changes.run("reload systemd", systemd::daemon_reload(), None)?;
        }
    } else {
        println!("The drop-ins are already up to date; nothing changed.");
    }
    let changed = changes.changed().to_vec();
    changes.finish()?;
    progress.changed(&changed);
    Ok(())
}

/// Writes the drop-ins for a systemd, the machine's own if `None`, and makes the data
/// folder that they let the agent write to; returns whether a drop-in changed. One that was
/// edited by hand stays as it is.
///
/// # Errors
/// There is no systemd; a file can't be written; the data folder is unusable.
pub(crate) fn put(
    changes: &mut Changes,
    systemd: Option<u32>,
    settings: &Settings,
) -> Result<bool> {
    let machine = changes.machine().clone();
    let rendered = render(&machine, version(&machine, systemd)?, settings)?;
    data_dir::put(changes, settings)?;
    let mut changed = false;
    for (name, text) in &rendered {
        let path = format!("{AGENT_DROP_INS}/{name}");
        if is_edited(changes, &path, text)? {
            eprintln!(
                "{path} was edited by hand, so it stays as it is; to have it rendered again, \
                 remove it and run `scalr-agent-setup units`"
            );
            continue;
        }
        changed |= changes.write(&path, text, Attributes::PUBLIC)?;
    }
    let engine = format!("{AGENT_DROP_INS}/{ENGINE}");
    if rendered.iter().all(|(name, _)| *name != ENGINE) && changes.is_ours(&engine)? {
        changed |= changes.remove(&engine)?;
    }
    Ok(changed)
}

fn version(machine: &Machine, named: Option<u32>) -> Result<u32> {
    named.or_else(|| systemd::version(machine)).ok_or_else(|| {
        Failure::Unsupported.because("found no systemd; name one with --systemd-version")
    })
}

fn write_into(directory: &Path, files: &[(&str, String)], progress: &mut Progress) -> Result<()> {
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for (name, text) in files {
        let file = directory.join(name);
        WholeFile::at(&file).mode(0o644).write(text)?;
        println!("{}", file.display());
        progress.changed(&[file.display().to_string()]);
    }
    Ok(())
}

fn is_edited(changes: &Changes, path: &str, text: &str) -> Result<bool> {
    let found = untrusted_file::read_text(changes.machine().path(path));
    Ok(found.is_ok_and(|found| found != text) && !changes.is_ours(path)?)
}

/// Those of the rendered drop-ins that are not there like that.
///
/// # Errors
/// As [`render`]'s.
pub(crate) fn stale(machine: &Machine, systemd: u32, settings: &Settings) -> Result<Vec<String>> {
    let rendered = render(machine, systemd, settings)?;
    let is_stale = |name: &&&str| {
        let wanted = rendered.iter().find(|(of, _)| of == *name).map(|(_, text)| text);
        let found =
            untrusted_file::read_text(machine.path(Path::new(AGENT_DROP_INS).join(name))).ok();
        found.as_ref() != wanted
    };
    Ok(DROP_INS.iter().filter(is_stale).map(|name| (*name).to_owned()).collect())
}

/// The drop-ins that are rendered.
const DROP_INS: [&str; 3] = ["hardening.conf", "resources.conf", ENGINE];

/// The drop-in that lets the agent use the host's own engine.
const ENGINE: &str = "engine.conf";

/// The drop-ins' names and texts, for a systemd and for settings.
///
/// # Errors
/// The socket of the host's engine cannot be used; a template is wrong.
fn render(
    machine: &Machine,
    systemd: u32,
    settings: &Settings,
) -> Result<Vec<(&'static str, String)>> {
    let mut hardening = tera::Context::new();
    hardening.insert("systemd", &systemd);
    hardening.insert("directives", &hardening_for(systemd));
    let data = settings.data_dir.as_deref().unwrap_or(Path::new(layout::DATA_DIR));
    hardening.insert("data", &data.display().to_string());
    hardening
        .insert("writable", if systemd < 231 { "ReadWriteDirectories" } else { "ReadWritePaths" });
    let paths = [settings.data_dir.as_deref(), settings.ca_cert.as_deref()];
    let at_home = paths
        .into_iter()
        .flatten()
        .any(|path| ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home)));
    hardening.insert("homes", if at_home { "read-only" } else { "yes" });
    let concurrency = settings.concurrency.unwrap_or(defaults::CONCURRENCY);
    let mut resources = tera::Context::new();
    // A few threads, and for each slot the programs of its hooks.
    resources.insert("tasks", &(128 + 64 * concurrency));
    // A newer systemd is asked for more time by the agent itself.
    let grace = settings.grace_shutdown_timeout.unwrap_or(defaults::GRACE_SHUTDOWN_TIMEOUT);
    let drain = match settings.on_stop {
        Some(OnStop::Drain) => settings.drain_timeout.unwrap_or(defaults::DRAIN_TIMEOUT),
        _ => 0,
    };
    resources.insert("stop", &(drain + grace + 60));
    resources.insert("memory", &(512 + 64 * concurrency));
    resources.insert("memory_directive", if systemd < 231 { "MemoryLimit" } else { "MemoryMax" });
    let mut drop_ins = vec![
        (
            "hardening.conf",
            fill(include_str!("../../templates/systemd/drop-ins/hardening.conf.tera"), &hardening)?,
        ),
        (
            "resources.conf",
            fill(include_str!("../../templates/systemd/drop-ins/resources.conf.tera"), &resources)?,
        ),
    ];
    if let Some(socket) = settings.engine.as_deref().filter(|engine| *engine != config::ENGINE) {
        let mut engine = tera::Context::new();
        engine.insert("group", &group_of(machine, socket)?);
        let template = include_str!("../../templates/systemd/drop-ins/engine.conf.tera");
        drop_ins.push((ENGINE, fill(template, &engine)?));
    }
    Ok(drop_ins)
}

/// The group that may use the host's engine; `None` if everybody may. Where the engine
/// does not run, Docker's usual one, if there is such a group.
///
/// # Errors
/// The socket is there, and membership in its group does not suffice or gives too much.
pub(crate) fn group_of(machine: &Machine, address: &str) -> Result<Option<String>> {
    let socket = Path::new(address.trim_start_matches("unix://"));
    if machine.is_this_one() && socket.exists() {
        return engine::socket_group(socket);
    }
    Ok(Some("docker".to_owned()).filter(|group| users::group_exists(machine, Some(group))))
}

/// A template filled in.
///
/// # Errors
/// The template is wrong.
pub(crate) fn fill(template: &str, context: &tera::Context) -> Result<String> {
    tera::Tera::one_off(template, context, false).context("cannot render a template")
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Directive {
    /// The first systemd that knows the directive with this value.
    #[serde(skip)]
    since: u32,
    /// The first one for which a later row says it better.
    #[serde(skip)]
    until: u32,
    name: &'static str,
    value: &'static str,
}

const EVER: u32 = u32::MAX;

/// Left out on purpose: `ProcSubset=pid` hides /proc/meminfo, which the
/// agent counts its free slots from; `MemoryDenyWriteExecute` would bind whatever a
/// hook runs.
const HARDENING: &[Directive] = &[
    always("NoNewPrivileges", "yes"),
    always("CapabilityBoundingSet", ""),
    always("PrivateTmp", "yes"),
    always("PrivateDevices", "yes"),
    always("DevicePolicy", "closed"),
    // `strict` is known from 232 on; an older one would protect nothing at all.
    Directive { since: 0, until: 232, name: "ProtectSystem", value: "full" },
    since(232, "ProtectSystem", "strict"),
    always("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6 AF_NETLINK"),
    always("SystemCallArchitectures", "native"),
    always("UMask", "0077"),
    since(231, "RestrictRealtime", "yes"),
    since(232, "ProtectKernelTunables", "yes"),
    since(232, "ProtectKernelModules", "yes"),
    since(232, "ProtectControlGroups", "yes"),
    since(232, "RemoveIPC", "yes"),
    since(233, "RestrictNamespaces", "yes"),
    since(235, "LockPersonality", "yes"),
    since(235, "KeyringMode", "private"),
    // What only root could do anyway; without this a hole in the kernel could be
    // reached by it. No list of what is allowed: it would bind hooks.
    since(
        237,
        "SystemCallFilter",
        "~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap",
    ),
    since(237, "SystemCallErrorNumber", "EPERM"),
    since(239, "PrivateMounts", "yes"),
    since(242, "RestrictSUIDSGID", "yes"),
    since(242, "ProtectHostname", "yes"),
    since(244, "ProtectKernelLogs", "yes"),
    since(245, "ProtectClock", "yes"),
    since(247, "ProtectProc", "invisible"),
];

const fn always(name: &'static str, value: &'static str) -> Directive {
    since(0, name, value)
}

const fn since(since: u32, name: &'static str, value: &'static str) -> Directive {
    Directive { since, until: EVER, name, value }
}

fn hardening_for(systemd: u32) -> Vec<Directive> {
    HARDENING.iter().copied().filter(|d| (d.since..d.until).contains(&systemd)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(systemd: u32, name: &str) -> String {
        let settings = Settings { concurrency: Some(2), ..Settings::default() };
        let machine = Machine::at("/nowhere");
        render(&machine, systemd, &settings)
            .unwrap()
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap()
            .1
    }

    #[test]
    fn an_old_systemd_gets_only_what_it_knows() {
        let old = text(219, "hardening.conf");
        assert!(old.contains("ProtectSystem=full\n"), "{old}");
        for newer in ["=strict", "ReadWritePaths", "ProtectKernel", "RestrictNamespaces"] {
            assert!(!old.contains(newer), "{newer} in {old}");
        }
        assert!(old.contains("\nReadWriteDirectories=\"-/var/lib/scalr-agent\"\n"), "{old}");
        assert!(text(219, "resources.conf").contains("MemoryLimit=640M\n"));
    }

    #[test]
    fn a_newer_systemd_gets_more() {
        let text_252 = text(252, "hardening.conf");
        assert!(text_252.contains("ProtectSystem=strict\n"));
        assert!(text_252.contains("ReadWritePaths=\"-/var/lib/scalr-agent\"\n"));
        assert!(text_252.contains("ProtectProc=invisible\n"));
        assert!(!text_252.contains("ProtectSystem=full"));
        assert!(!text(239, "hardening.conf").contains("ProtectProc"));
        assert!(text(252, "resources.conf").contains("MemoryMax=640M\n"));
    }
}
