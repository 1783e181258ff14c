//! `report`: one archive that says what a supporter asks for, and no secret.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde_json::Value;

use crate::check::{self, Print, Selection, Subject};
use crate::context::Context;
use crate::document;
use crate::output::Format;
use crate::secrets::Secrets;
use crate::status::{AGENT_PROGRAM, Status, UNITS, docker_client};
use cli::Failure;
use cli::eprintln;
use cli::untrusted_file;
use cli::whole_file::WholeFile;
use config::layout::{self, label};
use config::{ENGINE, Settings};
use host::command::{CommandExt as _, within};
use host::machine::Machine;
use host::systemd::Services;
use host::{docker, journal, users};

/// How long each command may take, in seconds.
const PATIENCE: u32 = 20;

const EXAMPLES: &str = "\
Examples:
  sudo scalr-agent-setup report
  sudo scalr-agent-setup report --output /tmp/report.tar.gz --lines 5000

The archive holds the status, the checks, units, journal, settings and versions.
The token, the passwords of proxies and variables whose name looks like that of
a secret are masked, in base64 and URLs too. The data of runs is not in it. Read
it before you pass it on: tar -xzf FILE.

Exit codes: 0 written, 1 it can't be written, 2 the file exists already.";

/// Write an archive for support, without secrets
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The archive; scalr-agent-report-TIME.tar.gz here if not named
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How many of the last lines of each unit's journal go in
    #[arg(long, value_name = "N", default_value_t = 2000)]
    lines: usize,
}

/// Runs `report`.
///
/// # Errors
/// The archive is there already or can't be written. What can't be found out is
/// marked as unavailable in the archive.
pub(crate) fn run(context: &Context, args: &Args) -> Result<()> {
    let name = format!("scalr-agent-report-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let output = args.output.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
    if output.exists() {
        return Err(Failure::Usage.because(format!(
            "{} already exists; name another file with --output",
            output.display()
        )));
    }
    if context.machine.is_this_one() && !users::are_root() {
        eprintln!("warning: only root can read all that belongs into it: run this with sudo");
    }
    let documents = collect(context, args.lines);
    write(&output, &name, &documents)?;
    print(context.format, &output, &documents)
}

/// A file of the archive.
struct Document {
    name: String,
    /// Its description, for people.
    about: String,
    text: String,
    /// Why it is unavailable.
    problem: Option<String>,
}

fn collect(context: &Context, lines: usize) -> Vec<Document> {
    let machine = &context.machine;
    let secrets = Secrets::of(machine);
    let mut documents = Vec::new();
    let mut add = |name: String, about: String, text: Result<String>| {
        let (text, problem) = match text {
            Ok(text) => (secrets.mask(&text), None),
            Err(error) => {
                let problem = secrets.mask(&format!("{error:#}"));
                (format!("unavailable: {problem}\n"), Some(problem))
            }
        };
        documents.push(Document { name, about, text, problem });
    };
    let mut add_one = |name: &str, about: &str, text| add(name.into(), about.into(), text);

    add_one("status.json", "what `status` says", json(&Status::of(machine)));
    add_one("check.json", "what `check` says", checks(machine));
    add_one("versions.txt", "programs, kernel, systemd", Ok(versions(machine)));
    add_one("os-release", "the operating system", read(machine, "/etc/os-release"));
    add_one("agent.toml", "the settings, the token masked", settings(machine));
    add_one("docker.json", "the private engine's settings", read(machine, layout::ENGINE_SETTINGS));
    add_one("setup.json", "what was changed, without contents", manifest(machine));
    add_one("engine.txt", "the engine, its containers and networks", engine(machine));
    add_one("network.txt", "addresses, routes, rules", network(machine));
    for unit in UNITS {
        let files = of_this_one(machine, || Ok(Services::of(machine).files_of(unit)?));
        add(format!("units/{unit}.txt"), format!("{unit} and its drop-ins"), files);
        let said = of_this_one(machine, || Ok(journal::text(unit, lines)?));
        add(format!("journal/{unit}.txt"), format!("its journal's last {lines} lines"), said);
    }
    documents
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

fn checks(machine: &Machine) -> Result<String> {
    let subject = Subject::of(machine)?;
    json(&check::check(&subject, &Selection::default(), Print::Nothing)?)
}

fn settings(machine: &Machine) -> Result<String> {
    let mut settings = Settings::read(&machine.path(config::FILE))?;
    settings.token = settings.token.map(|_| protocol::Secret::new("***"));
    settings.to_toml()
}

/// The record of what was changed, without the contents that were there before:
/// they may be of files that hold secrets.
fn manifest(machine: &Machine) -> Result<String> {
    let mut manifest: Value = serde_json::from_str(&read(machine, layout::SETUP_MANIFEST)?)?;
    leave_out_contents(&mut manifest);
    json(&manifest)
}

fn leave_out_contents(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str()) {
                    ("text", Some(text)) => *value = format!("({} bytes)", text.len()).into(),
                    // A weak password could be found by trying.
                    ("sha256", Some(_)) => *value = "***".into(),
                    _ => leave_out_contents(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_contents),
        _ => {}
    }
}

fn versions(machine: &Machine) -> String {
    let own = format!("scalr-agent-setup {}\n", env!("CARGO_PKG_VERSION"));
    if !machine.is_this_one() {
        return own;
    }
    own + &said_by(&[
        &[AGENT_PROGRAM, "--version"],
        &["uname", "-a"],
        &["systemctl", "--version"],
        &["iptables", "--version"],
        &["curl", "--version"],
        &["getenforce"],
        &["df", "-h", "/", layout::DATA_DIR, layout::ENGINE_DATA_DIR],
        &["free", "-m"],
    ])
}

fn network(machine: &Machine) -> Result<String> {
    of_this_one(machine, || {
        Ok(said_by(&[
            &["ip", "-4", "-o", "address"],
            &["ip", "-4", "route", "show", "table", "all"],
            &["iptables", "-w", "5", "-S", "FORWARD"],
            &["iptables", "-w", "5", "-S", "SCALR-AGENT"],
            &["iptables", "-w", "5", "-S", "SCALR-AGENT-INPUT"],
            &["iptables", "-w", "5", "-t", "nat", "-S", "SCALR-AGENT"],
        ]))
    })
}

fn engine(machine: &Machine) -> Result<String> {
    of_this_one(machine, || {
        let settings = Settings::read(&machine.path(config::FILE)).unwrap_or_default();
        let socket = settings.engine.as_deref().unwrap_or(ENGINE);
        let client = docker_client()?;
        let ours = format!("label={}", label::AGENT);
        let asked: [&[&str]; 4] = [
            &["version"],
            &["info"],
            &["ps", "--all", "--no-trunc", "--filter", &ours],
            &["network", "ls", "--no-trunc"],
        ];
        let mut text = String::new();
        for arguments in asked {
            let said = docker::ask(&client, socket, arguments)?;
            text += &format!("$ docker {}\n{said}\n", arguments.join(" "));
        }
        Ok(text)
    })
}

/// What commands say, each after its command line; one that fails says that.
fn said_by(lines: &[&[&str]]) -> String {
    let said = |line: &&[&str]| {
        let (program, arguments) = line.split_first().expect("a line has a program");
        let said = within(PATIENCE, program)
            .args(arguments)
            .read()
            .unwrap_or_else(|error| format!("{error}\n"));
        format!("$ {}\n{said}\n", Command::new(program).args(arguments).line())
    };
    lines.iter().map(said).collect()
}

fn of_this_one(machine: &Machine, look: impl FnOnce() -> Result<String>) -> Result<String> {
    if machine.is_this_one() { look() } else { bail!("a directory tree does not run") }
}

fn read(machine: &Machine, path: &str) -> Result<String> {
    untrusted_file::read_text(machine.path(path)).with_context(|| format!("cannot read {path}"))
}

/// Writes the archive, which has one directory; only its owner may read it.
fn write(output: &Path, directory: &str, documents: &[Document]) -> Result<()> {
    let now = u64::try_from(Timestamp::now().as_second())?;
    WholeFile::at(output).keep_existing().fill(|file| {
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        for document in documents {
            let mut header = tar::Header::new_gnu();
            header.set_size(document.text.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            let path = format!("{directory}/{}", document.name);
            archive.append_data(&mut header, path, document.text.as_bytes())?;
        }
        archive.into_inner()?.finish()?;
        Ok(())
    })
}

fn print(format: Format, output: &Path, documents: &[Document]) -> Result<()> {
    if format == Format::Json {
        let files: Vec<Value> = documents
            .iter()
            .map(|document| {
                serde_json::json!({
                    "name": document.name,
                    "about": document.about,
                    "problem": document.problem,
                })
            })
            .collect();
        let report = serde_json::json!({ "schema": 1, "file": output, "contents": files });
        document::write(&format!("{report:#}"))?;
        return Ok(());
    }
    println!("Wrote {}, which only you may read:", output.display());
    for Document { name, about, problem, .. } in documents {
        match problem {
            None => println!("  {name:<29} {about}"),
            Some(problem) => {
                let first = problem.lines().next().unwrap_or_default();
                println!("  {name:<29} unavailable: {first}");
            }
        }
    }
    println!("Secrets are masked; look through it before you pass it on.");
    Ok(())
}
