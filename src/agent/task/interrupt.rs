//! Ending a running container, gently first.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::engine::Engine;

/// How long a terminated container may take before it is killed.
const BEFORE_KILL: Duration = Duration::from_secs(10);

/// How soon SIGINT is sent again: a first process that has only just been started ignores it. The
/// entry point hands it on once.
const AGAIN: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2000 });

/// Who told a task to end; the later ones are the more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Interrupt {
    /// Its pool: the run was canceled.
    Canceled,
    /// This agent, which is being stopped.
    Stopped,
    /// The server has given it to somebody else.
    Lost,
    /// This agent, which is told again to stop: no more waiting.
    Hurried,
}

impl Interrupt {
    /// For the end of the log.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Interrupt::Canceled => "the run was canceled",
            Interrupt::Stopped | Interrupt::Hurried => "the agent was stopped",
            Interrupt::Lost => "the server gave the task to another agent",
        }
    }
}

/// Waits for an order to end the container, or for `pressed` to say that it has
/// to end, and carries that out: SIGINT, on which
/// Terraform stops and writes its state; after `grace` SIGTERM; 10 s later
/// SIGKILL. Returns only when the engine can't be asked; whoever waits for the
/// container's end drops this.
///
/// # Errors
/// The engine doesn't answer.
pub(crate) async fn when_told(
    engine: &Engine,
    container: &str,
    mut orders: watch::Receiver<Option<Interrupt>>,
    pressed: impl Future<Output = ()>,
    grace: Duration,
) -> Result<()> {
    tokio::select! {
        () = told(&mut orders, |_| true) => {}
        () = pressed => {}
    }
    info!(container, "interrupting the run");
    engine.signal(container, "SIGINT").await?;
    let again = async {
        loop {
            tokio::time::sleep(AGAIN).await;
            engine.signal(container, "SIGINT").await?;
        }
    };
    tokio::select! {
        () = tokio::time::sleep(grace) => {}
        () = told(&mut orders, |order| order == Interrupt::Hurried) => {}
        failed = again => return failed,
    }
    warn!(container, "the run goes on; terminating it");
    engine.signal(container, "SIGTERM").await?;
    tokio::time::sleep(BEFORE_KILL).await;
    warn!(container, "the run goes on; killing it");
    engine.signal(container, "SIGKILL").await?;
    std::future::pending().await
}

/// Waits for an order that is meant; for ever, when nobody can give one any
/// more.
pub(crate) async fn told(
    orders: &mut watch::Receiver<Option<Interrupt>>,
    is_meant: impl Fn(Interrupt) -> bool,
) {
    if orders.wait_for(|order| order.is_some_and(&is_meant)).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;

    use super::super::ends::{Asked, context, engine, fake};
    use super::*;

    #[tokio::test]
    async fn an_interrupt_that_came_too_early_to_be_heard_is_sent_again() {
        let folder = tempfile::tempdir().unwrap();
        let asked = Asked::default();
        let context = context(folder.path(), Router::new(), fake(&asked, engine)).await;
        let (_order, orders) = watch::channel(Some(Interrupt::Canceled));
        let grace = Duration::from_secs(60);
        let interrupting = when_told(&context.engine, "c1", orders, std::future::pending(), grace);
        let heard_twice = async {
            let kills = || asked.lock().unwrap().iter().filter(|it| it.ends_with("/kill")).count();
            while kills() < 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = interrupting => panic!("{ended:?}"),
            heard = tokio::time::timeout(Duration::from_secs(20), heard_twice) => heard.unwrap(),
        }
    }
}
