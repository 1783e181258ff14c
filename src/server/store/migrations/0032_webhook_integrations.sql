-- Who is called when something happens to runs.
CREATE TABLE webhook_integrations (
    id                 TEXT PRIMARY KEY,
    account_id         TEXT NOT NULL REFERENCES accounts (id),
    name               TEXT NOT NULL,
    enabled            BOOLEAN NOT NULL,
    -- Whether it is for the runs of all environments.
    is_shared          BOOLEAN NOT NULL,
    -- Its URL, its headers and what its calls are signed with, in JSON.
    webhook            TEXT NOT NULL,
    -- How long a call may take, in seconds.
    timeout            BIGINT NOT NULL,
    max_attempts       BIGINT NOT NULL,
    -- The names of its events, in JSON.
    events             TEXT NOT NULL,
    last_triggered_at  BIGINT,
    created_at         BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

CREATE TABLE webhook_integration_environments (
    integration_id  TEXT NOT NULL REFERENCES webhook_integrations (id) ON DELETE CASCADE,
    environment_id  TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    PRIMARY KEY (integration_id, environment_id)
);
CREATE INDEX webhook_integration_environments_environment
    ON webhook_integration_environments (environment_id);

-- Its calls: those to be made, and what became of those that were.
CREATE TABLE webhook_deliveries (
    id              TEXT PRIMARY KEY,
    integration_id  TEXT NOT NULL REFERENCES webhook_integrations (id) ON DELETE CASCADE,
    run_id          TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    event           TEXT NOT NULL,
    -- The status that the run got.
    run_status      TEXT NOT NULL,
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
    answer          TEXT
);
CREATE INDEX webhook_deliveries_integration ON webhook_deliveries (integration_id, created_at);
CREATE INDEX webhook_deliveries_run ON webhook_deliveries (run_id);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_at);
