//! `norn history`: the deployments, newest first.

use super::args::{Global, History};
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use crate::render::Printer;
use crate::render::status::{DeploymentV1, HistoryV1, StepV1, history};
use crate::state::Deployment;

pub fn run(global: &Global, options: &History, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let rows = project.store.history(options.app.as_ref(), options.limit).await.map_err(store_failure)?;
        if let (Some(app), true) = (&options.app, rows.is_empty()) {
            project.must_know(app).await?;
        }
        let document = HistoryV1 { format_version: 1, deployments: rows.into_iter().map(row).collect() };
        printer.data(&if global.json {
            serde_json::to_string_pretty(&document).expect("a history has text keys only")
        } else {
            history(&document, printer.out_color)
        });
        Ok(Exit::Ok)
    })
}

fn row(row: Deployment) -> DeploymentV1 {
    DeploymentV1 {
        id: row.id,
        app: row.app.to_string(),
        commit_sha: row.commit_sha,
        image_tag: row.image_tag,
        status: row.status.as_str(),
        error: (!row.error.is_empty()).then_some(row.error),
        started_at: row.started_at.to_string(),
        finished_at: row.finished_at.map(|time| time.to_string()),
        steps: row
            .steps
            .into_iter()
            .map(|log| StepV1 {
                step: log.step,
                status: log.status,
                duration_ms: log.duration_ms,
                output: log.output,
            })
            .collect(),
    }
}
