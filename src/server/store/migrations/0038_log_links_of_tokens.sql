-- A link to a log ends with the token that it was shown to.
DROP TABLE log_links;
CREATE TABLE log_links (
    phase_id         TEXT NOT NULL REFERENCES tasks (phase_id) ON DELETE CASCADE,
    access_token_id  TEXT NOT NULL REFERENCES access_tokens (id) ON DELETE CASCADE,
    secret           TEXT NOT NULL,
    PRIMARY KEY (phase_id, access_token_id)
);
CREATE INDEX log_links_of_token ON log_links (access_token_id);
