-- Whether all workspaces of the environment may read a workspace's state, and those that may if
-- not all.
ALTER TABLE workspaces ADD COLUMN remote_state_sharing BOOLEAN NOT NULL DEFAULT TRUE;
CREATE TABLE remote_state_consumers (
    workspace_id  TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    consumer_id   TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    PRIMARY KEY (workspace_id, consumer_id)
);

-- An applied run of the upstream workspace starts one of the downstream workspace.
CREATE TABLE run_triggers (
    id             TEXT PRIMARY KEY,
    upstream_id    TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    downstream_id  TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created_at     BIGINT NOT NULL,
    UNIQUE (upstream_id, downstream_id)
);
-- Runs that triggers have yet to start.
CREATE TABLE triggered_runs (
    upstream_run_id  TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    downstream_id    TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    PRIMARY KEY (upstream_run_id, downstream_id)
);
