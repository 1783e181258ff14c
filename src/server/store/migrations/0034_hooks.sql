-- Scripts of the account, which runs execute between Terraform's steps.
CREATE TABLE hooks (
    id           TEXT PRIMARY KEY,
    account_id   TEXT NOT NULL REFERENCES accounts (id),
    name         TEXT NOT NULL,
    description  TEXT,
    -- The program that reads the script.
    interpreter  TEXT NOT NULL,
    script       TEXT NOT NULL,
    created_at   BIGINT NOT NULL,
    UNIQUE (account_id, name)
);

-- The environments whose runs execute a hook.
CREATE TABLE hook_environment_links (
    id              TEXT PRIMARY KEY,
    hook_id         TEXT NOT NULL REFERENCES hooks (id),
    environment_id  TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    -- The names of the events that it is for, in JSON.
    events          TEXT NOT NULL,
    created_at      BIGINT NOT NULL,
    UNIQUE (hook_id, environment_id)
);
CREATE INDEX hook_environment_links_environment ON hook_environment_links (environment_id);
