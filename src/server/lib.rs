//! `scalr-server`: keeps pools, workspaces, runs and state.
//!
//! | part | what it does |
//! |---|---|
//! | `args` | the command line |
//! | `admin` | the first start, and admins' tokens |
//! | [`store`] | the database: a file for each noun |
//! | [`objects`], [`logs`] | what is too large for it |
//! | [`retention`] | removes old content |
//! | [`samples`] | keeps how busy the pools were |
//! | [`scheduler`] | moves runs, tasks and agents on; every change of their status is in there |
//! | [`api`] | reads requests, asks the store or the scheduler, writes answers |
//! | `accept`, [`connections`], [`paced`] | how many there may be, for how long, and how slow |
//! | [`boxed`] | no place in a connection's task for its handshake |
//! | [`pieces`] | no body of a request in tiny pieces |
//! | [`packages`] | what agents are installed from, and the authority to trust |
//! | [`certificate_files`], [`certificate`] | a certificate of the operator's, and whether it is good |
//! | [`pages`] | the pages for people |
//! | [`metrics`] | what Prometheus reads |
//! | [`local_api`] | the pool API for the host's own administrators |
//! | [`commands`] | the commands that call the pool API |
//! | `start_problems`, `variables` | what keeps it from starting, with the setting to change |
//! | [`disk`], [`usage`] | what of the disk has to stay free, and who uses it |
//! | [`install_line`] | the command that installs an agent |
//! | [`tls`], [`token`], [`clock`] | what their names say |

mod accept;
mod api;
mod app;
mod args;
mod bounded;
mod boxed;
mod certificate;
mod certificate_files;
mod clock;
mod commands;
mod connections;
mod disk;
mod hcl_value;
mod inherited_variables;
mod install_line;
mod kept_forms;
mod local_api;
mod logs;
mod metrics;
mod objects;
mod paced;
mod packages;
mod pages;
mod pieces;
mod reopened;
mod retention;
mod revoked;
mod run_schedules;
mod run_triggers;
mod samples;
mod scheduler;
mod sign_in_attempts;
mod start_problems;
mod started_runs;
mod state_warnings;
mod store;
mod tls;
mod token;
mod turns;
mod upload;
mod usage;
mod variables;
mod watched;
mod webhooks;

mod admin;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod in_process;

use std::fs::{DirBuilder, File};
use std::io::{IsTerminal as _, stderr};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use axum_server::Handle;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use clap::CommandFactory as _;
use cli::documents;
use nix::sys::stat::{Mode, umask};
use sd_notify::NotifyState;
use tokio::net::TcpSocket;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tower::util::MapRequestLayer;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::{Span, debug_span, info, warn};
use tracing_subscriber::EnvFilter;
use url::Url;

use app::{App, Parts};
use args::{AdminToken, Command, LogFormat, Serve, Tls};
use boxed::Boxed;
use certificate_files::CertificateFiles;
use clock::Clock;
use connections::{Begun, Gate};
use disk::Reserve;
use kept_forms::KeptForms;
use logs::Logs;
use metrics::Measured;
use objects::Objects;
use packages::Packages;
use retention::Retention;
use scheduler::{Presence, Scheduler, Terms, Wake};
use sign_in_attempts::Attempts;
use store::Store;
use usage::Usage;
use watched::Watched;

pub use args::Cli;

use cli::{Failure, answer, println};

/// The database's file in the data folder.
const DATABASE: &str = "server.db";

/// How long a client may send nothing of a body that it has begun.
const SILENT_BODY: Duration = Duration::from_secs(60);

/// The largest head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// How long requests under way may take after a stop was asked for.
const STOP: Duration = Duration::from_secs(10);

/// Runs the command.
///
/// # Errors
/// Whatever the command says; [`cli::exit::report`] makes the exit code of it.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(options) => serve(*options),
        Command::Trial(command) => commands::run(command.run()),
        Command::AdminToken(command) => admin_token(&command),
        Command::Pool(command) => commands::run(command.run()),
        Command::Workspace(command) => commands::run(command.run()),
        Command::Variable(command) => commands::run(command.run()),
        Command::Run(command) => commands::run(command.run()),
        Command::SignInLink(command) => commands::run(command.run()),
        Command::TrustKey(command) => command.run(),
        Command::Documents(args) => documents::write(Cli::command(), &args),
    }
}

/// `scalr-server serve`: runs until SIGTERM or SIGINT.
///
/// # Errors
/// It can't start: an option, the data folder, the port or the certificate is
/// no good.
fn serve(options: Serve) -> Result<()> {
    init_log(options.log_format);
    // Database, states and logs are the server's alone, also where the data
    // folder was made by somebody else.
    umask(Mode::from_bits_truncate(0o077));
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(run_until_stopped(options))
}

/// `scalr-server admin-token`: makes, lists or revokes admins' tokens.
///
/// # Errors
/// There is no server in the folder, or it can't be written.
fn admin_token(command: &AdminToken) -> Result<()> {
    let folder = command.folder();
    let database = folder.join(DATABASE);
    if !database.exists() {
        let text = format!("there is no server's folder {}; see --data", folder.display());
        return Err(Failure::Usage.because(text));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = Store::open(&database).await?;
        let now = Clock::default().now();
        match command {
            AdminToken::Create { name, expires_in, admin_token_file: file, .. } => {
                let file = file.as_deref();
                let token = admin::another_token(&store, now, name, *expires_in, file).await?;
                if file.is_none() {
                    answer!("Admin token: {}", token.expose());
                }
            }
            AdminToken::List { .. } => {
                let list = admin::list(&store, now).await?;
                cli::print::to_answer(format_args!("{list}"));
            }
            AdminToken::Revoke { id, force, .. } => {
                admin::revoke(&store, now, id, *force).await?;
                answer!("revoked {id}");
            }
        }
        store.close().await;
        Ok(())
    })
}

async fn run_until_stopped(options: Serve) -> Result<()> {
    variables::require_spelt_right(&Cli::command())?;
    let tls = options.tls.choice(options.url.as_ref())?;
    // It ends no server, not even one without a certificate to load again.
    let hangup = signal(SignalKind::hangup())?;
    if let Some(folder) = &options.packages {
        start_problems::require_repository(folder)?;
    }
    let metrics_token =
        options.metrics_token_file.as_deref().map(metrics::endpoint::read_token).transpose()?;
    let listener = bind(options.listen)
        .map_err(|error| start_problems::cannot_listen(options.listen, &error))?;
    let address = listener.local_addr()?;
    let url = match options.url {
        Some(url) => url,
        None => default_url(&tls, address)?,
    };
    require_encryption(&url)?;
    if let Some(warning) = start_problems::other_port(&url, address.port(), &tls) {
        warn!("{warning}");
    }

    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.data)
        .map_err(|error| start_problems::cannot_use(&options.data, "make", &error))?;
    let _lock = lock(&options.data)?;
    let database = options.data.join(DATABASE);
    start_problems::require_writable(&database)
        .map_err(|error| start_problems::cannot_use(&options.data, "write into", &error))?;
    let mut own_authority = None;
    let tls = match tls {
        Tls::Files { cert, key } => {
            let files = CertificateFiles { cert, key, host: host(&url) };
            Some(files.serve(hangup)?)
        }
        Tls::SelfSigned { mut names } => {
            names.insert(0, host(&url));
            let authority = tls::Authority::open(&options.data.join("tls"), &names)?;
            own_authority = Some(authority.pem().to_owned());
            Some(self_signed(authority, names, hangup)?)
        }
        Tls::Off => {
            warn!("plain HTTP: tokens and states can be read on the way to whoever speaks TLS");
            None
        }
    };
    let packages = match options.packages {
        Some(folder) => Some(Packages::open(folder, &options.data)?),
        None => None,
    };
    let reserve = Reserve::new(&options.data, options.reserve * 1024 * 1024);
    let usage = Usage::default();
    let scheduler = Scheduler {
        store: Store::open(&database).await?,
        objects: Objects::open(
            &options.data.join("objects"),
            reserve.clone(),
            usage.clone(),
            options.max_state * 1024 * 1024,
        )?,
        clock: Clock::default(),
        wake: Wake::default(),
        presence: Presence::default(),
        terms: Terms {
            lease: options.lease,
            plan_timeout: options.plan_timeout,
            apply_timeout: options.apply_timeout,
        },
    };
    let logs = Logs::open(&options.data.join("logs"), reserve, usage.clone())?;
    let token_file = options.admin_token_file.as_deref();
    let admin_token =
        admin::first_start(&scheduler.store, scheduler.clock.now(), token_file).await?;
    scheduler.restart_presence().await?;
    scheduler.restart_leases().await?;

    let app = Arc::new(Parts {
        scheduler,
        logs,
        usage,
        quotas: options.quotas.bytes(),
        watched: Watched::default(),
        uploads: Arc::new(upload::turns()),
        outputs: Arc::new(api::outputs_turns()),
        sign_ins: Attempts::default(),
        kept_forms: KeptForms::default(),
        url,
        authority: own_authority,
        packages,
        metrics_token,
    });
    if let Some(token) = admin_token {
        println!("Admin token: {}", token.expose());
        println!("Sign in: {}", pages::new_link(&app).await?.0);
    }
    if let Some(sha256) = packages::authority_sha256(&app) {
        println!("Certificate authority: {}, SHA-256 {sha256}", app.link("/ca.pem"));
        info!(url = app.link("/ca.pem"), sha256, "certificate authority");
    }
    let local = match local_api::bind(&options.data) {
        Ok(listener) => Some(tokio::spawn(local_api::serve(listener, Arc::clone(&app)))),
        Err(error) => {
            warn!("{error:#}; commands on this host need --server and a token");
            None
        }
    };
    // Before it says that it listens: a stop that comes at once is a stop, too.
    let terminate = signal(SignalKind::terminate())?;
    let interrupt = signal(SignalKind::interrupt())?;
    let gate = Gate::new(options.connections.limits());
    println!("Listening on {address} as {}", app.link(""));
    info!(%address, url = app.link(""), "server is up");
    // The socket listens since it was bound, and all that can be refused was not.
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        warn!("cannot notify systemd: {error}");
    }

    let handle = Handle::new();
    let stopping =
        tokio::spawn(stop_on_signal(Arc::clone(&app), handle.clone(), terminate, interrupt));
    let sweeper = tokio::spawn({
        let app = Arc::clone(&app);
        async move { app.scheduler.sweep().await }
    });
    let caller = tokio::spawn(Arc::clone(&app).call_webhooks());
    let sampler = tokio::spawn(samples::sample_pools(Arc::clone(&app)));
    let starter = tokio::spawn({
        let app = Arc::clone(&app);
        async move { started_runs::start_due_runs(&app).await }
    });
    let remover = tokio::spawn({
        let app = Arc::clone(&app);
        let retention = Retention { states: options.keep_states, runs: options.keep_runs };
        async move { app.remove_old_content(retention).await }
    });
    listen(listener, tls, gate, handle, routes(&app)).await.context("the server failed")?;
    if let Some(local) = local {
        local.abort();
    }
    stopping.await?;
    sweeper.await?;
    caller.await?;
    sampler.await?;
    starter.await?;
    remover.await?;
    app.scheduler.store.close().await;
    info!("server has stopped");
    Ok(())
}

fn routes(app: &App) -> Router {
    Router::new()
        .route("/healthz", get(health))
        .merge(api::routes(app))
        .merge(packages::routes(app))
        .merge(pages::routes())
        .merge(metrics::endpoint::routes())
        .layer(RequestBodyTimeoutLayer::new(SILENT_BODY))
        .layer(MapRequestLayer::new(pieces::join_small))
        .layer(from_fn_with_state(Arc::clone(app), answer))
        .layer(TraceLayer::new_for_http().make_span_with(request_span))
        .with_state(Arc::clone(app))
}

/// Answers a request. In one layer, as each keeps a kilobyte for a call that is held.
async fn answer(State(app): State<App>, request: Request, next: Next) -> Response {
    let measured = Measured::begin(&request);
    let begun = Begun::begin(&request);
    let mut answer = revoked::end_with_token(&app, request, next).await;
    begun.close_unauthenticated(&mut answer);
    measured.end(&app.scheduler.store.metrics, &answer);
    answer
}

/// What stands before what is logged about a request. The route, not the path:
/// that of an upload has a signature in it.
fn request_span(request: &Request) -> Span {
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    debug_span!("request", method = %request.method(), route)
}

/// 200 when the server is up and its database answers.
async fn health(State(app): State<App>) -> Result<&'static str, (StatusCode, &'static str)> {
    match app.scheduler.store.read().await {
        Ok(_) => Ok("ok\n"),
        Err(_) => Err((StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n")),
    }
}

/// A listener with a queue for as many connections as agents may begin at once, after a
/// restart for example: one that does not fit waits for seconds before it tries again. The
/// kernel cuts the queue to net.core.somaxconn.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    const QUEUE: u32 = 4096;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE)?.into_std()
}

async fn listen(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    gate: Gate,
    handle: Handle<SocketAddr>,
    routes: Router,
) -> std::io::Result<()> {
    let service = routes.into_make_service();
    let mut server = axum_server::from_tcp(listener)?
        .http1_only()
        .first_request_timeout(connections::FIRST_REQUEST)
        .handle(handle);
    // It also counts the time before a head begins.
    let mut http = server.http_builder().http1();
    http.header_read_timeout(connections::IDLE).max_buf_size(MAX_HEAD);
    match tls {
        Some(tls) => {
            let tls = RustlsAcceptor::new(tls).handshake_timeout(connections::FIRST_REQUEST);
            server.acceptor(Boxed(tls.acceptor(gate))).serve(service).await
        }
        None => server.acceptor(gate).serve(service).await,
    }
}

async fn stop_on_signal(
    app: App,
    handle: Handle<SocketAddr>,
    mut terminate: Signal,
    mut interrupt: Signal,
) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("stopping");
    // Held polls are answered, so that nothing keeps the server.
    app.scheduler.wake.stop();
    handle.graceful_shutdown(Some(STOP));
}

/// TLS with the server's own authority, renewed while it runs.
fn self_signed(
    authority: tls::Authority,
    names: Vec<String>,
    mut hangup: Signal,
) -> Result<RustlsConfig> {
    let config = RustlsConfig::from_config(authority.config(&names)?);
    let renewed = config.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = hangup.recv() => {}
                () = tokio::time::sleep(tls::RENEW) => {}
            }
            match authority.config(&names) {
                Ok(config) => {
                    renewed.reload_from_config(config);
                    info!("certificate renewed");
                }
                Err(error) => warn!("cannot renew the certificate: {error:#}"),
            }
        }
    });
    Ok(config)
}

/// Agents refuse such an address, and so does the install script that is served with it.
fn require_encryption(url: &Url) -> Result<()> {
    if config::is_encrypted_or_local(url) {
        return Ok(());
    }
    Err(Failure::Usage.because(format!(
        "cannot serve agents at {url}: it is not encrypted, so anyone on the network could read \
         tokens and change what is installed\nSet --url (SCALR_SERVER_URL) to https://…, also \
         behind a proxy that speaks TLS for this server. Plain http is only for localhost."
    )))
}

/// The host of a URL, as it stands in certificates.
fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host.trim_end_matches('.').to_owned()
}

/// Keeps a second server out of the data folder.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("server.lock");
    let open = File::options().create(true).append(true).open(&path);
    let file = open.map_err(|error| start_problems::cannot_use(data, "write into", &error))?;
    file.try_lock().map_err(|error| start_problems::cannot_lock(data, error))?;
    Ok(file)
}

fn default_url(tls: &Tls, address: SocketAddr) -> Result<Url> {
    let scheme = if matches!(tls, Tls::Off) { "http" } else { "https" };
    let url = if address.ip().is_unspecified() {
        let host = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        format!("{scheme}://{host}:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    };
    Url::parse(&url).map_err(|error| {
        Failure::Usage.because(format!(
            "cannot make an address of this host's name: {url}: {error}\n\
             Set --url (SCALR_SERVER_URL), for example to https://pools.example.com:8443"
        ))
    })
}

/// Logs to standard error. RUST_LOG chooses what; a request each is at debug.
fn init_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match format {
        LogFormat::Json => log.json().init(),
        LogFormat::Plain => {
            let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            log.with_ansi(colours).with_target(false).init();
        }
    }
}
