-- Whether a workspace's runs go on when their image has another Terraform version
-- than the workspace asks for.
ALTER TABLE workspaces ADD COLUMN allow_other_terraform_version BOOLEAN NOT NULL DEFAULT FALSE;
