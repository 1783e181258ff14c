//! Agents come and go.

use tracing::{info, warn};

use super::{Change, Error, Scheduler};
use crate::clock::rfc3339;
use crate::store::access_token::{self, AccessToken};
use crate::store::agent::{self, Agent};
use crate::store::session::{self, End, Session};
use crate::store::task::{self, State};
use crate::token::{NewToken, PresentedToken, new_id};
use protocol::Secret;
use protocol::{Heartbeat, Identity, Register, Status};

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// It is no good, and trying again won't help.
    #[error("{0}")]
    Unauthorized(String),
    /// Another agent has its name.
    #[error("{0}")]
    Replaced(String),
    /// Its session is over; a new one can be had.
    #[error("{0}")]
    RegisterAgain(&'static str),
    /// The server failed.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
}

impl Scheduler {
    /// The pool's token that an agent registers with.
    ///
    /// # Errors
    /// It is not one, or it has expired.
    pub(crate) async fn pool_token(&self, token: &str) -> Result<AccessToken, Denied> {
        let denied = || Denied::Unauthorized("this is not a token of an agent pool".to_owned());
        let shown = PresentedToken::parse(token).ok_or_else(denied)?;
        let mut db = self.store.read().await?;
        let found = access_token::find(&mut db, &shown.id).await?;
        let token = found
            .filter(|token| shown.matches(&token.secret_hash) && token.pool_id.is_some())
            .ok_or_else(denied)?;
        if token.is_expired(self.clock.now()) {
            return Err(Denied::Unauthorized("the pool's token has expired".to_owned()));
        }
        Ok(token)
    }

    /// Registers an agent. The earlier session of its name ends, unless that is another
    /// machine's whose agent is alive.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the token is not a pool's, [`Error::NameTaken`].
    pub(crate) async fn register(
        &self,
        token: &AccessToken,
        register: &Register,
    ) -> Result<(Agent, Secret), Error> {
        let Some(pool_id) = token.pool_id.clone() else {
            return Err(Error::Invalid("the token is not a pool's".to_owned()));
        };
        let mut change = self.change().await?;
        let known = agent::find_named(&mut change.tx, &pool_id, &register.name).await?;
        let end = match &known {
            Some(holder) => self.take_name(&mut change, holder, register.identity.as_ref()).await?,
            None => End::Replaced,
        };
        let created_at = known.as_ref().map_or(change.now, |agent| agent.created_at);
        let draining_since = known.as_ref().and_then(|agent| agent.draining_since);
        let agent = Agent {
            id: known.map_or_else(|| new_id("agent"), |agent| agent.id),
            pool_id: pool_id.clone(),
            name: register.name.clone(),
            version: register.version.clone(),
            os: register.os.clone(),
            driver: register.driver.clone(),
            runtime: register.runtime.clone(),
            platform: register.platform.clone(),
            concurrency: register.concurrency.into(),
            host_memory: register.memory.map(|memory| memory.host_megabytes.cast_signed()),
            run_memory: register.memory.map(|memory| memory.run_megabytes.cast_signed()),
            level: register.level.into(),
            connected: true,
            errored: false,
            error_message: None,
            machine_id: register.identity.as_ref().map(|identity| identity.machine_id.clone()),
            boot_id: register.identity.as_ref().map(|identity| identity.boot_id.clone()),
            draining_since,
            created_at,
            last_seen_at: change.now,
        };
        agent::upsert(&mut change.tx, &agent).await?;
        let replaced = session::end_all(&mut change.tx, &agent.id, end, change.now).await?;
        if replaced > 0 {
            warn!(agent = agent.id, name = agent.name, "a registration replaced an earlier one");
        }
        // This session does not know the earlier one's offers. What was claimed
        // stays with the agent: it may be the same one, restarted.
        for mut task in task::of_agent(&mut change.tx, &agent.id).await? {
            if task.state == State::Offered {
                change.take_back(&mut task, State::Queued).await?;
            }
        }
        let session_id = new_id("sess");
        let issued = NewToken::new(&session_id);
        session::insert(
            &mut change.tx,
            &session_id,
            &issued.secret_hash,
            &agent.id,
            &token.id,
            change.now,
        )
        .await?;
        access_token::touch(&mut change.tx, token, change.now).await?;
        if token.for_one_agent && !access_token::bind(&mut change.tx, &token.id, &agent.id).await? {
            return Err(Error::Invalid(
                "another agent has registered with this token, which is for one agent; create \
                 another token on the pool's page, or with `scalr-server pool token`"
                    .to_owned(),
            ));
        }
        // Polls of the earlier session end.
        change.woken_agents.push(agent.id.clone());
        self.commit(change).await?;
        self.presence.insert(&agent, agent.last_seen_at);
        // The answer has them.
        self.presence.set_intervals(&agent.id, self.terms().intervals());
        info!(agent = agent.id, name = agent.name, pool = agent.pool_id, "agent registered");
        Ok((agent, issued.token))
    }

    /// The session that a token is for.
    ///
    /// # Errors
    /// It is not one, or the session is over.
    pub(crate) async fn session(&self, token: &str) -> Result<Session, Denied> {
        let denied = || Denied::Unauthorized("this is not a session's token".to_owned());
        let shown = PresentedToken::parse(token).ok_or_else(denied)?;
        if !shown.id.starts_with("sess-") {
            return Err(denied());
        }
        let mut db = self.store.read().await?;
        let Some(session) = session::find(&mut db, &shown.id).await? else {
            return Err(Denied::RegisterAgain("this session is not known (any more)"));
        };
        if !shown.matches(&session.secret_hash) {
            return Err(denied());
        }
        match session.end_reason {
            Some(End::Replaced) => {
                return Err(Denied::Replaced(format!(
                    "another agent registered under the name {} in this pool; give each agent a \
                     name of its own",
                    session.agent_name
                )));
            }
            // It keeps its tasks while it waits for the name.
            Some(End::Superseded) => {
                return Err(Denied::RegisterAgain("another machine's agent has the name by now"));
            }
            Some(End::Left) => return Err(Denied::RegisterAgain("this session has ended")),
            None => {}
        }
        if session.access_token_id.is_none() {
            return Err(Denied::Unauthorized("the pool's token was revoked".to_owned()));
        }
        if session.token_expires_at.is_some_and(|expires_at| expires_at <= self.clock.now()) {
            return Err(Denied::Unauthorized("the pool's token has expired".to_owned()));
        }
        Ok(session)
    }

    /// Takes an agent's heartbeat.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn heartbeat(&self, session: &Session, beat: &Heartbeat) -> Result<(), Error> {
        self.seen(session, &beat.tasks).await?;
        if self.presence.is_health_new(&session.agent_id, beat) {
            let errored = beat.status == Status::Errored;
            let message = beat.error_message.as_deref().filter(|_| errored);
            let mut change = self.change().await?;
            agent::set_health(&mut change.tx, &session.agent_id, errored, message).await?;
            self.commit(change).await?;
            self.presence.health_saved(&session.agent_id, beat);
        }
        Ok(())
    }

    /// An agent takes its leave. What it has is treated as if its lease had
    /// expired.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn deregister(&self, session: &Session) -> Result<(), Error> {
        let mut change = self.change().await?;
        session::end_all(&mut change.tx, &session.agent_id, End::Left, change.now).await?;
        for task in task::of_agent(&mut change.tx, &session.agent_id).await? {
            if task.state != State::Unreachable {
                let because = format!("gave it back at {}", rfc3339(change.now));
                change.lost(task, &because).await?;
            }
        }
        agent::disconnect(&mut change.tx, &session.agent_id, change.now).await?;
        self.commit(change).await?;
        self.presence.remove(&session.agent_id);
        info!(agent = session.agent_id, name = session.agent_name, "agent left");
        Ok(())
    }

    /// Whether an agent may have its name, which another registration had; gives how the
    /// earlier session ends.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when that is of another machine, and alive; or was until now, and
    /// this one was there at the same time: the other one may just be restarting.
    async fn take_name(
        &self,
        change: &mut Change,
        holder: &Agent,
        newcomer: Option<&Identity>,
    ) -> Result<End, Error> {
        let machine = newcomer.map(|identity| &identity.machine_id);
        let boot = newcomer.map(|identity| &identity.boot_id);
        let is_same = holder.machine_id.as_ref() == machine && holder.boot_id.as_ref() == boot;
        // An agent of an older version does not say where it is. It may be the same one,
        // upgraded.
        if is_same || holder.machine_id.is_none() {
            return Ok(End::Replaced);
        }
        let online_since = self.terms().online_since(change.now);
        let last_seen_at = self.presence.last_seen_at(holder);
        let is_kept =
            holder.connected || self.presence.was_refused(&holder.id, newcomer, online_since);
        if !is_kept || last_seen_at < online_since {
            return Ok(End::Superseded);
        }
        self.presence.refused(&holder.id, newcomer, change.now, online_since);
        let whose = match holder.connected {
            true => "is in use in this pool by an agent on another machine",
            false => {
                "is kept in this pool for an agent on another machine, which may be restarting"
            }
        };
        let since = session::open_since(&mut change.tx, &holder.id).await?;
        let since = rfc3339(since.unwrap_or(holder.created_at));
        let seconds = (change.now - last_seen_at).max(0) / 1000;
        let free_after = (change.now - online_since) / 1000;
        Err(Error::NameTaken(format!(
            "the name {} {whose} (version {}, {}, registered at {since}, last seen {seconds} s \
             ago): give each machine a name of its own with `scalr-agent configure --agent-name \
             NAME` and restart its agent; this agent tries again until the name is free, \
             {free_after} s after the other one was last seen",
            holder.name, holder.version, holder.os
        )))
    }
}
