//! `/pools/ID/register`: how a machine becomes an agent, with the exact commands.
//!
//! A form chooses way and options, and shows the commands. With the token, which is shown once,
//! it becomes the page that waits for the agent.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use serde_json::json;

use super::address::Path;
use super::agent;
use super::error::PageError;
use super::form::{Fields, Form};
use super::frame::Page;
use super::refusal::Refusal;
use super::session::Session;
use super::{pool, pool_token};
use crate::app::App;
use crate::clock::Millis;
use crate::install_line::{Server, TOKEN_ON_HOST};
use crate::packages;
use crate::store::{access_token, agent as store};

/// For how long an agent may register with a token that is for one agent, in minutes.
const REGISTRATION: i64 = 60;

/// After how long without an agent the page says what may be wrong.
const USUAL: Millis = 2 * 60 * 1000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/pools/{id}/register", get(ask).post(answer))
        .route("/pools/{id}/registrations/{token}", get(arrival))
}

/// How an agent gets onto a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    Deb,
    Rpm,
    Docker,
    Offline,
    Ansible,
    CloudInit,
}

const WAYS: [(Way, &str, &str); 6] = [
    (Way::Deb, "deb", "Ubuntu, Debian"),
    (Way::Rpm, "rpm", "RHEL and relatives"),
    (Way::Docker, "docker", "Docker"),
    (Way::Offline, "offline", "Offline bundle"),
    (Way::Ansible, "ansible", "Ansible"),
    (Way::CloudInit, "cloud-init", "cloud-init"),
];

impl Way {
    fn of(fields: &Fields) -> Self {
        let found = WAYS.iter().find(|(_, value, _)| *value == fields.get("way"));
        found.map_or(Way::Deb, |(way, ..)| *way)
    }

    /// Whether the same token goes to several machines.
    fn is_for_many(self) -> bool {
        matches!(self, Way::Ansible | Way::CloudInit)
    }
}

/// The options, as they were typed.
#[derive(Debug, Serialize)]
struct Options {
    name: String,
    concurrency: String,
    memory: String,
    proxy: String,
    ca: String,
}

impl Options {
    fn of(fields: &Fields) -> Self {
        let get = |name| fields.get(name).to_owned();
        Self {
            name: get("name"),
            concurrency: get("concurrency"),
            memory: get("memory"),
            proxy: get("proxy"),
            ca: get("ca"),
        }
    }

    /// As install.sh takes them.
    fn arguments(&self) -> Vec<&str> {
        let options = [
            ("--agent-name", &self.name),
            ("--concurrency", &self.concurrency),
            ("--memory", &self.memory),
            ("--http-proxy", &self.proxy),
            ("--https-proxy", &self.proxy),
            ("--ca-cert", &self.ca),
        ];
        let given = options.into_iter().filter(|(_, value)| !value.is_empty());
        given.flat_map(|(option, value)| [option, value.as_str()]).collect()
    }

    /// What the install script would refuse.
    fn refusal(&self) -> Refusal {
        let mut refusal = Refusal::default();
        let mut wrong = |field: &str, text: &str| {
            refusal.fields.insert(field.to_owned(), text.to_owned());
        };
        if self.concurrency.parse::<u32>().is_err() && !self.concurrency.is_empty() {
            wrong("concurrency", "A number, for example 2.");
        }
        if self.memory.parse::<u32>().is_err() && !self.memory.is_empty() {
            wrong("memory", "A number of MB, for example 1024.");
        }
        let is_proxy = self.proxy.starts_with("http://") || self.proxy.starts_with("https://");
        if !is_proxy && !self.proxy.is_empty() {
            wrong("proxy", "A URL, for example http://proxy.example.com:3128.");
        }
        if !self.ca.starts_with('/') && !self.ca.is_empty() {
            wrong("ca", "An absolute path on the machine, for example /etc/ssl/company-ca.pem.");
        }
        refusal
    }
}

#[derive(Serialize)]
struct Register {
    id: String,
    pool: String,
    ways: [(Way, &'static str, &'static str); 6],
    way: Way,
    options: Options,
    /// The server has an authority of its own, which the commands bring with them.
    has_authority: bool,
    serves_packages: bool,
    steps: Vec<Step>,
    refusal: Refusal,
    /// None: it was not made yet.
    token: Option<String>,
    arrival: Option<Arrival>,
}

/// Something to do, and the text for it.
#[derive(Debug, Serialize)]
struct Step {
    text: String,
    code: String,
}

async fn ask(
    State(app): State<App>,
    Path(id): Path<String>,
    session: Session,
) -> Result<Response, PageError> {
    let fields = Fields::default();
    show(&app, &session, &id, &fields, None, Refusal::default()).await
}

/// Shows the commands for what was filled in; with `make-token`, also makes the token.
async fn answer(
    State(app): State<App>,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let Form { session, fields } = form;
    let refusal = Options::of(&fields).refusal();
    if !refusal.is_empty() || !fields.has("make-token") {
        return show(&app, &session, &id, &fields, None, refusal).await;
    }
    let way = Way::of(&fields);
    let attributes = match way.is_for_many() {
        true => json!({ "name": format!("{} registration", fields.get("way")) }),
        false => json!({
            "name": "registration", "expires-in": REGISTRATION, "for-one-agent": true,
        }),
    };
    match pool_token::issue(&app, &id, attributes).await? {
        Ok(issued) => show(&app, &session, &id, &fields, Some(issued), refusal).await,
        Err(refusal) => show(&app, &session, &id, &fields, None, refusal.beside(&[])).await,
    }
}

async fn show(
    app: &App,
    session: &Session,
    id: &str,
    fields: &Fields,
    issued: Option<pool_token::Issued>,
    refusal: Refusal,
) -> Result<Response, PageError> {
    let pool = {
        let mut db = app.scheduler.store.read().await?;
        pool::find(&mut db, id).await?.name
    };
    let server = Server {
        url: app.link(""),
        ca_sha256: packages::authority_sha256(app),
        key_sha256: packages::key_sha256(app),
    };
    let (way, options) = (Way::of(fields), Options::of(fields));
    let token = issued.as_ref().map(|issued| issued.token.clone());
    let arrival = match &issued {
        Some(issued) => Some(Arrival::of(app, id, &issued.id).await?),
        None => None,
    };
    let content = Register {
        id: id.to_owned(),
        pool,
        ways: WAYS,
        way,
        has_authority: server.ca_sha256.is_some(),
        serves_packages: app.packages.is_some(),
        steps: steps(way, &server, &options, token.as_deref().unwrap_or("TOKEN")),
        refusal,
        options,
        token,
        arrival,
    };
    let topics = [format!("pool:{id}")];
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let page = Page {
        template: "register.html",
        title: "Register an agent",
        section: "pools",
        topics: &topics,
    };
    page.show_with(content.refusal.status(), app, session, &content)
}

fn step(text: &str, code: impl Into<String>) -> Step {
    Step { text: text.to_owned(), code: code.into() }
}

fn steps(way: Way, server: &Server, options: &Options, token: &str) -> Vec<Step> {
    let put_token = step(
        "Run this on the machine, paste the token, then press Enter and Ctrl-D. This keeps the \
         token out of the shell's history and the list of processes.",
        format!("sudo sh -c 'umask 077 && cat >{TOKEN_ON_HOST}'"),
    );
    let install = "Then install the agent. The command ends when the agent is registered.";
    match way {
        Way::Deb | Way::Rpm => {
            vec![put_token, step(install, server.install_line(&options.arguments()))]
        }
        Way::Offline => {
            let mut steps = vec![step(
                "Where the package repository is, make the bundle. Carry it to the machine.",
                "scalr-agent-setup bundle --repository DIR --output agent.tar",
            )];
            steps.push(put_token);
            steps.extend(server.fetch_authority().map(|line| {
                step("Fetch the server's certificate authority and compare it.", line)
            }));
            steps.push(step("Unpack the bundle.", "tar -xf agent.tar"));
            steps.push(step(install, server.offline_line(&options.arguments())));
            steps
        }
        Way::Docker => {
            let mut steps = vec![step(
                "Beside pkg/docker/compose.yaml, write agent.toml, which only user 65532 may read.",
                agent_toml(server, options, token),
            )];
            if let Some(line) = server.fetch_authority() {
                steps.push(step("Fetch the server's certificate authority and compare it.", line));
                steps.push(step(
                    "Add it to the volumes in compose.yaml.",
                    "- /etc/scalr-server-ca.pem:/etc/scalr-agent/ca.pem:ro",
                ));
            }
            if !options.proxy.is_empty() {
                steps.push(step(
                    "Add the proxy to the agent in compose.yaml.",
                    format!("environment:\n  HTTPS_PROXY: {}", quoted(&options.proxy)),
                ));
            }
            steps.push(step(
                "Build the image once, from the release's files, and start the agent.",
                "docker build --file pkg/docker/Dockerfile --tag scalr-agent target/package/root\n\
                 export DOCKER_GROUP=$(stat --format=%g /var/run/docker.sock)\n\
                 docker-compose --file pkg/docker/compose.yaml up --detach",
            ));
            steps
        }
        Way::Ansible => vec![
            step(
                "Beside pkg/ansible/scalr_agent, save this as playbook.yml.",
                playbook(server, options),
            ),
            step(
                "Run this, paste the token, then press Enter.",
                "read -rs POOL_TOKEN && export POOL_TOKEN",
            ),
            step("Then install the agents.", "ansible-playbook -i INVENTORY playbook.yml"),
        ],
        Way::CloudInit => vec![step(
            "Give new machines this user data. Every program on a machine that reaches the \
             metadata address can read it; runs cannot.",
            user_data(server, options, token),
        )],
    }
}

/// A text as TOML and JSON, which is YAML too, have it.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

fn agent_toml(server: &Server, options: &Options, token: &str) -> String {
    let mut lines = vec![
        format!("url = {}", quoted(&server.url)),
        format!("token = {}", quoted(token)),
        "image = \"hashicorp/terraform:1.9\"".to_owned(),
    ];
    if server.ca_sha256.is_some() {
        lines.push("ca_cert = \"/etc/scalr-agent/ca.pem\"".to_owned());
    }
    for (setting, value) in [("agent_name", &options.name), ("ca_cert", &options.ca)] {
        if !value.is_empty() {
            lines.push(format!("{setting} = {}", quoted(value)));
        }
    }
    for (setting, value) in [("concurrency", &options.concurrency), ("memory", &options.memory)] {
        if !value.is_empty() {
            lines.push(format!("{setting} = {value}"));
        }
    }
    lines.join("\n")
}

fn playbook(server: &Server, options: &Options) -> String {
    let mut vars = vec![
        format!("scalr_agent_url: {}", server.url),
        "scalr_agent_token: \"{{ lookup('ansible.builtin.env', 'POOL_TOKEN') }}\"".to_owned(),
    ];
    if let Some(sha256) = &server.key_sha256 {
        vars.push(format!("scalr_agent_key_checksum: sha256:{sha256}"));
    }
    if let Some(sha256) = &server.ca_sha256 {
        vars.push(format!("# {}/ca.pem, whose SHA-256 is {sha256}", server.url));
        vars.push("scalr_agent_server_ca: \"{{ lookup('file', 'ca.pem') }}\"".to_owned());
    }
    for (name, value) in [
        ("scalr_agent_name", &options.name),
        ("scalr_agent_concurrency", &options.concurrency),
        ("scalr_agent_memory", &options.memory),
        ("scalr_agent_http_proxy", &options.proxy),
    ] {
        if !value.is_empty() {
            vars.push(format!("{name}: {}", quoted(value)));
        }
    }
    format!(
        "- name: Hosts that run Terraform for the pool\n  hosts: terraform_agents\n  \
         become: true\n  roles:\n    - role: scalr_agent\n      vars:\n        {}",
        vars.join("\n        ")
    )
}

fn user_data(server: &Server, options: &Options, token: &str) -> String {
    let install = server.install_line(&options.arguments());
    format!(
        "#cloud-config\nwrite_files:\n  - path: {TOKEN_ON_HOST}\n    owner: root:root\n    \
         permissions: \"0600\"\n    content: {}\n\nruncmd:\n  - {}\n  - rm -f {TOKEN_ON_HOST}",
        quoted(token),
        quoted(&install.replace("sudo ", ""))
    )
}

/// Who registered with a token.
#[derive(Serialize)]
struct Arrival {
    pool_id: String,
    token_id: String,
    agents: Vec<agent::Row>,
    /// The token was revoked, or has expired before anybody registered with it.
    is_over: bool,
    is_late: bool,
    reach: String,
}

impl Arrival {
    async fn of(app: &App, pool_id: &str, token_id: &str) -> Result<Self, PageError> {
        let mut db = app.scheduler.store.read().await?;
        let now = app.scheduler.clock.now();
        // One that is revoked is not there any more, and its page says so.
        let token = access_token::find(&mut db, token_id).await?;
        if token.as_ref().is_some_and(|token| token.pool_id.as_deref() != Some(pool_id)) {
            return Err(PageError::NotFound("token"));
        }
        let agents = store::of_token(&mut db, token_id).await?;
        let agents = agent::rows(app, &mut db, agents, &[]).await?;
        let trust = if app.authority.is_some() { "--cacert /etc/scalr-server-ca.pem " } else { "" };
        Ok(Self {
            pool_id: pool_id.to_owned(),
            token_id: token_id.to_owned(),
            agents,
            is_over: token.as_ref().is_none_or(|token| token.is_expired(now)),
            is_late: token.is_some_and(|token| now - token.created_at > USUAL),
            reach: format!("curl -fsS {trust}{}", app.link("/healthz")),
        })
    }
}

#[derive(Serialize)]
struct ArrivalPage {
    pool: String,
    arrival: Arrival,
}

/// The page that waits, without the commands: the one with them has a token in it, and cannot
/// be fetched again.
async fn arrival(
    State(app): State<App>,
    Path((id, token)): Path<(String, String)>,
    session: Session,
) -> Result<Response, PageError> {
    let pool = {
        let mut db = app.scheduler.store.read().await?;
        pool::find(&mut db, &id).await?.name
    };
    let content = ArrivalPage { pool, arrival: Arrival::of(&app, &id, &token).await? };
    let topic = format!("pool:{id}");
    let page = Page {
        template: "registration.html",
        title: "Register an agent",
        section: "pools",
        topics: &[&topic],
    };
    page.show(&app, &session, &content)
}
