-- What a finished plan does, in numbers, as its agent counted it, in JSON; of a finished apply,
-- what its plan has. None: the agent is too old to count, or Terraform to say.
ALTER TABLE tasks ADD COLUMN summary TEXT;
