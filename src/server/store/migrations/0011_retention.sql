-- When retention removed the content of something whose row is kept: no earlier than this,
-- its files are deleted.
ALTER TABLE state_versions ADD COLUMN removed_at BIGINT;
ALTER TABLE configuration_versions ADD COLUMN removed_at BIGINT;
-- The logs of a run, and what its plan left.
ALTER TABLE runs ADD COLUMN files_removed_at BIGINT;

CREATE INDEX runs_configuration_version ON runs (configuration_version_id);
