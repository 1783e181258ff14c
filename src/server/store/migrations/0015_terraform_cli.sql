-- Where a workspace's plans and applies run: 'remote', on agents, or 'local', on the client's
-- machine, which then keeps only its state here.
ALTER TABLE workspaces ADD COLUMN execution_mode TEXT NOT NULL DEFAULT 'remote';
-- The admin's token that locked a workspace. None: the server did, or nobody.
ALTER TABLE workspaces ADD COLUMN locked_by TEXT;

-- A tag without a value has an empty one.
CREATE TABLE workspace_tags (
    workspace_id  TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    key           TEXT NOT NULL,
    value         TEXT NOT NULL,
    PRIMARY KEY (workspace_id, key)
);

-- States that clients of the Terraform API have announced.
CREATE TABLE state_uploads (
    id                TEXT PRIMARY KEY,
    workspace_id      TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    upload_hash       TEXT NOT NULL,
    serial            BIGINT NOT NULL,
    lineage           TEXT,
    md5               TEXT NOT NULL,
    force             BOOLEAN NOT NULL,
    created_at        BIGINT NOT NULL,
    -- None before the upload.
    state_version_id  TEXT REFERENCES state_versions (id) ON DELETE CASCADE
);
