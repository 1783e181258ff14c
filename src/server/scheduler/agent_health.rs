//! Tells webhooks when agents go offline, can run nothing, or are back.
//!
//! An agent that comes and goes does not call them each time: it has to be other than was last
//! announced for a lease, as one that restarts is not, and after an announcement it gets none for
//! [`REST`]. What it is then is announced, unless it is as before.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tracing::{info, warn};

use super::{Error, SAVE_AT_ONCE, Scheduler, millis};
use crate::clock::Millis;
use crate::store::agent::{self, Agent, Announced, Health};
use crate::store::agent_change::{self, AgentChange};
use crate::store::agent_pool;
use crate::store::webhook_delivery::AgentThen;

/// How long after an announcement of an agent the next one may be.
pub(super) const REST: Duration = Duration::from_secs(5 * 60);

/// The agents that are other than was announced.
#[derive(Debug, Default)]
pub(super) struct HealthWatch(HashMap<String, Differing>);

#[derive(Debug)]
struct Differing {
    since: Millis,
    /// When it was last seen to be so: one that is as announced in between may just be passing
    /// through.
    last: Millis,
}

impl HealthWatch {
    /// Notes how an agent is; since when it has been other than was announced, if that is for the
    /// time `lasting`.
    fn note(&mut self, id: &str, differs: bool, now: Millis, lasting: Millis) -> Option<Millis> {
        if differs {
            let differing =
                self.0.entry(id.to_owned()).or_insert(Differing { since: now, last: now });
            differing.last = now;
            return Some(differing.since).filter(|since| now - since >= lasting);
        }
        if self.0.get(id).is_some_and(|differing| now - differing.last >= lasting) {
            self.0.remove(id);
        }
        None
    }
}

impl Scheduler {
    /// Announces the agents that are other than was announced last.
    ///
    /// # Errors
    /// The server failed.
    pub(super) async fn announce_agents(&self, watch: &mut HealthWatch) -> Result<(), Error> {
        let agents = agent::announced(&mut *self.store.read().await?).await?;
        let known: BTreeSet<&str> = agents.iter().map(|one| one.agent.id.as_str()).collect();
        watch.0.retain(|id, _| known.contains(id.as_str()));
        let (now, lasting) = (self.clock.now(), millis(self.terms().lease));
        let mut due = Vec::new();
        for Announced { agent, announced, announced_at } in agents {
            let health = self.health(&agent);
            let since = watch.note(&agent.id, health != announced, now, lasting);
            // A time in the future is one of a clock that was set back.
            let has_rested = announced_at.is_none_or(|at| (now - at).abs() >= millis(REST));
            if let Some(since) = since.filter(|_| has_rested) {
                watch.0.remove(&agent.id);
                due.push((agent, health, since));
            }
        }
        for due in due.chunks(SAVE_AT_ONCE) {
            let mut change = self.change().await?;
            for (agent, health, since) in due {
                let is_known =
                    agent::announce(&mut change.tx, &agent.id, *health, change.now).await?;
                let pool = agent_pool::find(&mut change.tx, &agent.pool_id).await?;
                let Some(pool) = pool.filter(|_| is_known) else { continue };
                let then = AgentThen {
                    id: agent.id.clone(),
                    name: agent.name.clone(),
                    health: *health,
                    left: !agent.connected,
                    error: agent.error_message.clone().filter(|_| *health == Health::Errored),
                    last_seen_at: self.presence.last_seen_at(agent),
                    pool_id: pool.id,
                    pool_name: pool.name,
                };
                let noted = AgentChange {
                    health: then.health,
                    left_itself: then.left && then.health == Health::Offline,
                    error: then.error.clone(),
                    happened_at: *since,
                };
                agent_change::insert(&mut change.tx, &agent.id, &noted).await?;
                change.call_webhooks_for(then).await?;
            }
            self.commit(change).await?;
            for (agent, health, _) in due {
                let (id, name) = (&agent.id, &agent.name);
                match health {
                    Health::Online => info!(agent = id, name, "agent is back"),
                    Health::Offline => warn!(agent = id, name, "agent is offline"),
                    Health::Errored => warn!(agent = id, name, "agent can run nothing"),
                }
            }
        }
        Ok(())
    }

    fn health(&self, agent: &Agent) -> Health {
        match (self.is_online(agent), agent.errored) {
            (false, _) => Health::Offline,
            (true, true) => Health::Errored,
            (true, false) => Health::Online,
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::clock::Clock;
    use crate::in_process::{InProcess, register};
    use crate::store::webhook_delivery::{self, Subject};

    /// Shorter than an agent may be silent.
    const BEAT: Duration = Duration::from_millis(10);

    /// A server and what it notes of its agents.
    struct Site {
        server: InProcess,
        watch: HealthWatch,
    }

    impl Site {
        async fn new() -> Self {
            let server = InProcess::with_clock(Clock::standing()).await;
            Self { server, watch: HealthWatch::default() }
        }

        /// A webhook for all that happens to agents; its id.
        async fn webhook(&self, name: &str, environment: Option<&str>) -> String {
            let event = |id: &str| json!({ "type": "event-definitions", "id": id });
            let environments =
                environment.map(|id| json!({ "type": "environments", "id": id })).into_iter();
            let document = json!({ "data": {
                "attributes": {
                    "name": name, "url": "https://chat.example.com/",
                    "is-shared": environment.is_none(),
                },
                "relationships": {
                    "events": { "data": [
                        event("agent:offline"), event("agent:errored"), event("agent:online"),
                    ] },
                    "environments": { "data": environments.collect::<Vec<_>>() },
                },
            } });
            let made = self.server.api(Method::POST, "/webhook-integrations", document).await;
            made["data"]["id"].as_str().unwrap().to_owned()
        }

        /// Registers the agent `one`; its session.
        async fn register(&self) -> String {
            let token = &self.server.pool_token;
            let (status, registered) = self.server.tell("register", token, &register()).await;
            assert_eq!(status, StatusCode::CREATED, "{registered}");
            registered["session_token"].as_str().unwrap().to_owned()
        }

        async fn beat(&self, session: &str, error: Option<&str>) {
            let status = if error.is_some() { "errored" } else { "idle" };
            let beat = json!({ "status": status, "error_message": error, "tasks": [] });
            let (status, answer) = self.server.tell("heartbeat", session, &beat).await;
            assert!(status.is_success(), "{answer}");
        }

        async fn leave(&self, session: &str) {
            let (status, answer) = self.server.tell("deregister", session, &json!({})).await;
            assert!(status.is_success(), "{answer}");
        }

        /// Lets time pass, then looks at the agents.
        async fn look_after(&mut self, time: Duration) {
            self.server.app.scheduler.clock.advance(time);
            self.server.app.scheduler.announce_agents(&mut self.watch).await.unwrap();
        }

        /// What the newest call of a webhook says.
        async fn newest(&self, webhook: &str) -> AgentThen {
            let mut db = self.server.app.scheduler.store.read().await.unwrap();
            let newest = webhook_delivery::newest(&mut db, &[webhook]).await.unwrap().remove(0);
            match newest.subject {
                Subject::Agent(agent) => agent,
                Subject::Run { .. } => panic!("it is about a run"),
            }
        }

        /// The events of the calls, oldest first.
        async fn events(&self) -> Vec<String> {
            let listed =
                self.server.api(Method::GET, "/webhook-deliveries?sort=created-at", Value::Null);
            let listed = listed.await;
            let event = |one: &Value| one["attributes"]["event"].as_str().unwrap().to_owned();
            listed["data"].as_array().unwrap().iter().map(event).collect()
        }
    }

    #[tokio::test]
    async fn an_agent_that_is_errored_then_back_then_gone_is_announced_each_time() {
        let mut site = Site::new().await;
        let webhook = site.webhook("chat", None).await;
        let session = site.register().await;
        site.look_after(Duration::ZERO).await;
        for _ in 0..2 {
            site.beat(&session, Some("no engine")).await;
            site.look_after(BEAT).await;
        }
        assert!(site.events().await.is_empty(), "it was errored for less than a lease");
        site.beat(&session, Some("no engine")).await;
        site.look_after(BEAT).await;
        assert_eq!(site.events().await, ["agent:errored"]);
        let then = site.newest(&webhook).await;
        assert_eq!((then.error.as_deref(), then.left), (Some("no engine"), false));
        let listed = site.server.api(Method::GET, "/webhook-deliveries", Value::Null).await;
        let attributes = &listed["data"][0]["attributes"];
        assert_eq!(
            (&attributes["agent-name"], &attributes["agent-status"]),
            (&json!("one"), &json!("errored"))
        );
        assert_eq!(listed["data"][0]["relationships"]["run"]["data"], Value::Null);
        for (agent, count) in [(then.id.as_str(), 1), ("agent-other", 0)] {
            let path = format!("/webhook-deliveries?filter[agent]={agent}");
            let listed = site.server.api(Method::GET, &path, Value::Null).await;
            assert_eq!(listed["meta"]["pagination"]["total-count"], count, "{agent}");
        }

        // It is well again, for longer than a lease.
        site.server.app.scheduler.clock.advance(REST);
        for _ in 0..3 {
            site.beat(&session, None).await;
            site.look_after(BEAT).await;
        }
        assert_eq!(site.events().await, ["agent:errored", "agent:online"]);
        site.server.app.scheduler.clock.advance(REST);
        site.beat(&session, None).await;
        site.leave(&session).await;
        for _ in 0..3 {
            site.look_after(BEAT).await;
        }
        assert_eq!(site.events().await, ["agent:errored", "agent:online", "agent:offline"]);
        assert!(site.newest(&webhook).await.left);
        for _ in 0..5 {
            site.look_after(REST).await;
        }
        let mut db = site.server.app.scheduler.store.read().await.unwrap();
        let changes = agent_change::of_agent(&mut db, &then.id).await.unwrap();
        let were: Vec<_> = changes.iter().map(|one| (one.health, one.left_itself)).collect();
        let (errored, online) = ((Health::Errored, false), (Health::Online, false));
        assert_eq!(were, [(Health::Offline, true), online, errored]);
        assert_eq!(changes[2].error.as_deref(), Some("no engine"));
        drop(db);
        assert_eq!(site.events().await.len(), 3, "it is offline all the time");
    }

    #[tokio::test]
    async fn an_agent_that_comes_and_goes_is_announced_once_in_five_minutes() {
        let mut site = Site::new().await;
        site.webhook("chat", None).await;
        let session = site.register().await;
        site.look_after(Duration::ZERO).await;
        for _ in 0..100 {
            // Never for as long as a lease.
            site.beat(&session, Some("no engine")).await;
            site.look_after(BEAT).await;
            site.beat(&session, None).await;
            site.look_after(BEAT).await;
        }
        assert_eq!(site.events().await, ["agent:errored"]);
        for _ in 0..10 {
            // Each time for longer than that.
            for error in [None, None, None, Some("no engine"), Some("no engine"), Some("no engine")]
            {
                site.beat(&session, error).await;
                site.look_after(BEAT).await;
            }
        }
        assert_eq!(site.events().await, ["agent:errored"]);
    }

    #[tokio::test]
    async fn an_agent_that_restarts_is_nobodys_event() {
        let mut site = Site::new().await;
        site.webhook("chat", None).await;
        let mut session = site.register().await;
        for _ in 0..3 {
            site.look_after(BEAT).await;
            site.leave(&session).await;
            site.look_after(BEAT).await;
            session = site.register().await;
            for _ in 0..5 {
                site.beat(&session, None).await;
                site.look_after(BEAT).await;
            }
        }
        assert!(site.events().await.is_empty());
    }

    #[tokio::test]
    async fn a_webhook_of_an_environment_is_for_the_agents_of_pools_that_it_may_use() {
        let mut site = Site::new().await;
        let mine = site.server.create("/environments", json!({ "name": "mine" }), &[]).await;
        let other = site.server.create("/environments", json!({ "name": "other" }), &[]).await;
        let mine_webhook = site.webhook("mine", Some(&mine)).await;
        site.webhook("other", Some(&other)).await;
        let pools =
            site.server.api(Method::GET, "/agent-pools?filter[name]=pool", Value::Null).await;
        let pool = pools["data"][0]["id"].as_str().unwrap();
        let linked = format!("/workspaces/{}", site.server.workspace);
        site.server.api(Method::DELETE, &linked, Value::Null).await;
        let document = json!({ "data": {
            "attributes": { "is-shared": false },
            "relationships": { "environments": { "data": [{ "type": "environments", "id": mine }] } },
        } });
        site.server.api(Method::PATCH, &format!("/agent-pools/{pool}"), document).await;
        let session = site.register().await;
        site.leave(&session).await;
        for _ in 0..3 {
            site.look_after(BEAT).await;
        }
        let listed = site.server.api(Method::GET, "/webhook-deliveries", Value::Null).await;
        assert_eq!(listed["data"].as_array().unwrap().len(), 1, "{listed}");
        let of = &listed["data"][0]["relationships"]["webhook-integration"]["data"]["id"];
        assert_eq!(*of, json!(mine_webhook));
    }
}
