-- Where a pool's queued tasks are announced, for those who start an agent for each of them: its
-- URL and headers, in JSON.
ALTER TABLE agent_pools ADD COLUMN webhook_enabled BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE agent_pools ADD COLUMN webhook TEXT NOT NULL DEFAULT '{}';

-- The announcements of attempts at tasks. One that is not there is due.
CREATE TABLE webhook_calls (
    task_id    TEXT PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    attempt    BIGINT NOT NULL,
    delivered  BOOLEAN NOT NULL,
    failures   BIGINT NOT NULL,
    -- When it is tried again.
    next_at    BIGINT NOT NULL
);
