-- Tags that workspaces and environments can have. A workspace has those whose names are keys of
-- its workspace_tags.
CREATE TABLE tags (
    id          TEXT PRIMARY KEY,
    account_id  TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    name        TEXT NOT NULL,
    UNIQUE (account_id, name)
);
INSERT INTO tags (id, account_id, name)
    SELECT 'tag-' || LOWER(HEX(RANDOMBLOB(9))), account_id, key FROM (
        SELECT DISTINCT e.account_id, t.key
        FROM workspace_tags t
        JOIN workspaces w ON w.id = t.workspace_id
        JOIN environments e ON e.id = w.environment_id);
CREATE TABLE environment_tags (
    environment_id  TEXT NOT NULL REFERENCES environments (id) ON DELETE CASCADE,
    tag_id          TEXT NOT NULL REFERENCES tags (id) ON DELETE CASCADE,
    PRIMARY KEY (environment_id, tag_id)
);
