-- Which machine an agent runs on, and since which boot of it: none of an agent that is too
-- old to say.
ALTER TABLE agents ADD COLUMN machine_id TEXT;
ALTER TABLE agents ADD COLUMN boot_id TEXT;
