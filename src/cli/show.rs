//! `norn show FILE`: a saved plan as `norn plan` showed it.

use super::args::{Global, Output, Show};
use super::failure::{Exit, Failure};
use super::plan_file;
use super::shown::Shown;
use crate::render::Printer;
use crate::render::plan::{Header, stamp};
use crate::state::Scope;

pub fn run(global: &Global, options: &Show, printer: Printer) -> Result<Exit, Failure> {
    let output = Output { json_out: None, markdown_out: options.markdown_out.clone() };
    output.must_differ(&[("the plan", &options.plan)])?;
    let saved = plan_file::load(&options.plan)?.file;
    let plan = saved.plan.plan();
    let scope = Scope { project: saved.project.clone(), stage: saved.stage.clone() };
    let shown = Shown {
        header: Header {
            scope: &scope,
            state: saved.store.place.clone(),
            resources: saved.store.resources,
            lost: &saved.options.lost,
            saved: Some(&saved),
        },
        plan: &plan,
    };
    shown.write(&output)?;
    shown.print(global, printer);
    if !global.json {
        printer.data(&format!("\n{}", stamp(&saved)));
    }
    Ok(Exit::Ok)
}
