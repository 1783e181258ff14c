//! The queue and the slots of pools over time.

use sqlx::FromRow;

use super::Connection;
use crate::clock::Millis;

const MINUTE: Millis = 60 * 1000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

/// Intervals of one length, and for how long they are kept, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub length: Millis,
    pub kept: Millis,
}

/// For the last hour, day and week. A pool has some 460 rows.
pub(crate) const MINUTES: Step = Step { length: MINUTE, kept: 2 * HOUR };
pub(crate) const QUARTERS: Step = Step { length: 15 * MINUTE, kept: 2 * DAY };
pub(crate) const TWO_HOURS: Step = Step { length: 2 * HOUR, kept: 8 * DAY };

const STEPS: [Step; 3] = [MINUTES, QUARTERS, TWO_HOURS];

/// What a pool has to do, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct Load {
    /// Plans and applies that wait for an agent.
    pub queued: i64,
    /// Slots of connected agents that are busy.
    pub busy: i64,
    /// Slots of connected agents.
    pub slots: i64,
}

/// The greatest load in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub(crate) struct Sample {
    /// When the interval begins.
    pub at: Millis,
    #[sqlx(flatten)]
    pub load: Load,
}

/// Adds the load of a pool to the intervals that `now` is in.
pub(crate) async fn add(
    db: &mut Connection,
    pool_id: &str,
    now: Millis,
    load: Load,
) -> sqlx::Result<()> {
    for step in STEPS {
        sqlx::query(
            "INSERT INTO pool_samples (pool_id, step, at, queued, busy, slots)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (pool_id, step, at) DO UPDATE SET
                queued = MAX(queued, excluded.queued), busy = MAX(busy, excluded.busy),
                slots = MAX(slots, excluded.slots)",
        )
        .bind(pool_id)
        .bind(step.length)
        .bind(now / step.length * step.length)
        .bind(load.queued)
        .bind(load.busy)
        .bind(load.slots)
        .execute(&mut *db)
        .await?;
    }
    Ok(())
}

/// Deletes what is older than it is kept.
pub(crate) async fn delete_old(db: &mut Connection, now: Millis) -> sqlx::Result<()> {
    for step in STEPS {
        sqlx::query("DELETE FROM pool_samples WHERE step = $1 AND at < $2")
            .bind(step.length)
            .bind(now - step.kept)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// The samples of a pool since a time, oldest first.
pub(crate) async fn of_pool(
    db: &mut Connection,
    pool_id: &str,
    step: Step,
    since: Millis,
) -> sqlx::Result<Vec<Sample>> {
    sqlx::query_as(
        "SELECT at, queued, busy, slots FROM pool_samples
         WHERE pool_id = $1 AND step = $2 AND at >= $3 ORDER BY at",
    )
    .bind(pool_id)
    .bind(step.length)
    .bind(since)
    .fetch_all(db)
    .await
}
