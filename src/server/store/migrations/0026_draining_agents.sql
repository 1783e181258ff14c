-- Since when an agent is offered no tasks, because somebody drains it; NULL: it is not drained.
ALTER TABLE agents ADD COLUMN draining_since INTEGER;
