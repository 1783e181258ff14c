-- What agents can take is in the server's memory, and so is when each was last seen, which is
-- written here once a minute.
ALTER TABLE agents DROP COLUMN free_slots;

-- Looked at every second, among the tasks of all times.
CREATE INDEX tasks_open ON tasks (state) WHERE ended_at IS NULL;
CREATE INDEX tasks_lease ON tasks (lease_expires_at) WHERE lease_expires_at IS NOT NULL;
