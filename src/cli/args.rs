//! The arguments of every command; those of `state` and `lock` are in `state`.

mod state;

use std::ffi::OsString;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser, Subcommand, ValueEnum};

pub use self::state::{LockCommand, StateCommand};
use super::failure::Failure;
use crate::plan::select::Selector;
use crate::spec::name::{AppName, StageName};
use crate::spec::value::TimeSpan;

/// One infraspec.yaml, one plan, one apply.
///
/// norn reads an infraspec, compares it with what it last knew, shows one plan, and makes it so.
#[derive(Debug, Parser)]
#[command(name = "norn", version, propagate_version = false)]
pub struct Args {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The infraspec, or the folder it is in [default: here or in a parent folder]
    #[arg(short, long, global = true, value_name = "FILE|DIR")]
    pub file: Option<PathBuf>,
    /// The stage of the spec
    #[arg(long, global = true, env = "NORN_STAGE", hide_env_values = true, value_name = "NAME")]
    pub stage: Option<String>,
    /// The state, instead of what the environment or the spec says: a SQLite file, or postgres://...
    #[arg(long, global = true, value_name = "FILE|URL")]
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
    /// The stage that was named; an empty variable, as CI often has, names none.
    pub fn stage(&self) -> Result<Option<StageName>, Failure> {
        let named = self.stage.as_deref().filter(|name| !name.is_empty());
        let parsed = named.map(|name| {
            name.parse().map_err(|error| {
                Failure::new(format!("`{name}` is no name of a stage: {error}"))
                    .help("name a stage of the spec with --stage or NORN_STAGE")
            })
        });
        parsed.transpose()
    }

    /// What the user said of colour, if anything.
    pub fn color(&self) -> Option<bool> {
        let off = self.no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        off.then_some(false)
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a spec, offline and at once
    #[command(after_help = VALIDATE)]
    Validate(Validate),
    /// Show what would change
    #[command(after_help = PLAN)]
    Plan(Plan),
    /// Show what a saved plan would change; needs neither the spec nor the state
    Show(Show),
    /// Show what would change, ask, and make it so; or apply a saved plan
    #[command(after_help = APPLY)]
    Apply(ApplyOrFile),
    /// Tear down what the spec's project runs; snapshots and logs are kept
    #[command(after_help = DESTROY)]
    Destroy(Destroy),
    /// Show what runs: health, release, URL
    Status(Status),
    /// Show what was deployed
    History(History),
    /// Print what an app or one of its steps wrote
    #[command(after_help = LOGS)]
    Logs(Logs),
    /// Start an app's live release again
    Restart(Restart),
    /// Put the release live again that was live before, or another that is kept
    #[command(after_help = ROLLBACK)]
    Rollback(Rollback),
    /// Write a first spec after a look at this folder
    Init(Init),
    /// Print the JSON Schema of an infraspec, or of what norn prints
    Schema(Schema),
    /// Print the merged spec, each value with its place
    Spec,

    /// Look after the state
    State {
        #[command(subcommand)]
        command: StateCommand,
    },
    /// Look after the lock on the state
    Lock {
        #[command(subcommand)]
        command: LockCommand,
    },
    /// Print completions for a shell
    #[command(after_help = COMPLETIONS)]
    Completions { shell: clap_complete::Shell },
    /// Write the man pages into a folder, or print norn's own
    Man { folder: Option<PathBuf> },
    /// Print the version
    Version,

    /// Keeps one app running; norn starts it by itself
    #[command(hide = true)]
    Supervise(Supervise),
    /// Is one container, to whoever started it; norn starts it by itself
    #[command(hide = true)]
    Hold { container: String },
    /// Keeps one command from outliving norn; norn starts it by itself
    #[command(hide = true)]
    Guard {
        #[arg(last = true)]
        program: Vec<OsString>,
    },
}

const VALIDATE: &str = "\
Examples:
  norn validate                    the spec here, or in a parent folder
  norn validate --env              and every variable that it refers to
  norn validate --format github    as annotations of a pull request";

const PLAN: &str = "\
Examples:
  norn plan --target web           only what is about the app web
  norn plan --ref web=v1.8.2       as if the spec said that tag
  norn plan --out plan.norn        saves it for `norn apply plan.norn`, as it is
  norn plan --destroy --out FILE   the same for what `norn destroy` would do
  norn plan --json                 for scripts; `norn schema plan` tells its format

Exit codes: 0 planned, 1 error, 2 there are changes (with --detailed-exitcode)";

const APPLY: &str = "\
Examples:
  norn apply                       shows the plan and asks
  norn apply --yes                 does not ask; for what destroys, --confirm is needed too
  norn apply --yes --json          an event a line; `norn schema apply` tells their format
  norn apply plan.norn             what `norn plan --out plan.norn` saved, without asking

Ctrl-C finishes the running steps and stops; a second one ends them. The next apply goes on.

Exit codes: 0 applied or nothing to do, 1 error, 3 applied in part, 4 another norn is at work,
5 things changed after the plan was shown or saved, 130 cancelled

A saved plan can be applied again until all of it is done.";

const DESTROY: &str = "\
Examples:
  norn destroy                     shows what would end and asks for the project's name
  norn destroy --target web        only the app web
  norn destroy --yes --confirm shop";

const LOGS: &str = "\
Examples:
  norn logs web -f                 what the app web writes, as it comes
  norn logs web --step build       what its newest build wrote";

const ROLLBACK: &str = "\
Nothing is built or migrated, the definition stays, and the database stays as it is.
The next apply does not deploy what was left, until it has another commit or --redeploy.

Examples:
  norn rollback web                what was live before
  norn rollback web --to 3f2a91c   the release of that commit";

const COMPLETIONS: &str = "\
Examples:
  norn completions bash > ~/.local/share/bash-completion/completions/norn
  norn completions fish > ~/.config/fish/completions/norn.fish";

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
    /// The app's former name, under which that one runs
    #[arg(long)]
    pub after: Option<AppName>,
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
    /// With excerpts of the spec
    Human,
    /// For scripts; `norn schema validate` tells its format
    Json,
    /// Workflow commands of GitHub Actions
    Github,
    /// For code scanning
    Sarif,
}

/// Which part of a plan.
#[derive(Debug, Default, clap::Args)]
pub struct Part {
    /// Only this app or resource, such as web or deploy/web; repeatable
    #[arg(long, value_name = "APP|ADDRESS")]
    pub target: Vec<Selector>,
    /// All but this app or resource; repeatable
    #[arg(long, value_name = "APP|ADDRESS")]
    pub exclude: Vec<Selector>,
    /// A machine that is gone for good, by its host name: what ran there is put live here; repeatable
    #[arg(long, value_name = "HOST")]
    pub lost: Vec<String>,
}

/// What a plan is about.
#[derive(Debug, Default, clap::Args)]
pub struct Selection {
    #[command(flatten)]
    pub part: Part,
    /// Ask nothing of the network: a branch is where the state saw it last
    #[arg(long)]
    pub offline: bool,
    /// Compare every object in a cluster, field by field, with what it is to be
    #[arg(long, conflicts_with = "offline")]
    pub refresh: bool,
    /// Another branch, tag or commit for an app, for this plan only; repeatable
    #[arg(long = "ref", value_name = "APP=REF", value_parser = app_and_ref)]
    pub reference: Vec<(AppName, String)>,
    /// Build and deploy an app again though nothing changed; repeatable
    #[arg(long, value_name = "APP")]
    pub redeploy: Vec<AppName>,
    /// Take over what others made of an app in its cluster, such as forge/web; repeatable
    #[arg(long, value_name = "ADDRESS", value_parser = adopted)]
    pub adopt: Vec<AppName>,
}

/// The app whose objects are taken over.
fn adopted(text: &str) -> Result<AppName, String> {
    let name = text.strip_prefix("forge/").ok_or("write forge/APP: what an app stands on is taken over")?;
    name.parse().map_err(|error| format!("{error}"))
}

fn app_and_ref(text: &str) -> Result<(AppName, String), String> {
    let (app, reference) = text.split_once('=').ok_or("write APP=REF, such as web=v1.8.2")?;
    let app = app.parse::<AppName>().map_err(|error| error.to_string())?;
    reference
        .parse::<crate::spec::value::RefName>()
        .map_err(|complaint| format!("{}: {}", complaint.message, complaint.help))?;
    Ok((app, reference.to_owned()))
}

/// Files that a plan is written to.
#[derive(Debug, Default, clap::Args)]
pub struct Output {
    /// Write the plan as JSON to a file too
    #[arg(long, value_name = "FILE")]
    pub json_out: Option<PathBuf>,
    /// Write the plan as Markdown, for a comment of a pull request
    #[arg(long, value_name = "FILE")]
    pub markdown_out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct Plan {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub output: Output,
    /// Plan what `norn destroy` would do
    #[arg(long, conflicts_with_all = ["reference", "redeploy", "adopt"])]
    pub destroy: bool,
    /// Save the plan, sealed, for `norn apply FILE`
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// How long the saved plan can be applied
    #[arg(long, value_name = "TIME", value_parser = time_span, default_value = "24h", requires = "out")]
    pub valid_for: TimeSpan,
    /// Exit with 2 when there are changes
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Debug, clap::Args)]
pub struct Show {
    /// What `norn plan --out` wrote
    #[arg(value_name = "FILE")]
    pub plan: PathBuf,
    /// Write the plan as Markdown too, for a comment of a pull request
    #[arg(long, value_name = "FILE")]
    pub markdown_out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct ApplyOrFile {
    /// Apply this plan, which `norn plan --out` saved, and ask nothing
    #[arg(
        value_name = "FILE",
        conflicts_with_all = ["target", "exclude", "offline", "reference", "redeploy", "adopt", "refresh", "confirm", "lost"]
    )]
    pub plan: Option<PathBuf>,
    #[command(flatten)]
    pub apply: Apply,
}

#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub doing: Doing,
}

#[derive(Debug, clap::Args)]
pub struct Destroy {
    #[command(flatten)]
    pub part: Part,
    #[command(flatten)]
    pub output: Output,
    #[command(flatten)]
    pub doing: Doing,
}

/// How something is done.
#[derive(Debug, clap::Args)]
pub struct Doing {
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// With --yes, the stage's name (without stages the project's): for what destroys, and to restart
    /// or roll back in a protected stage
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
    #[command(flatten)]
    pub waiting: Waiting,
    /// How many steps work at once
    #[arg(long, value_name = "N", default_value = "10")]
    pub parallelism: NonZeroU16,
    /// How progress is shown
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
}

/// How long a command waits for its turn.
#[derive(Debug, clap::Args)]
pub struct Waiting {
    /// How long to wait for another norn [default: not at all]
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    lock_wait: Option<TimeSpan>,
}

impl Waiting {
    pub fn time(&self) -> Duration {
        self.lock_wait.as_ref().map_or(Duration::ZERO, |wait| *wait.value())
    }
}

fn time_span(text: &str) -> Result<TimeSpan, String> {
    text.parse::<TimeSpan>().map_err(|complaint| format!("{}: {}", complaint.message, complaint.help))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Bars at a terminal, groups on GitHub Actions, else (and with -v) plain lines
    Auto,
    /// Bars
    Progress,
    /// A line with the time for every event
    Plain,
    /// Groups and annotations of GitHub Actions
    Github,
}

#[derive(Debug, clap::Args)]
pub struct Status {
    /// Only this app
    pub app: Option<AppName>,
}

#[derive(Debug, clap::Args)]
pub struct History {
    /// Only this app
    pub app: Option<AppName>,
    /// How many deployments
    #[arg(short = 'n', long, default_value = "20", value_name = "N")]
    pub limit: u32,
}

#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Whose logs
    pub app: AppName,
    /// Go on printing what comes; here -f does so too
    #[arg(short = 'F', long)]
    pub follow: bool,
    /// What a step of the newest deploy wrote, such as build
    #[arg(long, value_name = "STEP", conflicts_with = "follow")]
    pub step: Option<String>,
    /// How many lines from the end of each log
    #[arg(short = 'n', long, default_value = "200", value_name = "N")]
    pub lines: usize,
}

#[derive(Debug, clap::Args)]
pub struct Restart {
    /// Which app
    pub app: AppName,
    #[command(flatten)]
    pub doing: Doing,
}

#[derive(Debug, clap::Args)]
pub struct Rollback {
    /// Which app
    pub app: AppName,
    /// Which release: its tag or commit [default: what was live before]
    #[arg(long, value_name = "TAG|SHA")]
    pub to: Option<String>,
    #[command(flatten)]
    pub doing: Doing,
}

#[derive(Debug, clap::Args)]
pub struct Init {
    /// The folder to look at [default: here]
    pub folder: Option<PathBuf>,
    /// Print the spec instead of writing it
    #[arg(long)]
    pub stdout: bool,
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
    Plan,
    /// What `norn plan --out` saves
    PlanFile,
    /// A line of `norn apply --json`
    Apply,
    Status,
    History,
    /// What `norn lock status --json` prints
    Lock,
    /// What `norn state show --json` prints
    State,
}
