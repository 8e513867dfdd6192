-- What is needed to apply a saved plan again until it is finished.

-- The id of the saved plan that the operation is of; '' where there is none.
ALTER TABLE @norn_operations ADD COLUMN plan TEXT NOT NULL DEFAULT '';
-- The digests of the app's records when the operation ended; null where there was no record, or
-- where it has not ended.
ALTER TABLE @norn_operations ADD COLUMN forge_after TEXT;
ALTER TABLE @norn_operations ADD COLUMN deploy_after TEXT;
CREATE INDEX norn_operations_plan ON @norn_operations (plan) WHERE plan <> '';
