//! `scalr-agent configure`: changes `agent.toml`, all of what was asked for or
//! nothing.

use std::fs;
use std::path::Path;
use std::process;

use anyhow::{Context as _, Result};
use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::image_check;
use cli::{Failure, eprintln, println};
use config::data_dir::refuse_foreign;
use config::edit::{self, Change};
use config::{ENGINE, KEYS, Key, Settings, ValueKind};
use host::command::CommandExt as _;
use host::engine::{self, Identity};
use host::machine::Machine;
use host::systemd::{self, Services, UnitState};
use host::users;

/// Change the settings: what is not named stays as it is
///
/// Everything is checked before anything is written.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    options: Options,
}

const EXAMPLES: &str = "\
Examples:
  scalr-agent configure --url=https://pools.example.com --token-file=token
  scalr-agent configure --token-file=- < token
  scalr-agent configure --concurrency=4 --memory=1024
  scalr-agent configure --user=root
  scalr-agent configure --user='' (or --unset user: the default again)

The running agent takes them over with: systemctl reload scalr-agent";

/// Changes the settings in `file`, and says what to run next.
///
/// # Errors
/// Nothing is asked for, a setting makes no sense, or the file can't be read or
/// written.
pub(crate) fn run(file: &Path, Args { options }: Args) -> Result<()> {
    let in_use = file == Path::new(config::FILE);
    if options.changes.is_empty() && options.token_file.is_none() {
        return Err(nothing_asked());
    }
    if in_use && !users::are_root() {
        return Err(Failure::NotPermitted.because(format!(
            "{} can be changed by root only: put sudo before the command",
            file.display()
        )));
    }
    let token_on_command_line =
        options.changes.iter().any(|(key, value)| key.name == "token" && value.is_some());
    let changes = options.read()?;
    let old = edit::read(file)?;
    let new = edit::apply(old.as_deref().unwrap_or_default(), &changes)
        .with_context(|| format!("{} is not changed", file.display()))?;
    let changed = old.as_deref() != Some(&new);
    refuse_unsupported_engine(&changes, in_use)
        .and_then(|()| refuse_foreign_data_dir(&changes))
        .with_context(|| format!("{} is not changed", file.display()))?;
    if changed && changes.iter().any(|(key, value)| key.name == "image" && value.is_some()) {
        check_image(file, &new)?;
    }
    if changed {
        let was_link = fs::read_link(file).ok();
        edit::write(file, &new)?;
        println!("Changed {}: {}", file.display(), names(&changes));
        if let Some(target) = was_link {
            println!(
                "It is a file now, no longer a link to {}, which stays as it was.",
                target.display()
            );
        }
    } else {
        println!("Unchanged: {} has these settings already", file.display());
    }
    if token_on_command_line {
        eprintln!(
            "Hint: other users can see a command line while it runs, and the shell keeps it;\n\
             \x20     --token-file=FILE, or --token-file=- for standard input, is safer."
        );
    }
    let machine = Machine::at("/");
    let services = Services::of(&machine);
    if in_use {
        // Also what an earlier call was interrupted before.
        render_units(&machine)?;
    }
    if in_use && changed {
        services.reload_units().context("the settings are written, but not taken note of")?;
    }
    let unit = services.state(UNIT).filter(|state| in_use && state.load == "loaded");
    say_next(file, unit, changed.then_some(changes.as_slice()))
}

/// Refuses the socket of an engine that runs cannot use. One that does not answer may be
/// set up later, or is another machine's.
fn refuse_unsupported_engine(changes: &[Change], in_use: bool) -> Result<()> {
    let named = changes.iter().find(|(key, _)| key.name == "engine");
    let Some((_, Some(address))) = named else { return Ok(()) };
    let socket = Path::new(address.trim_start_matches("unix://"));
    if in_use && socket.exists() && address != ENGINE {
        engine::socket_group(socket)?;
    }
    match Identity::at(socket).ok().and_then(|identity| identity.refusal()) {
        Some(refusal) => {
            Err(Failure::Usage
                .because(format!("runs cannot use the engine at {address}: {refusal}")))
        }
        None => Ok(()),
    }
}

fn refuse_foreign_data_dir(changes: &[Change]) -> Result<()> {
    let named = changes.iter().find(|(key, _)| key.name == "data_dir");
    match named.and_then(|(_, folder)| folder.as_deref()) {
        Some(folder) if folder != config::DATA_DIR => {
            refuse_foreign(Path::new(folder), Path::new(folder))
        }
        _ => Ok(()),
    }
}

/// Has the setup program render the drop-ins of the agent's unit: they depend on the
/// settings. An image without systemd has neither.
fn render_units(machine: &Machine) -> Result<()> {
    if !Path::new(SETUP_PROGRAM).exists() || systemd::version(machine).is_none() {
        return Ok(());
    }
    process::Command::new(SETUP_PROGRAM).arg("units").run().context(
        "the settings are written, but the units do not fit them yet; run `scalr-agent-setup \
         units`",
    )
}

const SETUP_PROGRAM: &str = "/usr/bin/scalr-agent-setup";

/// The agent's unit.
const UNIT: &str = "scalr-agent";

/// What was asked for: an option for each of [`KEYS`], and some more.
#[derive(Debug)]
struct Options {
    changes: Vec<Change>,
    token_file: Option<String>,
}

impl Options {
    /// All changes, the token read from its file.
    fn read(self) -> Result<Vec<Change>> {
        let mut changes = self.changes;
        if let Some(file) = self.token_file {
            let token = config::read_token(Path::new(&file))?;
            let key = Key::named("token").context("there is no setting `token`")?;
            changes.push((key, Some(token)));
        }
        Ok(changes)
    }
}

impl clap::Args for Options {
    fn augment_args(command: Command) -> Command {
        let unset = PossibleValuesParser::new(
            KEYS.iter().map(|key| PossibleValue::new(key.option()).alias(key.name)),
        );
        KEYS.iter()
            .fold(command, |command, key| {
                let command = command.arg(option(key));
                if key.name == "token" { command.arg(token_file()) } else { command }
            })
            .arg(
                Arg::new("unset")
                    .long("unset")
                    .value_name("SETTING")
                    .action(ArgAction::Append)
                    .value_parser(unset)
                    .hide_possible_values(true)
                    .help("Use this setting's default again: --unset user"),
            )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let unset: Vec<&str> =
            matches.get_many::<String>("unset").into_iter().flatten().map(String::as_str).collect();
        let mut changes = Vec::new();
        for key in KEYS {
            let option = key.option();
            let unset = unset.iter().any(|name| *name == option || *name == key.name);
            let file = key.name == "token" && matches.contains_id("token_file");
            match matches.get_one::<String>(key.name) {
                Some(_) if unset => return Err(conflict(&option, &option)),
                None if unset && file => return Err(conflict("token-file", &option)),
                None if unset => changes.push((key, None)),
                // More likely a variable of the shell that is not set.
                Some(text) if text.is_empty() && ["url", "token"].contains(&key.name) => {
                    return Err(clap::Error::raw(
                        clap::error::ErrorKind::InvalidValue,
                        format!("--{option} is empty; --unset {option} takes it out\n"),
                    ));
                }
                Some(text) => {
                    changes.push((key, Some(text.clone()).filter(|text| !text.is_empty())));
                }
                None => {}
            }
        }
        Ok(Self { changes, token_file: matches.get_one("token_file").cloned() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

fn option(key: &Key) -> Arg {
    let option = Arg::new(key.name).long(key.option()).value_name(key.value_name).help(key.help());
    match key.kind {
        ValueKind::Flag => {
            option.num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        _ => option,
    }
}

fn token_file() -> Arg {
    Arg::new("token_file")
        .long("token-file")
        .value_name("FILE")
        .conflicts_with("token")
        .help("Read the pool's token from this file; - is standard input")
}

fn conflict(option: &str, unset: &str) -> clap::Error {
    clap::Error::raw(
        clap::error::ErrorKind::ArgumentConflict,
        format!("--{option} cannot be used with --unset {unset}\n"),
    )
}

fn nothing_asked() -> anyhow::Error {
    let options: Vec<String> = KEYS.iter().map(|key| format!("--{}", key.option())).collect();
    Failure::Usage.because(format!(
        "nothing to configure: give at least one of {}, --token-file, --unset; \
         scalr-agent configure --help explains them",
        options.join(", ")
    ))
}

/// An image that nobody can be asked about may exist.
fn check_image(file: &Path, new: &str) -> Result<()> {
    match image_check::run(&Settings::parse(new)?) {
        Err(error) if Failure::of(&error) == Failure::Warnings => {
            eprintln!("warning: {error:#}");
            Ok(())
        }
        result => result.with_context(|| format!("{} is not changed", file.display())),
    }
}

fn names(changes: &[Change]) -> String {
    changes.iter().map(|(key, _)| key.name).collect::<Vec<_>>().join(", ")
}

/// The settings that say where the runs are: an agent with others does not find those of
/// the agent before.
const PLACES: [&str; 2] = ["data_dir", "engine"];

fn say_next(file: &Path, unit: Option<UnitState>, changes: Option<&[Change]>) -> Result<()> {
    let settings = Settings::read(file)?;
    let private = settings.engine.as_deref().is_none_or(|engine| engine == ENGINE);
    if let Err(missing) = settings.resolve() {
        println!("The agent cannot start yet: {missing}");
        return Ok(());
    }
    match unit {
        Some(unit) if unit.is_up() => {
            let Some(changes) = changes else { return Ok(()) };
            let names = |places: &[&str]| changes.iter().any(|(key, _)| places.contains(&key.name));
            if names(&PLACES) {
                println!(
                    "Next, as soon as `scalr-agent status` shows no runs: systemctl restart {UNIT}"
                );
            } else if names(&["ca_cert"]) {
                // The unit's drop-ins hide /home and /root from an agent that needs neither,
                // and systemd looks at them when it starts it.
                println!("Next: systemctl restart {UNIT} (runs continue)");
            } else {
                println!("Next: systemctl reload {UNIT}");
            }
        }
        Some(_) => {
            // Not `enable --now`: systemd 219 does not know it.
            let units = if private { "scalr-docker scalr-agent" } else { UNIT };
            println!("Next: systemctl enable {units} && systemctl start {units}");
        }
        None if file == Path::new(config::FILE) => println!("Next: scalr-agent run"),
        None => println!("Next: scalr-agent run --config {}", file.display()),
    }
    Ok(())
}
