-- How many more tasks an agent said in its last poll that it can take, less what
-- it was offered since.
ALTER TABLE agents ADD COLUMN free_slots BIGINT NOT NULL DEFAULT 0;
