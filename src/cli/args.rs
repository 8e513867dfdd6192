//! The arguments of every command.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

use crate::spec::name::{AppName, StageName};

/// One infraspec.yaml, one plan, one apply.
///
/// norn reads an infraspec, compares it with what it last knew, shows one plan, and makes it so.
#[derive(Debug, Parser)]
#[command(name = "norn", version, propagate_version = false, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The infraspec, or the folder it is in [default: here or in a parent folder]
    #[arg(short, long, global = true, value_name = "FILE|DIR")]
    pub file: Option<PathBuf>,
    /// The stage of the spec
    #[arg(long, global = true, env = "NORN_STAGE", value_name = "NAME")]
    pub stage: Option<StageName>,
    /// The SQLite file of the state, instead of what the spec says
    #[arg(long, global = true, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// A file of NAME=value lines, for references that the environment does not set
    #[arg(long, global = true, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Print JSON on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Print no colours [env: NO_COLOR]
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Print nothing but data and errors
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more, such as every line of a step's output
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

impl Global {
    /// What the user said of colour, if anything.
    pub fn color(&self) -> Option<bool> {
        let off = self.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        off.then_some(false)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a spec, offline and at once
    Validate(Validate),
    /// Print the JSON Schema of an infraspec, or of what norn prints
    Schema(Schema),
    /// Print the merged spec, each value with its place
    Spec,

    /// Keeps one app running; norn starts it by itself
    #[command(hide = true)]
    Supervise(Supervise),
    /// Keeps one command from outliving norn; norn starts it by itself
    #[command(hide = true)]
    Guard {
        #[arg(last = true)]
        program: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
pub struct Supervise {
    #[arg(long)]
    pub app: AppName,
    #[arg(long)]
    pub run: PathBuf,
    #[arg(long)]
    pub logs: PathBuf,
    /// Take over from the supervisor that runs
    #[arg(long)]
    pub next: bool,
}

#[derive(Debug, clap::Args)]
pub struct Validate {
    /// Specs or their folders; `-` reads standard input
    pub paths: Vec<PathBuf>,
    /// How problems are printed [default: human, or json with --json]
    #[arg(long)]
    pub format: Option<ProblemFormat>,
    /// Also check that every referenced variable is set
    #[arg(long)]
    pub env: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProblemFormat {
    Human,
    Json,
    /// Workflow commands of GitHub Actions
    Github,
    /// For code scanning
    Sarif,
}

#[derive(Debug, clap::Args)]
pub struct Schema {
    /// Which one
    #[arg(default_value = "infraspec")]
    pub name: SchemaName,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaName {
    Infraspec,
    Validate,
}
