-- What runs a workspace's configurations: 'terraform' or 'opentofu'. None: what the image has.
ALTER TABLE workspaces ADD COLUMN iac_platform TEXT;
