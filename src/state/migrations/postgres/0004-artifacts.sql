-- What deploys made and norn keeps: what can be gone back to, and what is pruned one day.
CREATE TABLE @norn_artifacts (
    id         TEXT PRIMARY KEY,     -- of a release the deployment that made it
    app        TEXT NOT NULL,
    kind       TEXT NOT NULL,        -- release
    name       TEXT NOT NULL,        -- of a release its tag, such as 'web:abc123def456'
    body       JSONB NOT NULL,       -- what is known of it, in its stored format
    bytes      BIGINT,               -- its size; null where nobody measured it
    created_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX norn_artifacts_app ON @norn_artifacts (app, kind);

-- What is live can be gone back to.
INSERT INTO @norn_artifacts (id, app, kind, name, body, created_at)
    SELECT body ->> 'deployment', substr(address, 8), 'release', body ->> 'tag', body, updated_at
    FROM @norn_resources
    WHERE address LIKE 'deploy/%' AND body ->> 'deployment' <> '' AND body ->> 'tag' <> ''
    ON CONFLICT DO NOTHING;
