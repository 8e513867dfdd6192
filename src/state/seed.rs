//! The tables of a store, whatever the database.
//!
//! Here: the seven that are published, whose names and columns are a contract with every other
//! reader and writer of them, and norn's own that hold records. Elsewhere: the types, defaults and
//! indexes of each database (`migrations`), and `norn_meta` and `norn_locks`, which are about the
//! store itself.

/// A table and its columns, in order.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    /// The column whose value names a row.
    pub key: &'static str,
    /// The column by which rows are ordered, at one time by the order of writing where the database
    /// knows it; without one they are ordered by their key.
    pub by: Option<&'static str>,
    pub columns: &'static [Column],
}

#[derive(Debug)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
    pub nullable: bool,
    /// The schema that brought it.
    pub since: u32,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Integer,
    Boolean,
    Json,
    Time,
}

impl Table {
    /// The schema that brought it.
    pub fn since(&self) -> u32 {
        self.columns.iter().map(|column| column.since).min().expect("a table has columns")
    }

    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

impl Column {
    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind, nullable: false, since: 2 }
    }

    const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }

    const fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }
}

const fn text(name: &'static str) -> Column {
    Column::new(name, Kind::Text)
}

const fn integer(name: &'static str) -> Column {
    Column::new(name, Kind::Integer)
}

const fn boolean(name: &'static str) -> Column {
    Column::new(name, Kind::Boolean)
}

const fn json(name: &'static str) -> Column {
    Column::new(name, Kind::Json)
}

const fn time(name: &'static str) -> Column {
    Column::new(name, Kind::Time)
}

const EXECUTION: &[Column] = &[
    integer("id"),
    text("app"),
    text("image_tag"),
    text("status"),
    integer("exit_code"),
    text("output"),
    integer("duration_ms"),
    time("started_at"),
    time("finished_at").or_null(),
];

/// The published tables.
pub static TABLES: [Table; 7] = [
    Table {
        name: "deployments",
        key: "id",
        by: Some("started_at"),
        columns: &[
            text("id"),
            text("app"),
            text("commit_sha"),
            text("image_tag"),
            text("status"),
            json("steps"),
            text("error"),
            time("started_at"),
            time("finished_at").or_null(),
        ],
    },
    Table {
        name: "forge_states",
        key: "app",
        by: None,
        columns: &[
            text("app"),
            text("status"),
            json("steps"),
            json("resources"),
            text("error"),
            time("started_at").or_null(),
            time("finished_at").or_null(),
        ],
    },
    Table {
        name: "health_checks",
        key: "id",
        by: Some("checked_at"),
        columns: &[text("id"), text("app"), boolean("healthy"), integer("response_ms"), time("checked_at")],
    },
    Table { name: "cron_executions", key: "id", by: None, columns: EXECUTION },
    Table { name: "func_executions", key: "id", by: None, columns: EXECUTION },
    Table {
        name: "cron_states",
        key: "app",
        by: None,
        columns: &[
            text("app"),
            text("schedule"),
            boolean("paused"),
            time("next_run_at").or_null(),
            time("updated_at"),
        ],
    },
    Table {
        name: "cluster_nodes",
        key: "id",
        by: Some("created_at"),
        columns: &[
            text("id"),
            text("name"),
            text("provider"),
            text("region"),
            text("size"),
            text("role"),
            text("public_ip"),
            text("tailscale_ip"),
            text("status"),
            text("provider_id"),
            text("error"),
            time("created_at"),
            time("updated_at"),
        ],
    },
];

/// norn's own tables of records; a row refers only to rows of tables before its own.
pub static OWN: [Table; 5] = [
    Table {
        name: "norn_runs",
        key: "id",
        by: Some("started_at"),
        columns: &[
            text("id"),
            text("who"),
            text("machine_id"),
            text("boot_id"),
            text("pid_namespace"),
            integer("pid"),
            integer("start_time"),
            text("job_url").or_null(),
            text("reason"),
            text("command"),
            integer("token"),
            time("started_at"),
            time("heartbeat_at"),
            time("ended_at").or_null(),
            text("outcome"),
        ],
    },
    Table {
        name: "norn_operations",
        key: "id",
        by: Some("started_at"),
        columns: &[
            text("id"),
            text("run"),
            text("address"),
            text("action"),
            json("intent"),
            time("started_at"),
            time("ended_at").or_null(),
            text("outcome"),
            text("plan").since(3),
            text("forge_after").or_null().since(3),
            text("deploy_after").or_null().since(3),
        ],
    },
    Table {
        name: "norn_steps",
        key: "id",
        by: Some("started_at"),
        columns: &[
            text("id"),
            text("operation"),
            text("step"),
            text("key"),
            json("detail"),
            time("started_at"),
            time("ended_at").or_null(),
            text("outcome"),
        ],
    },
    Table {
        name: "norn_resources",
        key: "address",
        by: None,
        columns: &[text("address"), json("body"), text("digest"), boolean("protected"), time("updated_at")],
    },
    Table {
        name: "norn_artifacts",
        key: "id",
        by: Some("created_at"),
        columns: &[
            text("id").since(4),
            text("app").since(4),
            text("kind").since(4),
            text("name").since(4),
            json("body").since(4),
            integer("bytes").or_null().since(4),
            time("created_at").since(4),
        ],
    },
];

/// Every table of records, in an order in which rows can be written.
pub fn all() -> impl Iterator<Item = &'static Table> {
    TABLES.iter().chain(&OWN)
}

/// The tables that hold rows of an app, by a column `app`.
pub fn tables_of_apps() -> impl Iterator<Item = &'static str> {
    all().filter(|table| table.column("app").is_some()).map(|table| table.name)
}
