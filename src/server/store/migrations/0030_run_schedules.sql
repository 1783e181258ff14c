-- Cron expressions, in UTC, by which the server starts runs of a workspace; mode is 'apply' or
-- 'destroy'.
CREATE TABLE run_schedules (
    workspace_id  TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    mode          TEXT NOT NULL,
    cron          TEXT NOT NULL,
    -- When it is due.
    next_at       BIGINT NOT NULL,
    PRIMARY KEY (workspace_id, mode)
);
CREATE INDEX run_schedules_next ON run_schedules (next_at);
