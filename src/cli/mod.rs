//! The command line: one file per command, each a straight line through the pipeline.

mod apply;
mod args;
mod ask;
mod facts;
mod failure;
mod history;
mod init;
mod logs;
mod plan;
mod project;
mod schema;
mod show_spec;
mod status;
mod supervise;
mod talker;
mod validate;
mod workspace;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use apply::Request;
use args::{Apply, Args, Command, Destroy, Output, Restart, Selection};
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
            // Other tools follow a log with -f, which names the spec in every command of norn.
            let typed: Vec<String> = std::env::args().skip(1).collect();
            if typed.first().is_some_and(|word| word == "logs") && typed.iter().any(|word| word == "-f") {
                Printer::new(None, false).alert("\n  tip: -F follows a log");
            }
            return exit.into();
        }
    };
    let printer = Printer::new(args.global.color(), args.global.quiet);
    if let Command::Guard { program } = &args.command {
        return crate::provider::guard::run(program);
    }
    match run(args, printer) {
        // What a script would read is not whole.
        Ok(Exit::Ok | Exit::Changes) if Printer::lost_data() => Exit::Error.into(),
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
        Command::Apply(options) => apply::run(global, &options, Request::Apply, printer),
        Command::Destroy(Destroy { part, output, doing }) => {
            let options = Apply { selection: Selection { part, ..Selection::default() }, output, doing };
            apply::run(global, &options, Request::Destroy, printer)
        }
        Command::Restart(Restart { app, doing }) => {
            let options = Apply { selection: Selection::default(), output: Output::default(), doing };
            apply::run(global, &options, Request::Restart(app), printer)
        }
        Command::Status(options) => status::run(global, &options, printer),
        Command::History(options) => history::run(global, &options, printer),
        Command::Logs(options) => logs::run(global, &options, printer),
        Command::Init(options) => init::run(&options, printer),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut for_users(), "norn", &mut text);
            printer.data(&String::from_utf8_lossy(&text));
            Ok(Exit::Ok)
        }
        Command::Man { folder } => man(folder, printer),
        Command::Version => {
            version(global.json, printer);
            Ok(Exit::Ok)
        }
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

/// The commands that users type: completions and man pages would tell of the others too.
fn for_users() -> clap::Command {
    let all = Args::command();
    let mut shown = clap::Command::new("norn").args(all.get_arguments().cloned());
    shown = shown.version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true).subcommand_required(true);
    shown = shown.about(all.get_about().cloned().unwrap_or_default());
    shown = shown.long_about(all.get_long_about().cloned().unwrap_or_default());
    shown.subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

fn man(folder: Option<std::path::PathBuf>, printer: Printer) -> Result<Exit, Failure> {
    let fail = |error: std::io::Error| {
        let place = folder.as_deref().map(|folder| format!(" to {}", folder.display())).unwrap_or_default();
        Failure::new(format!("the man pages cannot be written{place}: {error}")).help("name a folder")
    };
    match &folder {
        Some(folder) => std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(for_users(), folder))
            .map_err(fail)?,
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(for_users()).render(&mut text).map_err(fail)?;
            printer.data(&String::from_utf8_lossy(&text));
        }
    }
    Ok(Exit::Ok)
}

fn version(json: bool, printer: Printer) {
    let version = env!("CARGO_PKG_VERSION");
    let supervisor = crate::provider::supervise::protocol::PROTOCOL;
    printer.data(&if json {
        serde_json::json!({ "version": version, "supervisorProtocol": supervisor }).to_string()
    } else {
        format!("norn {version}")
    });
}
