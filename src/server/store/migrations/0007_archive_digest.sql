-- The SHA-256 of a configuration version's archive: none before its upload, and for
-- archives that were uploaded before this.
ALTER TABLE configuration_versions ADD COLUMN archive_sha256 TEXT;
