//! Agents, queues and tasks as they are now.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::api::pools::agents::{self, Status};
use crate::app::App;
use crate::store::task::{State, Task};
use crate::store::{agent, agent_pool, task};

/// The states of tasks that have not ended.
const OPEN: [State; 6] = [
    State::Pending,
    State::Queued,
    State::Offered,
    State::Claimed,
    State::Running,
    State::Unreachable,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AgentLabels {
    pool: String,
    status: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Gauges with their values. Each pool, status and state has one, also where it is 0.
///
/// # Errors
/// The database can't be read.
pub(super) async fn take(app: &App) -> sqlx::Result<Registry> {
    let agents = Family::<AgentLabels, Gauge>::default();
    let free_slots = Family::<PoolLabels, Gauge>::default();
    let queued = Family::<PoolLabels, Gauge>::default();
    let oldest = Family::<PoolLabels, Gauge<f64, AtomicU64>>::default();
    let tasks = Family::<StateLabels, Gauge>::default();

    let mut db = app.scheduler.store.read().await?;
    let pools: HashMap<String, String> = agent_pool::names(&mut db).await?.into_iter().collect();
    let ids: Vec<&str> = pools.keys().map(String::as_str).collect();
    let all_agents = agent::all(&mut db).await?;
    let open = task::open(&mut db).await?;
    let waiting = task::waiting(&mut db, &ids).await?;
    drop(db);

    for pool in pools.values() {
        let of_pool = PoolLabels { pool: pool.clone() };
        for status in Status::ALL {
            agents.get_or_create(&AgentLabels { pool: pool.clone(), status: status.name() }).set(0);
        }
        free_slots.get_or_create(&of_pool).set(0);
        queued.get_or_create(&of_pool).set(0);
        oldest.get_or_create(&of_pool).set(0.0);
    }
    for state in OPEN {
        tasks.get_or_create(&StateLabels { state: state.name() }).set(0);
    }

    let mut of_agents: HashMap<String, Vec<Task>> = HashMap::new();
    for task in open {
        tasks.get_or_create(&StateLabels { state: task.state.name() }).inc();
        if let Some(agent_id) = task.agent_id.clone() {
            of_agents.entry(agent_id).or_default().push(task);
        }
    }
    for agent in all_agents {
        let Some(pool) = pools.get(&agent.pool_id).cloned() else { continue };
        let tasks = of_agents.get(&agent.id).map_or(&[][..], Vec::as_slice);
        let status = agents::status(app, &agent, tasks).name();
        agents.get_or_create(&AgentLabels { pool: pool.clone(), status }).inc();
        free_slots.get_or_create(&PoolLabels { pool }).inc_by(app.scheduler.usable_slots(&agent));
    }
    let now = app.scheduler.clock.now();
    for (pool_id, depth, since) in waiting {
        let Some(pool) = pools.get(&pool_id).cloned() else { continue };
        let labels = PoolLabels { pool };
        queued.get_or_create(&labels).set(depth);
        let age = since.map_or(0, |since| (now - since).max(0));
        oldest.get_or_create(&labels).set(age as f64 / 1000.0);
    }

    let mut registry = Registry::with_prefix("scalr_server");
    registry.register(
        "build",
        "The server's version",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register("agents", "Agents of a pool, by status", agents);
    registry.register("free_slots", "How many more tasks a pool's agents can take", free_slots);
    registry.register("queued_tasks", "Tasks that wait for an agent of a pool", queued);
    registry.register_with_unit(
        "oldest_queued_task_age",
        "How long the oldest of them has waited",
        Unit::Seconds,
        oldest,
    );
    registry.register("tasks", "Tasks that have not ended, by state", tasks);
    Ok(registry)
}
