//! The command line: one file per command, each a straight line through the pipeline.

mod apply;
mod args;
mod facts;
mod failure;
mod plan;
mod project;
mod schema;
mod show_spec;
mod supervise;
mod validate;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
pub use failure::{Exit, Failure};

use crate::render::Printer;

/// Runs norn with the arguments of this process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // `--help` and `--version` are no errors to clap, but come the same way.
            let exit = if error.use_stderr() { Exit::Error } else { Exit::Ok };
            let _ = error.print();
            return exit.into();
        }
    };
    let printer = Printer::new(args.global.color(), args.global.quiet);
    if let Command::Guard { program } = &args.command {
        return crate::provider::guard::run(program);
    }
    match run(args, printer) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            printer.alert(&failure.render(printer.err_color));
            failure.exit.into()
        }
    }
}

fn run(args: Args, printer: Printer) -> Result<Exit, Failure> {
    let global = &args.global;
    match args.command {
        Command::Validate(options) => validate::run(global, &options, printer),
        Command::Plan(options) => plan::run(global, &options, printer),
        Command::Apply(options) => apply::run(global, &options, false, printer),
        Command::Destroy(options) => apply::run(global, &options, true, printer),
        Command::Schema(options) => schema::run(&options, printer),
        Command::Spec => show_spec::run(global, printer),
        Command::Supervise(options) => supervise::run(options),
        Command::Guard { .. } => unreachable!("the guard has its own way out"),
    }
}

/// The async runtime of commands that wait for something; pure commands need none.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("no threads can be started: {error}")))
}
