-- Times are milliseconds since 1970 (UTC). Ids carry their kind as a prefix.
-- Tokens are stored as the SHA-256 of their secret part, in hex.

CREATE TABLE accounts (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    created_at  BIGINT NOT NULL
);

CREATE TABLE agent_pools (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id),
    name        TEXT NOT NULL,
    is_default  BOOLEAN NOT NULL,
    is_shared   BOOLEAN NOT NULL,
    image       TEXT,
    created_at  BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

-- One default pool an account.
CREATE UNIQUE INDEX agent_pools_default ON agent_pools (account_id) WHERE is_default;

CREATE TABLE environments (
    id               TEXT PRIMARY KEY,
    account_id       TEXT NOT NULL REFERENCES accounts (id),
    name             TEXT NOT NULL,
    default_pool_id  TEXT REFERENCES agent_pools (id),
    created_at       BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

-- Which environments may use a pool that is not shared with all.
CREATE TABLE pool_environments (
    pool_id         TEXT NOT NULL REFERENCES agent_pools (id) ON DELETE CASCADE,
    environment_id  TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    PRIMARY KEY (pool_id, environment_id)
);

-- Without a pool it is an admin's token.
CREATE TABLE access_tokens (
    id            TEXT PRIMARY KEY,
    account_id    TEXT NOT NULL REFERENCES accounts (id),
    pool_id       TEXT REFERENCES agent_pools (id) ON DELETE CASCADE,
    name          TEXT,
    description   TEXT,
    secret_hash   TEXT NOT NULL,
    created_at    BIGINT NOT NULL,
    expires_at    BIGINT,
    last_used_at  BIGINT
);

CREATE TABLE agents (
    id             TEXT PRIMARY KEY,
    pool_id        TEXT NOT NULL REFERENCES agent_pools (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    version        TEXT NOT NULL,
    os             TEXT NOT NULL,
    driver         TEXT NOT NULL,
    platform       TEXT NOT NULL,
    concurrency    BIGINT NOT NULL,
    -- False once it has taken its leave.
    connected      BOOLEAN NOT NULL,
    errored        BOOLEAN NOT NULL,
    error_message  TEXT,
    created_at     BIGINT NOT NULL,
    last_seen_at   BIGINT NOT NULL,
    UNIQUE (pool_id, name)
);

-- An agent's registrations. One whose access token is gone was revoked.
CREATE TABLE sessions (
    id               TEXT PRIMARY KEY,
    agent_id         TEXT NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    access_token_id  TEXT REFERENCES access_tokens (id) ON DELETE SET NULL,
    secret_hash      TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    ended_at         BIGINT,
    -- 'replaced' by a later registration of the name, or 'left'.
    end_reason       TEXT
);

CREATE INDEX sessions_agent ON sessions (agent_id);

CREATE TABLE workspaces (
    id                   TEXT PRIMARY KEY,
    environment_id       TEXT NOT NULL REFERENCES environments (id),
    pool_id              TEXT REFERENCES agent_pools (id),
    name                 TEXT NOT NULL,
    terraform_version    TEXT,
    working_directory    TEXT,
    image                TEXT,
    auto_apply           BOOLEAN NOT NULL,
    deletion_protection  BOOLEAN NOT NULL,
    created_at           BIGINT NOT NULL,
    updated_at           BIGINT NOT NULL,
    UNIQUE (environment_id, name)
);

CREATE INDEX workspaces_pool ON workspaces (pool_id);

CREATE TABLE variables (
    id            TEXT PRIMARY KEY,
    workspace_id  TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    category      TEXT NOT NULL,
    hcl           BOOLEAN NOT NULL,
    sensitive     BOOLEAN NOT NULL,
    description   TEXT,
    created_at    BIGINT NOT NULL,
    UNIQUE (workspace_id, category, key)
);

CREATE TABLE configuration_versions (
    id             TEXT PRIMARY KEY,
    workspace_id   TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    uploaded       BOOLEAN NOT NULL,
    upload_hash    TEXT NOT NULL,
    created_at     BIGINT NOT NULL
);

CREATE INDEX configuration_versions_workspace ON configuration_versions (workspace_id);

CREATE TABLE runs (
    id                        TEXT PRIMARY KEY,
    workspace_id              TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    configuration_version_id  TEXT NOT NULL REFERENCES configuration_versions (id),
    status                    TEXT NOT NULL,
    source                    TEXT NOT NULL,
    message                   TEXT,
    is_destroy                BOOLEAN NOT NULL,
    auto_apply                BOOLEAN NOT NULL,
    has_changes               BOOLEAN,
    error_message             TEXT,
    created_at                BIGINT NOT NULL,
    updated_at                BIGINT NOT NULL
);

CREATE INDEX runs_workspace ON runs (workspace_id, created_at);

-- A plan or an apply. Clients know it by phase_id (plan-…, apply-…), agents by
-- id (task-…).
CREATE TABLE tasks (
    id                TEXT PRIMARY KEY,
    phase_id          TEXT NOT NULL UNIQUE,
    run_id            TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    phase             TEXT NOT NULL,
    state             TEXT NOT NULL,
    attempt           BIGINT NOT NULL,
    pool_id           TEXT REFERENCES agent_pools (id) ON DELETE SET NULL,
    agent_id          TEXT REFERENCES agents (id) ON DELETE SET NULL,
    cancel_requested  BOOLEAN NOT NULL,
    offered_at        BIGINT,
    lease_expires_at  BIGINT,
    message           TEXT,
    exit_code         BIGINT,
    oom_killed        BOOLEAN NOT NULL,
    created_at        BIGINT NOT NULL,
    queued_at         BIGINT,
    started_at        BIGINT,
    ended_at          BIGINT,
    UNIQUE (run_id, phase)
);

CREATE INDEX tasks_pool_state ON tasks (pool_id, state);
CREATE INDEX tasks_agent_state ON tasks (agent_id, state);

-- Who took which attempt at a task, and the token that was given for it.
CREATE TABLE claims (
    task_id        TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    attempt        BIGINT NOT NULL,
    secret_hash    TEXT NOT NULL,
    claimed_at     BIGINT NOT NULL,
    -- When its agent was last told to interrupt it.
    cancel_told_at BIGINT,
    PRIMARY KEY (task_id, attempt)
);

CREATE TABLE state_versions (
    id            TEXT PRIMARY KEY,
    workspace_id  TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    run_id        TEXT REFERENCES runs (id) ON DELETE SET NULL,
    -- Counts a workspace's versions: the highest is the current one.
    number        BIGINT NOT NULL,
    serial        BIGINT NOT NULL,
    lineage       TEXT NOT NULL,
    sha256        TEXT NOT NULL,
    size          BIGINT NOT NULL,
    resources     BIGINT NOT NULL,
    created_at    BIGINT NOT NULL,
    UNIQUE (workspace_id, number)
);
