-- Who is signed in to the pages. One that was made with a token ends with the token.
CREATE TABLE page_sessions (
    id               TEXT PRIMARY KEY,
    access_token_id  TEXT REFERENCES access_tokens (id) ON DELETE CASCADE,
    secret_hash      TEXT NOT NULL,
    -- Who it is, for people.
    name             TEXT NOT NULL,
    user_agent       TEXT NOT NULL,
    created_at       BIGINT NOT NULL,
    last_used_at     BIGINT NOT NULL
);

-- What signs one browser in, once.
CREATE TABLE sign_in_codes (
    id           TEXT PRIMARY KEY,
    secret_hash  TEXT NOT NULL,
    expires_at   BIGINT NOT NULL
);
