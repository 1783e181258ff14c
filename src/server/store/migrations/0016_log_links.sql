-- The secrets in the links that Terraform reads logs with: it sends no token there. A link is
-- shown again whenever it is asked for, so the secret itself is kept.
CREATE TABLE log_links (
    phase_id  TEXT PRIMARY KEY REFERENCES tasks (phase_id) ON DELETE CASCADE,
    secret    TEXT NOT NULL
);
