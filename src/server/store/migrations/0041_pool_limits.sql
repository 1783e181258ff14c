-- How many runs a pool executes at once; none: as many as its agents have slots.
ALTER TABLE agent_pools ADD COLUMN max_concurrency BIGINT;
