-- The seven published tables, and norn's own. The names, columns, types, defaults and indexes of
-- the seven are a contract; in an adopted database they may exist already, with more columns,
-- which are left alone.

-- Every attempt to deploy.
CREATE TABLE IF NOT EXISTS @deployments (
    id          TEXT PRIMARY KEY,                   -- UUID
    app         TEXT NOT NULL,
    commit_sha  TEXT NOT NULL DEFAULT '',           -- a git commit, or 'local:' and a digest
    image_tag   TEXT NOT NULL DEFAULT '',           -- such as 'web:abc123def456'
    status      TEXT NOT NULL DEFAULT 'queued',     -- queued, building, testing, snapshotting, migrating, deploying, deployed, failed, rolled_back
    steps       JSONB NOT NULL DEFAULT '[]',        -- array of {"step","status","durationMs","output"}
    error       TEXT NOT NULL DEFAULT '',           -- why it failed
    started_at  TIMESTAMPTZ NOT NULL DEFAULT now(), -- when it was queued
    finished_at TIMESTAMPTZ                         -- when it completed or failed
);
CREATE INDEX IF NOT EXISTS idx_deployments_app ON @deployments (app);
CREATE INDEX IF NOT EXISTS idx_deployments_status ON @deployments (status);

-- One row an app: what it stands on.
CREATE TABLE IF NOT EXISTS @forge_states (
    app         TEXT PRIMARY KEY,
    status      TEXT NOT NULL DEFAULT 'unforged', -- unforged, forging, forged, forge_failed, tearing_down
    steps       JSONB NOT NULL DEFAULT '[]',      -- array of {"step","status","durationMs","output"}
    resources   JSONB NOT NULL DEFAULT '{}',      -- what was created
    error       TEXT NOT NULL DEFAULT '',         -- why it failed
    started_at  TIMESTAMPTZ,                      -- when the newest operation started
    finished_at TIMESTAMPTZ                       -- when it ended
);

-- Results of the periodic health checks of the last day.
CREATE TABLE IF NOT EXISTS @health_checks (
    id          TEXT PRIMARY KEY,           -- UUID
    app         TEXT NOT NULL,
    healthy     BOOLEAN NOT NULL,
    response_ms INTEGER NOT NULL DEFAULT 0, -- milliseconds
    checked_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS idx_health_checks_app_time ON @health_checks (app, checked_at DESC);

-- Every execution of a cron job.
CREATE TABLE IF NOT EXISTS @cron_executions (
    id          BIGSERIAL PRIMARY KEY,
    app         TEXT NOT NULL,
    image_tag   TEXT NOT NULL DEFAULT '',
    status      TEXT NOT NULL DEFAULT 'running', -- running, completed, failed
    exit_code   INTEGER NOT NULL DEFAULT -1,     -- -1 while there is none
    output      TEXT NOT NULL DEFAULT '',        -- stdout and stderr
    duration_ms BIGINT NOT NULL DEFAULT 0,       -- milliseconds
    started_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at TIMESTAMPTZ
);

-- Every invocation of a function.
CREATE TABLE IF NOT EXISTS @func_executions (
    id          BIGSERIAL PRIMARY KEY,
    app         TEXT NOT NULL,
    image_tag   TEXT NOT NULL DEFAULT '',
    status      TEXT NOT NULL DEFAULT 'running', -- running, succeeded, failed, timed_out
    exit_code   INTEGER NOT NULL DEFAULT -1,     -- -1 while there is none
    output      TEXT NOT NULL DEFAULT '',        -- stdout and stderr
    duration_ms BIGINT NOT NULL DEFAULT 0,       -- milliseconds
    started_at  TIMESTAMPTZ NOT NULL DEFAULT now(),
    finished_at TIMESTAMPTZ
);

-- One row a cron app.
CREATE TABLE IF NOT EXISTS @cron_states (
    app         TEXT PRIMARY KEY,
    schedule    TEXT NOT NULL DEFAULT '',       -- cron expression
    paused      BOOLEAN NOT NULL DEFAULT false,
    next_run_at TIMESTAMPTZ,
    updated_at  TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- The nodes of the cluster.
CREATE TABLE IF NOT EXISTS @cluster_nodes (
    id           TEXT PRIMARY KEY,                      -- UUID
    name         TEXT NOT NULL,
    provider     TEXT NOT NULL,                         -- hetzner, digitalocean, vultr
    region       TEXT NOT NULL DEFAULT '',
    size         TEXT NOT NULL DEFAULT '',
    role         TEXT NOT NULL DEFAULT 'agent',         -- server, agent
    public_ip    TEXT NOT NULL DEFAULT '',
    tailscale_ip TEXT NOT NULL DEFAULT '',
    status       TEXT NOT NULL DEFAULT 'provisioning',  -- provisioning, ready, draining, removed
    provider_id  TEXT NOT NULL DEFAULT '',
    error        TEXT NOT NULL DEFAULT '',
    created_at   TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at   TIMESTAMPTZ NOT NULL DEFAULT now()
);

-- The processes that change, or changed, this store.
CREATE TABLE @norn_runs (
    id            TEXT PRIMARY KEY,          -- the run, as its lease names it
    who           TEXT NOT NULL,             -- user@host
    machine_id    TEXT NOT NULL,             -- the process: see norn_locks
    boot_id       TEXT NOT NULL,
    pid_namespace TEXT NOT NULL,
    pid           BIGINT NOT NULL,
    start_time    BIGINT NOT NULL,
    job_url       TEXT,
    reason        TEXT NOT NULL,             -- why it took the lease, such as 'norn apply'
    command       TEXT NOT NULL,             -- what the user typed
    token         BIGINT NOT NULL,           -- the fencing token of its lease
    started_at    TIMESTAMPTZ NOT NULL,
    heartbeat_at  TIMESTAMPTZ NOT NULL,      -- when it last renewed its lease
    ended_at      TIMESTAMPTZ,               -- null while it runs, or died
    outcome       TEXT NOT NULL DEFAULT ''   -- how it ended; 'dead' where another run found that out
);
CREATE INDEX norn_runs_open ON @norn_runs (started_at) WHERE ended_at IS NULL;

-- The operations of the runs.
CREATE TABLE @norn_operations (
    id         TEXT PRIMARY KEY,
    run        TEXT NOT NULL REFERENCES @norn_runs (id),
    address    TEXT NOT NULL,             -- such as 'deploy/web'
    action     TEXT NOT NULL,             -- such as 'deploy'
    intent     JSONB NOT NULL,            -- what it would make current
    started_at TIMESTAMPTZ NOT NULL,
    ended_at   TIMESTAMPTZ,               -- null while it is unfinished
    outcome    TEXT NOT NULL DEFAULT ''   -- how it ended; 'dead' where its run died
);
CREATE INDEX norn_operations_run ON @norn_operations (run);

-- The steps of the operations.
CREATE TABLE @norn_steps (
    id         TEXT PRIMARY KEY,
    operation  TEXT NOT NULL REFERENCES @norn_operations (id),
    step       TEXT NOT NULL,             -- such as 'build'
    key        TEXT NOT NULL,             -- the idempotency key that its call carries
    detail     JSONB NOT NULL,            -- what recovery must look for
    started_at TIMESTAMPTZ NOT NULL,      -- when the intent was written, before the world changed
    ended_at   TIMESTAMPTZ,               -- null while the outcome is not known
    outcome    TEXT NOT NULL DEFAULT ''   -- how it ended; 'dead' where its run died
);
CREATE INDEX norn_steps_open ON @norn_steps (operation) WHERE ended_at IS NULL;

-- What is known of every resource.
CREATE TABLE @norn_resources (
    address    TEXT PRIMARY KEY,          -- such as 'deploy/web'
    body       JSONB NOT NULL,            -- what was put live last, in its stored format
    digest     TEXT NOT NULL,             -- SHA-256 of the body's canonical JSON
    protected  BOOLEAN NOT NULL,          -- destroying it is refused
    updated_at TIMESTAMPTZ NOT NULL
);
