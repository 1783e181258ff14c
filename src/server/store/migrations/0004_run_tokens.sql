-- The token that an attempt's run reads the pool API with: none in a claim that
-- is older than this.
ALTER TABLE claims ADD COLUMN run_secret_hash TEXT;
