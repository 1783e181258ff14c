//! `status`: what is installed, what runs, and how it is set up.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::check::BUNDLE;
use super::{Context, Format};
use crate::config::proxy::{masked, of_units};
use crate::config::{self, ENGINE, Settings};
use crate::exit::Failure;
use crate::host::machine::Machine;
use crate::host::os::{Family, Os};
use crate::host::systemd::Services;
use crate::host::{docker, dpkg, rpm};

const UNITS: [&str; 3] = ["scalr-agent", "scalr-docker", "scalr-containerd"];

const EXAMPLES: &str = "\
Examples:
  scalr-agent-setup status
  sudo scalr-agent-setup status --format json

Exit codes: 0 the agent runs, 1 it does not.

The JSON is one object: schema (1), package (its version or null), units (a list
of name, state and enabled), engine (socket and version, or null), proxy (its
variables without passwords) and settings (without the token; null if they may
not be read).";

/// Show what is installed, what runs, and how it is set up
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {}

/// What `status --format json` prints; the command's help describes it.
#[derive(Serialize)]
struct Status {
    schema: u32,
    package: Option<String>,
    units: Vec<Unit>,
    engine: Engine,
    proxy: std::collections::BTreeMap<String, String>,
    settings: Option<toml::Table>,
}

#[derive(Serialize)]
struct Unit {
    name: &'static str,
    state: String,
    enabled: bool,
}

#[derive(Serialize)]
struct Engine {
    socket: String,
    version: Option<String>,
}

/// Runs `status`.
///
/// # Errors
/// The settings or the units can't be read; the agent does not run.
pub fn run(context: &Context, _: &Args) -> Result<()> {
    let status = Status::of(&context.machine)?;
    match context.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Format::Text => status.print(),
    }
    let runs = status.units.iter().any(|unit| unit.name == "scalr-agent" && unit.state == "active");
    if runs || !context.machine.is_this_one() { Ok(()) } else { Err(Failure::Failed.into()) }
}

impl Status {
    fn of(machine: &Machine) -> Result<Self> {
        let services = Services::of(machine);
        let settings = match Settings::read(&machine.path(config::FILE)) {
            Err(error) if Failure::of(&error) == Failure::NotPermitted => None,
            result => Some(result?),
        };
        let socket = settings.as_ref().and_then(|settings| settings.engine.clone());
        let socket = socket.unwrap_or_else(|| ENGINE.to_owned());
        Ok(Self {
            schema: 1,
            package: package(machine),
            units: UNITS.map(|name| unit(services, name)).into_iter().collect(),
            engine: Engine { version: engine_version(machine, &socket), socket },
            proxy: of_units(machine)?
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name, masked(&value)))
                .collect(),
            settings: settings.map(without_token).transpose()?,
        })
    }

    fn print(&self) {
        println!("package           {}", self.package.as_deref().unwrap_or("not installed"));
        for unit in &self.units {
            let enabled = if unit.enabled { ", starts at boot" } else { "" };
            println!("{:<17} {}{enabled}", unit.name, unit.state);
        }
        let version = self.engine.version.as_deref().unwrap_or("no answer");
        println!("engine            {version} ({})", self.engine.socket);
        let proxy = self.proxy.get("HTTPS_PROXY").or_else(|| self.proxy.get("HTTP_PROXY"));
        println!("proxy             {}", proxy.map_or("none", String::as_str));
        match &self.settings {
            None => println!("settings          only root may read {}", config::FILE),
            Some(settings) if settings.is_empty() => println!("settings          none yet"),
            Some(settings) => {
                for (name, value) in settings {
                    println!("{name:<17} {}", value.to_string().trim_matches('"'));
                }
            }
        }
    }
}

fn package(machine: &Machine) -> Option<String> {
    if !machine.is_this_one() {
        return None;
    }
    match Os::of(machine).ok()?.family {
        Family::Debian => dpkg::installed("scalr-agent").ok()?,
        _ => rpm::installed("scalr-agent").ok()?,
    }
}

fn unit(services: Services, name: &'static str) -> Unit {
    let state = match services.state(name) {
        None => "unknown: no systemd runs here".to_owned(),
        Some(state) if state.load != "loaded" => state.load,
        Some(state) => state.active,
    };
    Unit { name, state, enabled: services.is_enabled(name) }
}

fn engine_version(machine: &Machine, socket: &str) -> Option<String> {
    if !machine.is_this_one() || !Path::new(socket.trim_start_matches("unix://")).exists() {
        return None;
    }
    let bundled = machine.path(BUNDLE).join("docker");
    let client = if bundled.exists() { bundled } else { which::which("docker").ok()? };
    docker::engine_version(&client, socket).ok()
}

fn without_token(settings: Settings) -> Result<toml::Table> {
    let mut table: toml::Table = toml::from_str(&settings.to_toml()?)?;
    if let Some(token) = table.get_mut("token") {
        *token = "***".into();
    }
    Ok(table)
}
