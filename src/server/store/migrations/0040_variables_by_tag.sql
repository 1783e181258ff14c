-- A variable of the account or of an environment can be for the workspaces with a tag alone.
ALTER TABLE variables ADD COLUMN tag_id TEXT REFERENCES tags (id);
DROP INDEX variables_of_scope;
CREATE UNIQUE INDEX variables_of_scope ON variables
    (account_id, COALESCE(environment_id, ''), COALESCE(workspace_id, ''), COALESCE(tag_id, ''),
     category, key);
CREATE INDEX variables_tag ON variables (tag_id);
