-- Schedules have an id, by which the API knows them as rules.
ALTER TABLE run_schedules ADD COLUMN id TEXT NOT NULL DEFAULT '';
UPDATE run_schedules SET id = 'rsr-' || lower(hex(randomblob(8)));
CREATE UNIQUE INDEX run_schedules_id ON run_schedules (id);
