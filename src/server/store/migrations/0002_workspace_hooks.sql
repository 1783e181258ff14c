-- What a workspace's runs do before and after their steps: a JSON object of
-- commands by their place ("pre-plan").
ALTER TABLE workspaces ADD COLUMN hooks TEXT NOT NULL DEFAULT '{}';
