-- Which machine an agent runs on, and since which boot of it: none of an agent that is too
-- old to say.
ALTER TABLE agents ADD COLUMN machine_id TEXT;
ALTER TABLE agents ADD COLUMN boot_id TEXT;
-- Who took an attempt, and why that agent did not end it, if it did not: none in claims
-- older than this.
ALTER TABLE claims ADD COLUMN agent_id TEXT;
ALTER TABLE claims ADD COLUMN agent_name TEXT;
ALTER TABLE claims ADD COLUMN lost_because TEXT;
