-- A variable belongs to its account, to one environment of it, or to one workspace of that: the
-- narrowest that is there is its scope.
CREATE TABLE scoped_variables (
    id              TEXT PRIMARY KEY,
    account_id      TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    environment_id  TEXT REFERENCES environments (id) ON DELETE CASCADE,
    workspace_id    TEXT REFERENCES workspaces (id) ON DELETE CASCADE,
    key             TEXT NOT NULL,
    value           TEXT NOT NULL,
    category        TEXT NOT NULL,
    hcl             BOOLEAN NOT NULL,
    sensitive       BOOLEAN NOT NULL,
    -- Whether narrower scopes may not have another one with its key and category.
    is_final        BOOLEAN NOT NULL,
    description     TEXT,
    created_at      BIGINT NOT NULL,
    updated_at      BIGINT NOT NULL,
    CHECK (workspace_id IS NULL OR environment_id IS NOT NULL)
);
INSERT INTO scoped_variables
    SELECT v.id, e.account_id, e.id, v.workspace_id, v.key, v.value, v.category, v.hcl,
           v.sensitive, FALSE, v.description, v.created_at, v.created_at
    FROM variables v
    JOIN workspaces w ON w.id = v.workspace_id
    JOIN environments e ON e.id = w.environment_id;
DROP TABLE variables;
ALTER TABLE scoped_variables RENAME TO variables;
CREATE UNIQUE INDEX variables_of_scope ON variables
    (account_id, COALESCE(environment_id, ''), COALESCE(workspace_id, ''), category, key);
CREATE INDEX variables_environment ON variables (environment_id);
CREATE INDEX variables_workspace ON variables (workspace_id);
