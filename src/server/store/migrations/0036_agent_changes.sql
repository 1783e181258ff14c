-- When an agent went offline, could run nothing, or was back.
CREATE TABLE agent_changes (
    id            TEXT PRIMARY KEY,
    agent_id      TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    -- 'online', 'offline' or 'errored'.
    health        TEXT NOT NULL,
    left_itself   BOOLEAN NOT NULL,
    error         TEXT,
    happened_at   BIGINT NOT NULL
);
CREATE INDEX agent_changes_agent ON agent_changes (agent_id, happened_at);
