-- What a run's plan was started with, in JSON: its apply gets the same. It may hold
-- sensitive values, so it goes when the run ends. A run that was planned before this has
-- none: its apply gets what its workspace has by then.
CREATE TABLE run_settings (
    run_id    TEXT PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    settings  TEXT NOT NULL
);
