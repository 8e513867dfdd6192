//! The binary: for now only the hidden command `norn supervise`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use norn::provider::supervise::server::{Options, run};
use norn::spec::name::AppName;

#[derive(Parser)]
enum Cli {
    Supervise {
        #[arg(long)]
        app: AppName,
        #[arg(long)]
        run: PathBuf,
        #[arg(long)]
        logs: PathBuf,
        #[arg(long)]
        next: bool,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli::Supervise { app, run: folder, logs, next } = Cli::parse();
    match run(Options { app, run: folder, logs, next }).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
