//! `proxy show`.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::drop_in::{is_linked, of_units};
use super::engine_proxy::{Engine, EngineProxy};
use crate::context::{Context, RECORDS};
use crate::document;
use crate::output::Format;
use cli::answer;
use config::layout::{ENGINE_PROXY_DROP_IN, PROXY_DROP_IN, PROXY_SECRETS};
use config::proxy::masked_value;
use host::changes::Changes;

/// What `proxy show --format json` prints.
#[derive(Serialize)]
struct Shown {
    /// 1.
    schema: u32,
    /// The variables that the agent's unit sets, without passwords.
    variables: BTreeMap<String, String>,
    /// `setup`, `hand`, or null when no proxy is set.
    written_by: Option<&'static str>,
    /// Whether the private engine uses the same.
    engine: bool,
    /// What the engine of the runs uses, without passwords, and the file that sets it.
    engine_proxy: Vec<EngineProxy>,
}

pub(super) fn show(context: &Context) -> Result<()> {
    let machine = &context.machine;
    let variables = of_units(machine)?;
    let engine = Engine::of(machine)?;
    let changes = Changes::begin(machine, &RECORDS, true)?;
    let shown = Shown {
        schema: 1,
        written_by: match machine.path(PROXY_DROP_IN).exists() || !variables.is_empty() {
            true if changes.is_ours(PROXY_DROP_IN)? => Some("setup"),
            true => Some("hand"),
            false => None,
        },
        variables: variables
            .into_iter()
            .map(|(name, value)| (name, masked_value(&value)))
            .collect(),
        engine: is_linked(machine),
        engine_proxy: engine.proxy(machine)?,
    };
    if context.format == Format::Json {
        document::write(&serde_json::to_string_pretty(&shown)?)?;
        return Ok(());
    }
    let in_secrets = machine.path(PROXY_SECRETS).exists();
    print_services(&shown, in_secrets, engine.is_bundled());
    // What the link gives the private engine is the agent's own.
    let is_shown =
        |one: &&EngineProxy| ![ENGINE_PROXY_DROP_IN, PROXY_SECRETS].contains(&&*one.file);
    for EngineProxy { name, value, file } in shown.engine_proxy.iter().filter(is_shown) {
        answer!("{}: {name} {value} ({file})", engine.unit);
    }
    if !engine.is_bundled() && shown.engine_proxy.is_empty() {
        answer!(
            "docker has no proxy: it pulls images without one. Set `proxies` in \
             /etc/docker/daemon.json and restart docker to change that."
        );
    }
    Ok(())
}

/// The proxy of the agent, and whether the private engine has it too.
fn print_services(shown: &Shown, in_secrets: bool, is_bundled: bool) {
    if shown.written_by.is_none() {
        answer!("No proxy is set.");
        return;
    }
    for (name, value) in shown.variables.iter().filter(|(name, _)| name.contains("PROXY")) {
        answer!("{name:<12} {value}");
    }
    match shown.variables.is_empty() {
        true if in_secrets => answer!("{PROXY_SECRETS} has the proxy; only root can read it."),
        true => answer!("{PROXY_DROP_IN} sets no proxy."),
        false => {}
    }
    if shown.written_by == Some("hand") {
        answer!("{PROXY_DROP_IN} was written by hand; it is used as it is.");
    }
    if is_bundled && !shown.engine {
        answer!("scalr-docker does not use it: {ENGINE_PROXY_DROP_IN} is not a link to it.");
    }
}
