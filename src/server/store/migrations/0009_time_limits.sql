-- How long a plan and an apply of a workspace may run, in seconds. None: as long as the
-- server's options say.
ALTER TABLE workspaces ADD COLUMN plan_timeout BIGINT;
ALTER TABLE workspaces ADD COLUMN apply_timeout BIGINT;
-- When a running task is taken from its agent, which should have ended it by then.
ALTER TABLE tasks ADD COLUMN overdue_at BIGINT;
