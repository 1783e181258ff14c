//! `uninstall`: puts back what was there before, as far as it was recorded.

use std::fs::{self, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::{Context, RECORDS, require_root};
use crate::created::{Created, OPEN, Opened};
use crate::document::{self, Progress};
use crate::fixes::{Fixes, ListedFix};
use crate::install::source;
use crate::network;
use crate::runs::{self, Places};
use crate::status::docker_client;
use cli::Failure;
use cli::{eprintln, println};
use config::layout::{self, AGENT_UNIT, CONTAINERD_UNIT, ENGINE_UNIT, NETWORK_UNIT};
use config::{DATA_DIR, ENGINE};
use host::changes::{Changes, Membership};
use host::command::CommandExt as _;
use host::hold::Operation;
use host::machine::Machine;
use host::os::Os;
use host::package_tool::PackageTool;
use host::systemd::{self, Services};
use host::{docker, full_disk, iptables, packages, users};

/// How long the package tool's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What `--purge` deletes whole.
const DATA: [&str; 3] = [layout::SETTINGS_DIR, DATA_DIR, layout::ENGINE_DATA_DIR];

/// Where the private engine's containerd keeps what runs in its containers; empty
/// after a boot.
const LIVE: &str = "/run/scalr-docker/containerd-state/io.containerd.runtime.v2.task/moby";

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup uninstall --dry-run
  scalr-agent-setup uninstall
  scalr-agent-setup uninstall --purge

It stops and disables the services, removes the containers and networks of runs,
puts back each file that scalr-agent-setup changed, and removes the package and
its repository. Files that were edited since stay, and it lists them. Settings
and data stay for a later installation, unless --purge deletes them and the
accounts. It lists what --fix changed on this host (a repository that was enabled,
a package that was installed): that stays, because other software may need it by
now, unless --undo-fixes undoes it.

It refuses while runs are active; --force interrupts them.

Exit codes: 0 done, 1 runs are active, the package is held, or something failed
(then it can be run again), 7 not root.";

/// Remove the agent and put back what was there before
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Also delete the settings, the data and the accounts
    #[arg(long)]
    purge: bool,
    /// Also undo what `check --fix` and `install --fix` changed
    #[arg(long)]
    undo_fixes: bool,
    /// Interrupt active runs and discard results that the server does not have
    #[arg(long)]
    force: bool,
    /// Keep the package, its accounts and its repository
    #[arg(long)]
    keep_package: bool,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `uninstall`.
///
/// # Errors
/// Not root; runs are active; a service can't be stopped; a file can't be put
/// back; the package can't be removed. It can be run again.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    document::of_changes("uninstall", args.dry_run, |progress| uninstall(context, args, progress))
}

fn uninstall(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    let machine = &context.machine;
    // Also for a dry run: what was changed is recorded where only root may look.
    require_root(machine, false)?;
    progress.begin("check");
    let services = Services::of(machine);
    let places = Places::of(machine);
    let refusal = match refusal(machine, services, &places, args.force)? {
        None if !args.keep_package => hold(machine)?,
        refusal => refusal,
    };
    if let (Some(message), false) = (&refusal, args.dry_run) {
        return Err(Failure::Failed.because(message));
    }
    // Before the package is removed: that deletes it.
    let created = Created::on(machine)?;
    progress.begin("files");
    let left_alone = put_back(machine, services, &places, args, progress)?;
    // Before the package is removed: its purge deletes the record.
    undo_fixes(machine, args, progress)?;
    if machine.is_this_one() && !args.keep_package {
        progress.begin("package");
        remove_package(context, args, progress)?;
    }
    progress.begin("data");
    delete_data(machine, &places, &created, args, progress)?;
    if args.purge && !args.keep_package && machine.is_this_one() {
        remove_accounts(&created, args.dry_run, progress)?;
    }
    for path in left_alone {
        if !(args.purge && DATA.iter().any(|data| path.starts_with(data))) {
            let stays = if args.dry_run { "would stay" } else { "stays; remove it by hand" };
            println!("{path} was edited since it was written, so it {stays}");
        }
    }
    if let Some(message) = refusal {
        return Err(Failure::Failed.because(format!("it would refuse: {message}")));
    }
    if progress.is_unchanged() {
        println!("Nothing to remove; nothing was changed.");
    }
    if !args.purge && !args.dry_run {
        say_what_stays(machine, &places);
    }
    Ok(())
}

/// Undoes what fixes have changed, or lists it.
fn undo_fixes(machine: &Machine, args: &Args, progress: &mut Progress) -> Result<()> {
    let fixes = Fixes::on(machine)?;
    if fixes.is_empty() {
        return Ok(());
    }
    progress.begin("fixes");
    if args.undo_fixes {
        progress.changed(&Fixes::undo(machine, args.dry_run, |_| Ok(true))?);
        return Ok(());
    }
    let stay = if args.dry_run { "would stay" } else { "stay" };
    println!("Fixes of the checks changed this host, and their changes {stay}:");
    for line in fixes.listed().iter().flat_map(ListedFix::lines) {
        println!("  {line}");
    }
    if args.dry_run || args.keep_package {
        println!("`scalr-agent-setup uninstall --undo-fixes` undoes them.");
    }
    if args.purge && !args.dry_run {
        Fixes::forget(machine)?;
    }
    Ok(())
}

/// The package had the command that deletes it.
fn say_what_stays(machine: &Machine, places: &Places) {
    let data_dir = places.data_dir.display().to_string();
    let mut stays: Vec<&str> = DATA.to_vec();
    if !stays.iter().any(|path| places.data_dir.starts_with(path)) {
        stays.push(&data_dir);
    }
    stays.retain(|path| machine.path(path).exists());
    if !stays.is_empty() {
        println!("Settings and data stay for a later installation: {}", stays.join(", "));
    }
}

/// Why it can't be done now, and what to do; `None` if it can.
fn refusal(
    machine: &Machine,
    services: Services,
    places: &Places,
    force: bool,
) -> Result<Option<String>> {
    if force {
        return Ok(None);
    }
    let active = runs::active(machine, places)?;
    if active.is_empty() {
        return Ok(None);
    }
    let what = if services.is_active(AGENT_UNIT) || !services.can_run() {
        "Wait until they have ended (`scalr-agent status` shows them), or interrupt them with \
         --force: what an interrupted apply leaves half done has to be fixed by hand."
    } else {
        "The agent is not running, so their results have not reached the server: start it \
         (`systemctl start scalr-agent`) and wait until `scalr-agent status` shows none, or give \
         them up with --force."
    };
    Ok(Some(format!("these runs are active:\n  {}\n{what}", active.join("\n  "))))
}

/// What keeps the package tool from removing the package.
fn hold(machine: &Machine) -> Result<Option<String>> {
    let package = layout::AGENT;
    let family = Os::of(machine)?.family;
    if !machine.is_this_one() || packages::version(family, package)?.is_none() {
        return Ok(None);
    }
    let hold = PackageTool::of(family, PATIENCE)?.hold(package, Operation::Remove)?;
    Ok(hold.map(|hold| format!("cannot remove the package {package}: {hold}")))
}

/// Stops what runs and puts back what was there before, as one transaction. Gives
/// the files that somebody has edited since.
fn put_back(
    machine: &Machine,
    services: Services,
    places: &Places,
    args: &Args,
    progress: &mut Progress,
) -> Result<Vec<String>> {
    let mut changes = Changes::begin(machine, &RECORDS, args.dry_run)?;
    if services.can_run() {
        stop(&mut changes, services, places)?;
    }
    if !args.keep_package {
        source::remove(&mut changes, Os::of(machine)?.family)?;
    }
    let mut keep = vec![layout::CREATED];
    if !args.purge {
        keep.extend([config::FILE, layout::CA_CERT, layout::ENGINE_SETTINGS]);
    }
    let left_alone = changes.reverse(&keep)?;
    leave_groups(&mut changes)?;
    if services.can_run() && !changes.changed().is_empty() {
        changes.run("reload systemd", systemd::daemon_reload(), None)?;
    }
    let changed = changes.changed().to_vec();
    changes.finish()?;
    progress.changed(&changed);
    Ok(left_alone)
}

/// The agent first: it ends its runs and reports them.
fn stop(changes: &mut Changes, services: Services, places: &Places) -> Result<()> {
    let is_up = |unit: &&str| services.state(unit).unwrap_or_default().is_up();
    let units = [CONTAINERD_UNIT, ENGINE_UNIT, NETWORK_UNIT, AGENT_UNIT];
    let up: Vec<&str> = units.into_iter().filter(is_up).collect();
    if !up.is_empty() {
        // One job for all of them: systemd starts each after those that it needs.
        let start = [&["--no-block", "start"], up.as_slice()].concat();
        changes.when_undone(systemd::systemctl(&start))?;
    }
    if !services.is_active(ENGINE_UNIT) && has_entries(LIVE) {
        // Containers outlive their engine, and nobody else can end them in order.
        let start = || {
            if let Err(error) = services.start(ENGINE_UNIT) {
                eprintln!("warning: cannot end the running containers: {error}");
            }
            Ok(())
        };
        changes.act(format!("start {ENGINE_UNIT} to end its containers"), start, None)?;
    }
    stop_unit(changes, services, AGENT_UNIT)?;
    stop_unit(changes, services, NETWORK_UNIT)?;
    if places.engine != ENGINE {
        // The host's own engine has other things, too.
        remove_from(
            changes,
            &places.engine,
            Some(layout::label::AGENT),
            Some(layout::NETWORK_PREFIX),
        )?;
    }
    if services.is_active(ENGINE_UNIT) {
        // A container outlives its engine; none is left without one.
        remove_from(changes, ENGINE, None, None)?;
    }
    for unit in [ENGINE_UNIT, CONTAINERD_UNIT] {
        stop_unit(changes, services, unit)?;
    }
    for unit in [AGENT_UNIT, ENGINE_UNIT].into_iter().filter(|unit| services.is_enabled(unit)) {
        changes.disable(unit)?;
    }
    if iptables::find().is_some() && network::has_rules() {
        changes.act("take down the firewall's rules", network::take_down_rules, None)?;
    }
    // Settings of the engine that can't be understood name no range.
    for bridge in network::left_bridges(changes.machine()).unwrap_or_default() {
        let remove = || host::network::remove_bridge(&bridge);
        changes.act(format!("remove the bridge {bridge}"), remove, None)?;
    }
    Ok(())
}

/// Removes the containers and then the networks of runs, if the engine answers:
/// one that is gone has none.
fn remove_from(
    changes: &mut Changes,
    socket: &str,
    label: Option<&str>,
    prefix: Option<&str>,
) -> Result<()> {
    let Ok(client) = docker_client() else { return Ok(()) };
    if docker::engine_version(&client, socket).is_err() {
        return Ok(());
    }
    let containers = || Ok(docker::remove_containers(&client, socket, label)?);
    changes.act(format!("remove the runs' containers from {socket}"), containers, None)?;
    let networks = || Ok(docker::remove_networks(&client, socket, prefix)?);
    changes.act(format!("remove the runs' networks from {socket}"), networks, None)
}

fn has_entries(directory: &str) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

fn stop_unit(changes: &mut Changes, services: Services, unit: &'static str) -> Result<()> {
    if !services.state(unit).unwrap_or_default().is_up() {
        return Ok(());
    }
    if !changes.is_dry_run() {
        eprintln!("Stopping {unit} …");
    }
    changes.run(format!("stop {unit}"), systemd::stop(&[unit]), None)
}

fn leave_groups(changes: &mut Changes) -> Result<()> {
    for member in changes.manifest().memberships.clone() {
        let Membership { user, group } = &member;
        changes.run(
            format!("take {user} out of the group {group}"),
            users::leave(user, group),
            Some(users::join(user, group)),
        )?;
        changes.forget_membership(&member);
    }
    Ok(())
}

fn remove_package(context: &Context, args: &Args, progress: &mut Progress) -> Result<()> {
    let package = layout::AGENT;
    let family = Os::of(&context.machine)?.family;
    let Some(version) = packages::version(family, package)? else { return Ok(()) };
    let change = format!("remove the package {package} {version}");
    if args.dry_run {
        println!("would {change}");
        progress.changed(&[change]);
        return Ok(());
    }
    eprintln!("Removing the package {package} {version} …");
    let tool = PackageTool::of(family, PATIENCE)?;
    tool.remove(&[package], args.purge).map_err(full_disk::explain)?;
    // dnf is content with an argument that one of its filters hides.
    match packages::version(family, package)? {
        None => {
            progress.changed(&[change]);
            Ok(())
        }
        Some(version) => {
            let next = full_disk::of_package_database()
                .unwrap_or_else(|| "Remove it by hand and run this again.".to_owned());
            Err(Failure::Failed.because(format!(
                "cannot remove the package {package} {version}: its package manager reported \
                 success and kept it\n{next}"
            )))
        }
    }
}

/// What runs leave in memory always goes, the data only with `--purge`.
fn delete_data(
    machine: &Machine,
    places: &Places,
    created: &Created,
    args: &Args,
    progress: &mut Progress,
) -> Result<()> {
    let mut paths = vec![PathBuf::from(layout::ENGINE_RUN_DIR)];
    if args.purge {
        paths.extend(purged(machine, places, created));
    }
    for path in paths {
        let found = machine.entry(&path);
        if found.symlink_metadata().is_err() {
            continue;
        }
        if args.dry_run {
            println!("would delete {}", path.display());
        } else {
            // A disk that somebody has mounted in there is not ours.
            Command::new("rm").args(["-rf", "--one-file-system"]).arg(&found).run()?;
            println!("Deleted {}", path.display());
        }
        progress.changed(&[format!("delete {}", path.display())]);
    }
    if args.purge && !args.dry_run {
        for folder in created.folders() {
            // Somebody else's files may be in there by now.
            let _ = fs::remove_dir(machine.entry(folder));
        }
        for opened in created.opened() {
            close(machine, &opened)?;
        }
    }
    Ok(())
}

/// Gives a folder that stays back as it was before the agent was let in, unless somebody has
/// changed it since.
fn close(machine: &Machine, opened: &Opened) -> Result<()> {
    let Opened { folder, group, mode } = opened;
    let path = machine.entry(folder);
    // chmod leaves a folder its setgid bit.
    let is_open = |found: Metadata| found.is_dir() && found.mode() & 0o1777 == OPEN;
    if !fs::symlink_metadata(&path).is_ok_and(is_open) {
        return Ok(());
    }
    let cannot = || format!("cannot give {} its group and mode back", folder.display());
    lchown(&path, None, Some(*group)).with_context(cannot)?;
    fs::set_permissions(&path, Permissions::from_mode(*mode)).with_context(cannot)?;
    println!("{} stays, with its earlier group and mode", folder.display());
    Ok(())
}

/// The paths that a purge deletes, as the machine calls them.
fn purged(machine: &Machine, places: &Places, created: &Created) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for folder in DATA {
        // An administrator's link: what else is in its target is not ours.
        if let Ok(target) = fs::read_link(machine.entry(folder)) {
            let above = Path::new(folder).parent().unwrap_or(Path::new("/"));
            let target = above.join(target);
            paths.extend(names_in(folder).iter().map(|name| target.join(name)));
        }
        paths.push(folder.into());
    }
    let mut used: Vec<PathBuf> = created.data_folders().collect();
    // Not recorded, but an agent's machine id is in there.
    if machine.path(places.data_dir.join(layout::data::MACHINE_ID)).exists() {
        used.push(places.data_dir.clone());
    }
    used.retain(|folder| !DATA.iter().any(|data| folder.starts_with(data)));
    used.retain(|folder| !machine.entry(folder).is_symlink());
    used.sort();
    used.dedup();
    for folder in used {
        paths.extend(layout::data::ALL.map(|name| folder.join(name)));
    }
    paths
}

/// The names of what is ours in one of [`DATA`].
fn names_in(folder: &str) -> Vec<&'static str> {
    match folder {
        layout::SETTINGS_DIR => vec!["agent.toml", "ca.pem", "docker.json", "proxy.env"],
        DATA_DIR => [&layout::data::ALL[..], &["setup.json"]].concat(),
        _ => layout::ENGINE_DATA.to_vec(),
    }
}

/// Removes the accounts that the package has made; others of these names were there before.
fn remove_accounts(created: &Created, dry_run: bool, progress: &mut Progress) -> Result<()> {
    let (users, groups) = (created.users(), created.groups());
    let removals = users.iter().map(|user| format!("remove the user {user}"));
    let removals = removals.chain(groups.iter().map(|group| format!("remove the group {group}")));
    let removals: Vec<_> = removals.collect();
    progress.changed(&removals);
    if dry_run {
        removals.iter().for_each(|removal| println!("would {removal}"));
        return Ok(());
    }
    users::remove(&users, &groups)?;
    match fs::remove_file(layout::CREATED) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", layout::CREATED))
        }
        _ => Ok(()),
    }
}
