//! A server process of its own, with a pool and workspaces.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;
use nix::unistd::{SysconfVar, sysconf};
use reqwest::{Certificate, Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server with a pool; it ends with this.
#[derive(Debug)]
pub struct Site {
    /// Where it is, without a slash at the end.
    pub url: String,
    /// The certificate of its authority, PEM.
    pub authority: Vec<u8>,
    /// The pool.
    pub pool: String,
    /// What agents register with.
    pub pool_token: String,
    program: PathBuf,
    options: Vec<String>,
    admin: String,
    environment: String,
    api: Client,
    child: Child,
    folder: TempDir,
}

impl Site {
    /// Starts `program`, which is `scalr-server`, with more options of `serve`.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(program: &Path, options: &[&str]) -> Result<Self> {
        // Of two providers, rustls picks neither by itself. Another one may be installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir()?;
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let (child, lines) = launch(program, folder.path(), "127.0.0.1:0", &options)?;
        let admin = lines.iter().find_map(|line| line.strip_prefix("Admin token: "));
        let url = lines.last().and_then(|line| line.rsplit(' ').next());
        let authority = fs::read(folder.path().join("data/tls/ca.pem"))?;
        let mut site = Self {
            url: url.unwrap_or_default().trim_end_matches('/').to_owned(),
            pool: String::new(),
            pool_token: String::new(),
            program: program.to_owned(),
            options,
            admin: admin.context("the server printed no token")?.to_owned(),
            environment: String::new(),
            api: client(&authority)?,
            authority,
            child,
            folder,
        };
        let environments = site.api(Method::GET, "/environments", Value::Null).await?;
        site.environment = text(&environments["data"][0]["id"]);
        site.pool = site.create("/agent-pools", json!({ "name": "load" }), &[]).await?;
        let path = format!("/agent-pools/{}/access-tokens", site.pool);
        let token = site.api(Method::POST, &path, json!({ "data": {} })).await?;
        site.pool_token = text(&token["data"]["attributes"]["token"]);
        Ok(site)
    }

    /// Kills the server with SIGKILL and starts it in the same place.
    ///
    /// # Errors
    /// It does not start.
    pub fn crash_and_restart(&mut self) -> Result<()> {
        self.end();
        let address = self.url.rsplit('/').next().unwrap_or_default();
        self.child = launch(&self.program, self.folder.path(), address, &self.options)?.0;
        // The earlier one has connections that are over.
        self.api = client(&self.authority)?;
        Ok(())
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Makes a workspace of the pool with a configuration; its id.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn workspace(&self, name: &str) -> Result<String> {
        let related = [("environment", self.environment.as_str()), ("agent-pool", &self.pool)];
        let workspace = self.create("/workspaces", json!({ "name": name }), &related).await?;
        let document = document(json!({}), &[("workspace", &workspace)]);
        let version = self.api(Method::POST, "/configuration-versions", document).await?;
        let link = text(&version["data"]["links"]["upload"]);
        self.api.put(link).body(configuration()?).send().await?.error_for_status()?;
        Ok(workspace)
    }

    /// Makes a run; its id.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn run(&self, workspace: &str) -> Result<String> {
        self.create("/runs", json!({}), &[("workspace", workspace)]).await
    }

    /// An attribute of all agents of the pool, for example `status`.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn agents(&self, attribute: &str) -> Result<Vec<String>> {
        let mut values = Vec::new();
        for page in 1.. {
            let path = format!("/agents?page[size]=100&page[number]={page}");
            let listed = self.api(Method::GET, &path, Value::Null).await?;
            let agents = listed["data"].as_array().context("no list of agents")?;
            if agents.is_empty() {
                break;
            }
            values.extend(agents.iter().map(|agent| text(&agent["attributes"][attribute])));
        }
        Ok(values)
    }

    /// A call of the pool API as an admin.
    ///
    /// # Errors
    /// The server refuses it.
    pub async fn api(&self, method: Method, path: &str, document: Value) -> Result<Value> {
        let url = format!("{}/api/iacp/v3{path}", self.url);
        let request = self.api.request(method, url).bearer_auth(&self.admin);
        let request = if document.is_null() { request } else { request.json(&document) };
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if !status.is_success() {
            bail!("{path}: {status} {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    async fn create(
        &self,
        path: &str,
        attributes: Value,
        related: &[(&str, &str)],
    ) -> Result<String> {
        let made = self.api(Method::POST, path, document(attributes, related)).await?;
        Ok(text(&made["data"]["id"]))
    }

    /// What the server has logged.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join("server.log"))?)
    }

    /// How much processor time the server has had, in seconds.
    ///
    /// # Errors
    /// The server has ended.
    pub fn processor_seconds(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name before it may have spaces.
        let (_, fields) = stat.rsplit_once(") ").context("no fields in the file stat")?;
        let ticks: f64 = fields.split(' ').skip(11).take(2).flat_map(str::parse::<f64>).sum();
        let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no ticks")?;
        #[allow(clippy::cast_precision_loss)]
        Ok(ticks / per_second as f64)
    }

    /// How much memory the server has, in KiB.
    ///
    /// # Errors
    /// The server has ended.
    pub fn memory(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.context("no memory in the file status")?;
        Ok(memory.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.end();
    }
}

fn client(authority: &[u8]) -> Result<Client> {
    let authority = Certificate::from_pem(authority)?;
    Ok(Client::builder().tls_certs_only([authority]).no_proxy().build()?)
}

fn document(attributes: Value, related: &[(&str, &str)]) -> Value {
    let relationships: serde_json::Map<String, Value> = related
        .iter()
        .map(|(name, id)| {
            ((*name).to_owned(), json!({ "data": { "type": format!("{name}s"), "id": id } }))
        })
        .collect();
    json!({ "data": { "attributes": attributes, "relationships": relationships } })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn configuration() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    archive.append_data(&mut header, "main.tf", std::io::empty())?;
    Ok(archive.into_inner()?.finish()?)
}

/// Starts the server; it, and what it printed until it was up.
fn launch(
    program: &Path,
    folder: &Path,
    address: &str,
    options: &[String],
) -> Result<(Child, Vec<String>)> {
    let log = fs::File::options().create(true).append(true).open(folder.join("server.log"))?;
    let mut child = Command::new(program)
        .args(["serve", "--tls-self-signed", "--listen", address, "--data"])
        .arg(folder.join("data"))
        .args(options)
        .env_clear()
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let output = child.stdout.take().context("no output")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        lines.push(line?);
        if lines.last().is_some_and(|line| line.starts_with("Listening on ")) {
            return Ok((child, lines));
        }
    }
    bail!("the server ended: {}", fs::read_to_string(folder.join("server.log"))?)
}
