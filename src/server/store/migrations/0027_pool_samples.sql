-- The queue and the slots of pools over time, for pictures: the greatest values of each interval.
-- `step` is the interval's length in milliseconds, `at` its begin.
CREATE TABLE pool_samples (
    pool_id TEXT NOT NULL REFERENCES agent_pools (id) ON DELETE CASCADE,
    step INTEGER NOT NULL,
    at INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    busy INTEGER NOT NULL,
    slots INTEGER NOT NULL,
    PRIMARY KEY (pool_id, step, at)
) WITHOUT ROWID;
