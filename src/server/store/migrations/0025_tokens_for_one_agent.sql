-- A token that one agent registers with: it loses its expiry with the registration, and is
-- good for no other agent from then on.
ALTER TABLE access_tokens ADD COLUMN for_one_agent BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE access_tokens ADD COLUMN agent_id TEXT REFERENCES agents (id) ON DELETE SET NULL;
CREATE INDEX access_tokens_agent ON access_tokens (agent_id);
CREATE INDEX sessions_access_token ON sessions (access_token_id);
