//! One simulated agent.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use protocol::{
    Attempt, BASE, Claimed, Event, Events, Finish, Heartbeat, Identity, Intervals, Outcome, Poll,
    Register, Registered, Status, TaskState, TaskStatus,
};
use reqwest::{Client, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::fleet::{Shared, Work};

/// How long the server may take to answer anything, longer than a poll is held.
const PATIENCE: Duration = Duration::from_secs(90);

/// The most that an agent sends of a log at once.
const PIECE: usize = 64 * 1024;

pub(crate) struct Agent {
    shared: Arc<Shared>,
    http: Client,
    name: String,
    session: Mutex<String>,
    intervals: Mutex<Intervals>,
    tasks: Mutex<Vec<TaskStatus>>,
    is_polling: AtomicBool,
    freed: Notify,
    /// The server's life in which a call was last answered.
    seen_life: AtomicUsize,
}

impl Agent {
    pub(crate) fn new(shared: Arc<Shared>, number: u32) -> Result<Arc<Self>> {
        // Each from an address of its own, as far as a loopback network has them: the server
        // limits how many connections of an address may be without a valid token.
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + 1 + number);
        let http = Client::builder()
            .tls_backend_preconfigured(shared.tls.clone())
            .local_address(IpAddr::V4(address))
            .timeout(PATIENCE)
            .no_proxy()
            .build()?;
        Ok(Arc::new(Self {
            shared,
            http,
            name: format!("agent-{number}"),
            session: Mutex::default(),
            intervals: Mutex::new(Intervals::default()),
            tasks: Mutex::default(),
            is_polling: AtomicBool::new(false),
            freed: Notify::new(),
            seen_life: AtomicUsize::new(0),
        }))
    }

    /// Registers, and then polls and sends heartbeats without an end.
    pub(crate) async fn live(self: Arc<Self>) {
        while let Err(error) = self.register().await {
            self.shared.failed(&error);
            pause(Duration::from_secs(1)).await;
        }
        tokio::join!(Arc::clone(&self).poll(), self.beat());
    }

    async fn register(&self) -> Result<()> {
        let register = Register {
            name: self.name.clone(),
            version: "0.1.0".to_owned(),
            os: "debian_12".to_owned(),
            driver: "docker".to_owned(),
            runtime: "vm".to_owned(),
            platform: "linux_amd64".to_owned(),
            concurrency: 1,
            identity: Some(Identity { machine_id: self.name.clone(), boot_id: "boot".to_owned() }),
            memory: None,
            level: protocol::LEVEL,
        };
        let registered: Registered =
            self.call("register", &self.shared.pool_token, &register).await?;
        *self.session.lock().unwrap() = registered.session_token.expose().to_owned();
        *self.intervals.lock().unwrap() = registered.intervals;
        self.shared.registered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn beat(&self) {
        loop {
            let seconds = self.intervals.lock().unwrap().heartbeat_seconds;
            pause(Duration::from_secs(seconds.into())).await;
            let tasks = self.tasks.lock().unwrap().clone();
            // As of the real one: a poll that is held stands for an idle agent's heartbeat.
            if tasks.is_empty() && self.is_polling.load(Ordering::Relaxed) {
                continue;
            }
            let status = if tasks.is_empty() { Status::Idle } else { Status::Busy };
            let beat = Heartbeat { status, error_message: None, tasks };
            let session = self.session();
            match self.send(Method::POST, "heartbeat", &session, &beat).await {
                Ok((StatusCode::NO_CONTENT, _)) => self.seen(),
                Ok((StatusCode::CONFLICT, _)) => {
                    if let Err(error) = self.register().await {
                        self.shared.failed(&error);
                    }
                }
                Ok((status, text)) => self.shared.failed(&format!("heartbeat: {status} {text}")),
                Err(error) => self.shared.failed(&error),
            }
        }
    }

    async fn poll(self: Arc<Self>) {
        loop {
            let tasks = self.tasks.lock().unwrap().clone();
            let poll = Poll { free_slots: u32::from(tasks.is_empty()), tasks };
            let session = self.session();
            self.is_polling.store(true, Ordering::Relaxed);
            let answer = tokio::select! {
                answer = self.call::<Events>("poll", &session, &poll) => answer,
                () = self.freed.notified() => continue,
            };
            self.is_polling.store(false, Ordering::Relaxed);
            match answer {
                Ok(events) => {
                    self.seen();
                    for event in events.events {
                        self.act_on(event).await;
                    }
                }
                Err(error) => {
                    self.shared.failed(&error);
                    pause(Duration::from_millis(500)).await;
                }
            }
        }
    }

    async fn act_on(self: &Arc<Self>, event: Event) {
        match event {
            Event::Offer { task_id, attempt, .. } => {
                let offered = Instant::now();
                let path = format!("tasks/{task_id}/claim");
                let session = self.session();
                match self.call::<Claimed>(&path, &session, &Attempt { attempt }).await {
                    Ok(claimed) => {
                        self.shared.claimed(&claimed.task.run_id, offered);
                        let status = TaskStatus { task_id, attempt, state: TaskState::Running };
                        self.tasks.lock().unwrap().push(status);
                        tokio::spawn(Arc::clone(self).work(claimed));
                    }
                    Err(error) => self.shared.failed(&error),
                }
            }
            Event::NewIntervals(intervals) => *self.intervals.lock().unwrap() = intervals,
            Event::NewToken { session_token } => {
                *self.session.lock().unwrap() = session_token.expose().to_owned();
            }
            Event::Cancel { .. } | Event::Drain => {}
        }
    }

    async fn work(self: Arc<Self>, claimed: Claimed) {
        if let Err(error) = self.run(&claimed).await {
            self.shared.failed(&error);
        }
        self.tasks.lock().unwrap().retain(|task| task.task_id != claimed.task.id);
        self.freed.notify_one();
        self.shared.ended(&claimed.task.run_id);
    }

    async fn run(&self, claimed: &Claimed) -> Result<()> {
        let Work { think, log } = self.shared.work;
        let (token, attempt) = (claimed.task_token.expose(), claimed.task.attempt);
        let path = format!("tasks/{}", claimed.task.id);
        let start = format!("{path}/start");
        let (status, text) = self.send(Method::POST, &start, token, &Attempt { attempt }).await?;
        if status != StatusCode::NO_CONTENT {
            bail!("{start}: {status} {text}");
        }
        tokio::time::sleep(think).await;
        let log = vec![b'.'; log];
        for (number, piece) in log.chunks(PIECE).enumerate() {
            let place = format!("{path}/log?attempt={attempt}&offset={}", number * PIECE);
            let request = self.request(Method::PUT, &place, token).body(piece.to_vec());
            request.send().await?.error_for_status()?;
        }
        let finish = Finish {
            attempt,
            outcome: Outcome::Finished,
            message: None,
            exit_code: Some(0),
            oom_killed: false,
            has_changes: Some(false),
            log_bytes: log.len() as u64,
            log_sha256: hex::encode(Sha256::digest(&log)),
            unsaved_state: None,
            image: None,
            summary: None,
        };
        let (status, text) =
            self.send(Method::POST, &format!("{path}/finish"), token, &finish).await?;
        if !status.is_success() {
            bail!("{path}/finish: {status} {text}");
        }
        Ok(())
    }

    /// The server has answered, in this life of it.
    fn seen(&self) {
        let life = self.shared.life.load(Ordering::Relaxed);
        if self.seen_life.swap(life, Ordering::Relaxed) != life {
            self.shared.back.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn session(&self) -> String {
        self.session.lock().unwrap().clone()
    }

    async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let (status, text) = self.send(Method::POST, path, token, body).await?;
        if !status.is_success() {
            bail!("{path}: {status} {text}");
        }
        serde_json::from_str(&text).with_context(|| format!("{path}: {text}"))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: &impl Serialize,
    ) -> Result<(StatusCode, String)> {
        let answer = self.request(method, path, token).json(body).send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    fn request(&self, method: Method, path: &str, token: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{BASE}/{path}", self.shared.url);
        self.http.request(method, url).bearer_auth(token)
    }
}

/// Waits for between a half of the time and the whole of it: agents that were cut off
/// together come back one by one.
async fn pause(most: Duration) {
    tokio::time::sleep(most.mul_f64(rand::random_range(0.5..=1.0))).await;
}
