-- What a run asks of Terraform beside its operation, with its own variables, in JSON.
ALTER TABLE runs ADD COLUMN inputs TEXT NOT NULL DEFAULT '{}';
-- The Terraform version that it asks for instead of its workspace's.
ALTER TABLE runs ADD COLUMN terraform_version TEXT;
-- Whether it is never applied; whether its plan is kept for later; whether a plan without
-- changes is applied, too.
ALTER TABLE runs ADD COLUMN is_plan_only BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE runs ADD COLUMN save_plan BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE runs ADD COLUMN allow_empty_apply BOOLEAN NOT NULL DEFAULT FALSE;
-- Whether its workspace's other runs wait for it, and it for them.
ALTER TABLE runs ADD COLUMN is_exclusive BOOLEAN NOT NULL DEFAULT TRUE;
-- The number of the state version that its plan began with; 0: there was none.
ALTER TABLE runs ADD COLUMN planned_state BIGINT;

-- Whether its runs are never applied.
ALTER TABLE configuration_versions ADD COLUMN is_speculative BOOLEAN NOT NULL DEFAULT FALSE;

-- What an agent can do, and what a task asks for (protocol::LEVEL).
ALTER TABLE agents ADD COLUMN level BIGINT NOT NULL DEFAULT 1;
ALTER TABLE tasks ADD COLUMN level BIGINT NOT NULL DEFAULT 1;

-- What happened to a run, and who did it.
CREATE TABLE run_events (
    id          TEXT PRIMARY KEY,
    run_id      TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    -- Counts a run's events.
    number      BIGINT NOT NULL,
    -- The status that the run got, or 'commented'.
    action      TEXT NOT NULL,
    actor_kind  TEXT NOT NULL,
    -- Of the token or the agent.
    actor_id    TEXT,
    actor_name  TEXT,
    comment     TEXT,
    created_at  BIGINT NOT NULL,
    UNIQUE (run_id, number)
);
