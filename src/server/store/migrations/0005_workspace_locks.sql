-- Why no runs of a workspace start until somebody unlocks it: its state may not be
-- saved. None: it is not locked, or only by the apply that runs.
ALTER TABLE workspaces ADD COLUMN lock_reason TEXT;
