//! `uninstall`: puts back what was there before, as far as it was recorded.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::check::BUNDLE;
use super::install::{AGENT, APT_KEY, APT_SOURCE, DOCKER, YUM_REPOSITORY};
use super::network::{self, DOCKER_JSON};
use super::{Context, require_root};
use crate::config::{self, ENGINE};
use crate::host::changes::{Changes, Membership};
use crate::host::command::CommandExt as _;
use crate::host::os::{Family, Os};
use crate::host::systemd::{self, Services};
use crate::host::yum::Yum;
use crate::host::{apt, docker, iptables, packages, users};

/// The containerd of the private engine.
const CONTAINERD: &str = "scalr-containerd.service";

/// How long the package tool's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `--purge` deletes whole.
const DATA: [&str; 3] = ["/etc/scalr-agent", "/var/lib/scalr-agent", "/var/lib/scalr-docker"];

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup uninstall --dry-run
  scalr-agent-setup uninstall
  scalr-agent-setup uninstall --purge

It ends the runs, stops and disables the services, puts back each file that
scalr-agent-setup changed, removes the package and its repository. What somebody
has edited since is left alone and named. Settings and data stay for a later
installation, unless --purge deletes them and the accounts too.";

/// Remove the agent and put back what was there before
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Delete the settings, the engine's data and the accounts, too
    #[arg(long)]
    purge: bool,
    /// Leave the package and its repository
    #[arg(long)]
    keep_package: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `uninstall`.
///
/// # Errors
/// Not root; a service can't be stopped; a file can't be put back; the package
/// can't be removed. It can be run again.
pub fn run(context: &Context, args: &Args) -> Result<()> {
    let machine = &context.machine;
    require_root(machine, args.dry_run)?;
    let mut changes = Changes::begin(machine, args.dry_run)?;
    let services = Services::of(machine);
    if services.can_run() {
        stop(&mut changes, services)?;
    }
    let keep: &[&str] = if args.purge { &[] } else { &[config::FILE, DOCKER_JSON] };
    let mut left_alone = changes.reverse(keep)?;
    leave_groups(&mut changes)?;
    if !args.keep_package {
        for file in [APT_KEY, APT_SOURCE, YUM_REPOSITORY] {
            changes.remove(file)?;
        }
    }
    if services.can_run() {
        changes.run("reload systemd", systemd::daemon_reload(), None)?;
    }
    changes.finish()?;

    if machine.is_this_one() && !args.keep_package {
        remove_package(context, args)?;
    }
    if args.purge {
        delete_data(context, args.dry_run)?;
        left_alone.retain(|path| !DATA.iter().any(|data| path.starts_with(data)));
    }
    for path in left_alone {
        println!("{path} was edited since it was written, so it stays; remove it by hand");
    }
    Ok(())
}

/// The agent first: it ends its runs and reports them.
fn stop(changes: &mut Changes, services: Services) -> Result<()> {
    stop_unit(changes, services, AGENT)?;
    let client = Path::new(BUNDLE).join("docker");
    if services.is_active(DOCKER) && client.exists() {
        // A container outlives its engine; none is left without one.
        let remove = || Ok(docker::remove_all_containers(&client, ENGINE)?);
        changes.act("remove the containers of runs", remove, None)?;
    }
    for unit in [DOCKER, CONTAINERD] {
        stop_unit(changes, services, unit)?;
    }
    for unit in [AGENT, DOCKER].into_iter().filter(|unit| services.is_enabled(unit)) {
        changes.run(
            format!("no more start {unit} at boot"),
            systemd::disable(unit),
            Some(systemd::enable(unit)),
        )?;
        changes.record_enabled(unit, false);
    }
    if iptables::find().is_some() {
        changes.act("take down the firewall's rules", network::take_down_rules, None)?;
    }
    Ok(())
}

fn stop_unit(changes: &mut Changes, services: Services, unit: &'static str) -> Result<()> {
    let state = services.state(unit).unwrap_or_default();
    if !["active", "activating", "reloading"].contains(&state.active.as_str()) {
        return Ok(());
    }
    changes.restart_when_undone(unit)?;
    eprintln!("Stopping {unit} …");
    changes.run(format!("stop {unit}"), systemd::stop(unit), None)
}

fn leave_groups(changes: &mut Changes) -> Result<()> {
    for member in changes.manifest().memberships.clone() {
        let Membership { user, group } = &member;
        changes.run(
            format!("take {user} out of the group {group}"),
            users::leave(user, group),
            Some(users::join(user, group)),
        )?;
        changes.record_membership(&member.user, &member.group, false);
    }
    Ok(())
}

fn remove_package(context: &Context, args: &Args) -> Result<()> {
    let package = "scalr-agent";
    let family = Os::of(&context.machine)?.family;
    let Some(version) = packages::version(family, package)? else { return Ok(()) };
    if args.dry_run {
        println!("would remove the package {package} {version}");
        return Ok(());
    }
    eprintln!("Removing the package {package} {version} …");
    match family {
        Family::Debian => apt::remove(&[package], args.purge, PATIENCE),
        _ => Yum::find()?.remove(&[package], PATIENCE),
    }
}

fn delete_data(context: &Context, dry_run: bool) -> Result<()> {
    for path in DATA {
        let directory = context.machine.path(path);
        if !directory.exists() {
            continue;
        }
        if dry_run {
            println!("would delete {path}");
        } else {
            // A disk that somebody has mounted in there is not ours.
            Command::new("rm").args(["-rf", "--one-file-system"]).arg(&directory).run()?;
            println!("Deleted {path}");
        }
    }
    if dry_run || !context.machine.is_this_one() {
        return Ok(());
    }
    users::remove("scalr-agent", &["scalr-agent", "scalr-docker"])
}
