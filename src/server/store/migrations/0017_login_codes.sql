-- Codes that `terraform login` exchanges for a token, once. One ends with the session of the
-- browser that allowed it.
CREATE TABLE login_codes (
    id               TEXT PRIMARY KEY,
    page_session_id  TEXT NOT NULL REFERENCES page_sessions (id) ON DELETE CASCADE,
    secret_hash      TEXT NOT NULL,
    -- The SHA-256 of a secret that the program keeps, as the program sent it.
    code_challenge   TEXT NOT NULL,
    redirect_uri     TEXT NOT NULL,
    token_name       TEXT NOT NULL,
    expires_at       BIGINT NOT NULL
);
