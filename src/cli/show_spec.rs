//! `norn spec`: the merged document, each value with its place.

use super::args::Global;
use super::failure::{Exit, Failure};
use super::workspace::{self, Root};
use crate::render::{Printer, document};

pub fn run(global: &Global, printer: Printer) -> Result<Exit, Failure> {
    let document = Root::find(global)?.read();
    if document.failed() {
        return Err(workspace::refuse(&document.problems, &document, printer));
    }
    let stage = workspace::choose_stage(global, &document)?;
    let staged = document.stage(stage.as_ref(), None);
    if staged.failed() {
        return Err(workspace::refuse(&staged.problems, &document, printer));
    }
    let tree = document::portable(staged.tree, &document.sources);
    let text = if global.json {
        document::json(&tree, &document.sources)
    } else {
        document::yaml(&tree, &document.sources)
    };
    printer.data(&text);
    Ok(Exit::Ok)
}
