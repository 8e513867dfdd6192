//! What runs and what was deployed: tables for people, documents for scripts.

use crate::scrub::visible;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use super::printer::Paint;
use super::words;

/// What `norn status --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn status")]
pub struct StatusV1 {
    /// The version of this format: 1.
    pub format_version: u32,
    pub project: String,
    pub stage: Option<String>,
    pub apps: Vec<AppV1>,
    /// The run that changes the state now, if one does.
    pub running: Option<String>,
    /// What a dead run left, which the next apply settles.
    pub unsettled: Vec<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppV1 {
    pub app: String,
    /// `webserver` or `worker`.
    pub role: Option<&'static str>,
    /// `healthy`, `degraded`, `down`, `scaled-to-zero`, `not-deployed`, `unsupervised`,
    /// `stopped`, `silent` or `elsewhere`.
    pub health: &'static str,
    /// Why it is not healthy, where that is known.
    pub why: Option<String>,
    /// Replicas that are healthy.
    pub ready: u32,
    /// Replicas that are wanted.
    pub wanted: u32,
    pub commit: Option<String>,
    pub tag: Option<String>,
    pub url: Option<String>,
    /// Seconds since the oldest replica started.
    pub age_seconds: Option<u64>,
    /// How often replicas were restarted since they were first healthy.
    pub restarts: u32,
}

/// The table.
pub fn table(status: &StatusV1, color: bool) -> String {
    let paint = Paint(color);
    let mut rows = vec![["APP", "HEALTH", "ROLE", "READY", "COMMIT", "URL", "AGE"].map(str::to_owned)];
    for app in &status.apps {
        rows.push([
            app.app.clone(),
            app.health.to_owned(),
            app.role.unwrap_or("-").to_owned(),
            format!("{}/{}", app.ready, app.wanted),
            app.commit.as_deref().map_or_else(|| "-".to_owned(), words::short),
            app.url.clone().unwrap_or_else(|| "-".into()),
            app.age_seconds.map_or_else(|| "-".to_owned(), age),
        ]);
    }
    let mut out = columns(&rows, |column, text| match (column, text.trim()) {
        (1, "healthy") => paint.green(text),
        (1, "HEALTH") => text.to_owned(),
        (1, "degraded" | "scaled-to-zero" | "not-deployed") => paint.yellow(text),
        (1, _) => paint.red(text),
        _ => text.to_owned(),
    });
    for app in status.apps.iter().filter_map(|app| Some((&app.app, app.why.as_ref()?))) {
        out += &format!("{}: {}\n", app.0, app.1);
    }
    if let Some(running) = &status.running {
        out += &format!("changing now: {running}\n");
    }
    for left in &status.unsettled {
        out += &format!("left by a dead run, settled by the next apply: {left}\n");
    }
    out
}

/// What `norn history --json` prints.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "norn history")]
pub struct HistoryV1 {
    /// The version of this format: 1.
    pub format_version: u32,
    /// The newest first.
    pub deployments: Vec<DeploymentV1>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentV1 {
    pub id: String,
    pub app: String,
    pub commit_sha: String,
    pub image_tag: String,
    /// One of the statuses of the `deployments` table.
    pub status: &'static str,
    pub error: Option<String>,
    pub started_at: String,
    pub finished_at: Option<String>,
    pub steps: Vec<StepV1>,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepV1 {
    pub step: String,
    /// `deployed`, `failed` or `skipped`.
    pub status: String,
    pub duration_ms: u64,
    /// At most 64 KiB.
    pub output: String,
}

/// The table, newest first.
pub fn history(history: &HistoryV1, color: bool) -> String {
    let paint = Paint(color);
    if history.deployments.is_empty() {
        return "nothing was deployed yet\n".into();
    }
    let mut rows = vec![["STARTED", "APP", "RELEASE", "STATUS", "TOOK", "ERROR"].map(str::to_owned)];
    for row in &history.deployments {
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let started = time(&row.started_at);
        let took = row.finished_at.as_deref().and_then(time).zip(started).map(|(end, start)| {
            let taken = end.duration_since(start).unsigned_abs();
            super::lines::seconds(taken)
        });
        rows.push([
            started.map_or_else(
                || row.started_at.clone(),
                |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
            ),
            row.app.clone(),
            row.image_tag.clone(),
            row.status.to_owned(),
            took.unwrap_or_else(|| "-".into()),
            row.error.as_deref().and_then(|e| e.lines().next()).unwrap_or("-").chars().take(80).collect(),
        ]);
    }
    columns(&rows, |column, text| match (column, text.trim()) {
        (3, "deployed") => paint.green(text),
        (3, "failed") => paint.red(text),
        _ => text.to_owned(),
    })
}

/// Rows in aligned columns; `paint` colours a padded cell. What stands in them steers no terminal.
pub(super) fn columns<const N: usize>(rows: &[[String; N]], paint: impl Fn(usize, &str) -> String) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| visible(cell))).collect();
    let widths: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = widths[column].saturating_sub(cell.chars().count());
            line += &paint(column, &format!("{cell}{}", " ".repeat(pad)));
            line += "  ";
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

/// Such as `12s`, `5m`, `3h`, `2d`.
pub(super) fn age(seconds: u64) -> String {
    let time = Duration::from_secs(seconds).as_secs();
    match time {
        0..60 => format!("{time}s"),
        60..3600 => format!("{}m", time / 60),
        3600..86400 => format!("{}h", time / 3600),
        _ => format!("{}d", time / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_one_line_and_steers_no_terminal() {
        let rows = [["a", "\u{1b}[31mred\nb"], ["long", "c"]].map(|row| row.map(str::to_owned));
        let text = columns(&rows, |_, text| text.to_owned());
        assert_eq!(text, "a     \\u{1b}[31mred\\nb\nlong  c\n");
    }
}
