//! The seven tables that are published, whatever the database: their names and columns are a
//! contract with every other reader and writer of them.

/// A published table and its columns, in order.
pub struct Table {
    pub name: &'static str,
    pub columns: &'static [&'static str],
}

const EXECUTION: &[&str] =
    &["id", "app", "image_tag", "status", "exit_code", "output", "duration_ms", "started_at", "finished_at"];

pub const TABLES: [Table; 7] = [
    Table {
        name: "deployments",
        columns: &[
            "id",
            "app",
            "commit_sha",
            "image_tag",
            "status",
            "steps",
            "error",
            "started_at",
            "finished_at",
        ],
    },
    Table {
        name: "forge_states",
        columns: &["app", "status", "steps", "resources", "error", "started_at", "finished_at"],
    },
    Table { name: "health_checks", columns: &["id", "app", "healthy", "response_ms", "checked_at"] },
    Table { name: "cron_executions", columns: EXECUTION },
    Table { name: "func_executions", columns: EXECUTION },
    Table { name: "cron_states", columns: &["app", "schedule", "paused", "next_run_at", "updated_at"] },
    Table {
        name: "cluster_nodes",
        columns: &[
            "id",
            "name",
            "provider",
            "region",
            "size",
            "role",
            "public_ip",
            "tailscale_ip",
            "status",
            "provider_id",
            "error",
            "created_at",
            "updated_at",
        ],
    },
];

/// The tables that hold rows of an app, by a column `app`.
pub fn tables_of_apps() -> impl Iterator<Item = &'static str> {
    TABLES.iter().filter(|table| table.columns.contains(&"app")).map(|table| table.name)
}
