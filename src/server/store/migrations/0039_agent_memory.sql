-- In MB: what the agent's host has, and what each run may use; none: the agent is too old to say.
ALTER TABLE agents ADD COLUMN host_memory BIGINT;
ALTER TABLE agents ADD COLUMN run_memory BIGINT;
-- What the agent itself runs in.
ALTER TABLE agents ADD COLUMN runtime TEXT NOT NULL DEFAULT 'vm';
