//! The command line: one file per command, each a straight line through the pipeline.

mod apply;
mod apply_file;
mod args;
mod ask;
mod clusters;
mod engines;
mod facts;
mod failure;
mod history;
mod hold;
mod init;
mod lock;
mod locked;
mod logs;
mod place;
mod plan;
mod plan_file;
mod project;
mod recorded;
mod refresh;
mod schema;
mod show;
mod show_spec;
mod shown;
mod signals;
mod state;
mod status;
mod supervise;
mod talker;
mod validate;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use apply::Request;
use args::{
    Apply, ApplyOrFile, Args, Command, Destroy, LockCommand, Output, Restart, Rollback, Selection,
    StateCommand,
};
pub use failure::{Exit, Failure};

use crate::render::Printer;

/// Runs norn with the arguments of this process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse_from(typed(std::env::args_os().collect())) {
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
    if let Command::Hold { container } = &args.command {
        return hold::run(container, printer);
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
        Command::Show(options) => show::run(global, &options, printer),
        Command::Apply(ApplyOrFile { plan: None, apply: options }) => {
            apply::run(global, &options, Request::Apply, printer)
        }
        Command::Apply(ApplyOrFile { plan: Some(path), apply: options }) => {
            apply_file::run(global, &options, &path, printer)
        }
        Command::Destroy(Destroy { part, output, doing }) => {
            let options = Apply { selection: Selection { part, ..Selection::default() }, output, doing };
            apply::run(global, &options, Request::Destroy, printer)
        }
        Command::Restart(Restart { app, doing }) => {
            let options = Apply { selection: Selection::default(), output: Output::default(), doing };
            apply::run(global, &options, Request::Restart(app), printer)
        }
        Command::Rollback(Rollback { app, to, doing }) => {
            let options = Apply { selection: Selection::default(), output: Output::default(), doing };
            apply::run(global, &options, Request::Rollback(crate::plan::Rollback { app, to }), printer)
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
        Command::State { command } => match command {
            StateCommand::Upgrade => state::upgrade(global, printer),
            StateCommand::Show { address } => state::show::run(global, address.as_ref(), printer),
            StateCommand::Export { into } => state::file::export(global, &into, printer),
            StateCommand::Import { from, waiting } => {
                state::file::import(global, &from, waiting.time(), printer)
            }
            StateCommand::Migrate { to, waiting } => {
                state::migrate::run(global, &to, waiting.time(), printer)
            }
        },
        Command::Lock { command } => match command {
            LockCommand::Status => lock::status(global, printer),
            LockCommand::Break { yes, token } => lock::break_it(global, yes, token, printer),
        },
        Command::Man { folder } => man(folder, printer),
        Command::Version => {
            version(global.json, printer);
            Ok(Exit::Ok)
        }
        Command::Schema(options) => schema::run(&options, printer),
        Command::Spec => show_spec::run(global, printer),
        Command::Supervise(options) => supervise::run(options),
        Command::Guard { .. } | Command::Hold { .. } => unreachable!("they have their own way out"),
    }
}

/// What was typed. In every command `-f` names the spec, but behind `logs` it follows, as everywhere.
fn typed(mut words: Vec<OsString>) -> Vec<OsString> {
    let named = ["-f", "--file", "--stage", "--state", "--env-file"];
    let mut at = 1;
    while words.get(at).is_some_and(|word| word.to_string_lossy().starts_with('-')) {
        let takes_a_value = named.iter().any(|name| words[at] == *name);
        at += if takes_a_value { 2 } else { 1 };
    }
    if words.get(at).is_some_and(|word| word == "logs") {
        for word in words.iter_mut().skip(at + 1).filter(|word| *word == "-f") {
            *word = "--follow".into();
        }
    }
    words
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
