//! The arguments of `norn state` and `norn lock`.

use std::path::PathBuf;

use clap::Subcommand;

use super::Waiting;
use crate::address::Address;

#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Bring a state that an older norn wrote, or Norn v1, to this version
    Upgrade,
    /// Show what is recorded of every resource, or all of one
    #[command(after_help = SHOW)]
    Show {
        /// Which one, such as deploy/web
        address: Option<Address>,
    },
    /// Write all of the state into a file
    #[command(after_help = EXPORT)]
    Export {
        /// A new file, or `-` for stdout
        #[arg(value_name = "FILE", default_value = "-")]
        into: PathBuf,
    },
    /// Fill an empty state from a file that `export` wrote
    #[command(after_help = IMPORT)]
    Import {
        /// The file, or `-` for stdin
        #[arg(value_name = "FILE")]
        from: PathBuf,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Move the state to another place
    #[command(after_help = MIGRATE)]
    Migrate {
        /// The SQLite file or the PostgreSQL database that it is moved to, where no state is yet
        #[arg(long, value_name = "FILE|URL")]
        to: String,
        #[command(flatten)]
        waiting: Waiting,
    },
}

#[derive(Debug, Subcommand)]
pub enum LockCommand {
    /// Show who holds it, since when, and what is done under it
    Status,
    /// Take it from a holder that cannot give it back
    #[command(after_help = BREAK)]
    Break {
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Only the lock with this token, as `norn lock status` shows it
        #[arg(long, value_name = "N")]
        token: Option<u64>,
    },
}

const SHOW: &str = "\
Examples:
  norn state show                  every resource, when it was recorded, its newest deploy
  norn state show deploy/web       the record itself, and what was done to it lately

A record holds no value of a secret or a reference, only its fingerprint.";

const EXPORT: &str = "\
Examples:
  norn state export ../shop.norn.json
  norn state export | age -r KEY > shop.norn.json.age

The file has no values of secrets, but the key under which they are fingerprinted: whoever has it can
try values. Keep it like a password. Releases, logs and what runs are no part of it.";

const IMPORT: &str = "\
Examples:
  norn state import ../shop.norn.json
  norn state import shop.norn.json --state ../copy.db

The state must be empty, and of the same project and stage. The file is checked whole before anything
is written. A state that lives on elsewhere must not be worked on as well: `norn state migrate` moves
one and sees to that.";

const MIGRATE: &str = "\
Examples:
  norn state migrate --to /var/lib/norn/shop.db
  PGPASSWORD=... norn state migrate --to postgres://norn@db.example.com/norn

Then write `state: {path: /var/lib/norn/shop.db}` into the spec, or
`state: {url: \"${NORN_STATE_URL}\"}` and set that. The password of a database comes from PGPASSWORD or
~/.pgpass. The state that was left is kept, marked as moved, and refused wherever it is named.
Releases, logs and what runs stay where they are; FILE.d, where they are looked for from now on,
leads there. Ended at any moment, it is gone on with by the same command, and until its end the old
state is the one in use.";

const BREAK: &str = "\
Examples:
  norn lock break                  shows the holder and asks for the project's name
  norn lock break --yes --token 1790000000

A lock whose process is gone, or that was not renewed for a minute, needs no breaking: the next norn
takes it. What a broken holder does goes on until its next write, which fails.";
