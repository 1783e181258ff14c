-- What webhooks were last called for about an agent, 'online', 'offline' or 'errored', and when:
-- one that comes and goes does not call them each time.
ALTER TABLE agents ADD COLUMN announced TEXT NOT NULL DEFAULT 'online';
ALTER TABLE agents ADD COLUMN announced_at BIGINT;

-- The call of a webhook is about a run or about an agent.
CREATE TABLE all_webhook_deliveries (
    id              TEXT PRIMARY KEY,
    integration_id  TEXT NOT NULL REFERENCES webhook_integrations (id) ON DELETE CASCADE,
    run_id          TEXT REFERENCES runs (id) ON DELETE CASCADE,
    -- The status that the run got.
    run_status      TEXT,
    -- The agent as it was then, in JSON: it may be forgotten before the call is.
    agent           TEXT,
    event           TEXT NOT NULL,
    happened_at     BIGINT NOT NULL,
    created_at      BIGINT NOT NULL,
    attempts        BIGINT NOT NULL,
    -- When the next attempt is due; none: it is over.
    next_at         BIGINT,
    delivered       BOOLEAN NOT NULL,
    -- Of the last attempt: when it began, how long it took in milliseconds, the status of the
    -- answer, and the beginning of the answer or an error.
    attempted_at    BIGINT,
    duration        BIGINT,
    answer_status   BIGINT,
    answer          TEXT,
    CHECK ((run_id IS NULL) <> (agent IS NULL))
);
INSERT INTO all_webhook_deliveries
    (id, integration_id, run_id, run_status, event, happened_at, created_at, attempts, next_at,
     delivered, attempted_at, duration, answer_status, answer)
SELECT id, integration_id, run_id, run_status, event, happened_at, created_at, attempts, next_at,
     delivered, attempted_at, duration, answer_status, answer
FROM webhook_deliveries;
DROP TABLE webhook_deliveries;
ALTER TABLE all_webhook_deliveries RENAME TO webhook_deliveries;
CREATE INDEX webhook_deliveries_integration ON webhook_deliveries (integration_id, created_at);
CREATE INDEX webhook_deliveries_run ON webhook_deliveries (run_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_at);
