-- The first tables: what the store belongs to, and the lease on it. They are made together with
-- the store's key, before the lease can be taken; all later migrations run under the lease.
-- An at sign stands for the schema of the store's stage; without one the connection's default is meant.

-- One row a fact about the store.
CREATE TABLE @norn_meta (
    key   TEXT PRIMARY KEY, -- 'schema', 'project', 'stage' or 'key'
    value TEXT NOT NULL     -- a migration's number; a name; a name or ''; 64 hex digits
);

-- The lease: exactly one row, which stays when the lease is given back, so that its token grows
-- for ever.
CREATE TABLE @norn_locks (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    token         BIGINT NOT NULL,            -- the fencing token of the newest taking
    run           TEXT,                       -- the run that holds the lease; null while it is free
    who           TEXT NOT NULL DEFAULT '',   -- user@host
    machine_id    TEXT NOT NULL DEFAULT '',   -- the holder's machine,
    boot_id       TEXT NOT NULL DEFAULT '',   -- its boot,
    pid_namespace TEXT NOT NULL DEFAULT '',   -- the inode of its pid namespace,
    pid           BIGINT NOT NULL DEFAULT 0,  -- its process in there
    start_time    BIGINT NOT NULL DEFAULT 0,  -- and when that started, in clock ticks since the boot
    job_url       TEXT,                       -- the page of its CI job; null where there is none
    reason        TEXT NOT NULL DEFAULT '',   -- such as 'norn apply'
    acquired_at   TIMESTAMPTZ,                -- when the lease was taken
    expires_at    TIMESTAMPTZ                 -- when it runs out unless it is renewed
);

INSERT INTO @norn_locks (id, token) VALUES (1, 0);
