//! From a database's row to a record, whatever the database: a cell is a text or null, what it
//! means is parsed here, and an error names the row.

use std::str::FromStr;

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::lock::{Held, Holder, LeaseRow, ProcessIdentity};
use super::{
    Applied, Artifact, ArtifactKind, Deployment, DeploymentStatus, Digests, Forge, ForgeStatus, Journaled,
    Operated, PendingStep, Record, Run, StepLog,
};
use crate::address::Address;
use crate::spec::name::AppName;

/// What a database gives of a row.
pub trait Cells {
    /// The text of a column; a number in decimal, a boolean as `0` or `1`, a time in RFC 3339.
    ///
    /// # Errors
    /// The database's words, where there is no such column or it is no text.
    fn cell(&self, column: &str) -> Result<Option<String>, String>;
}

/// A row that cannot be read, in the words of the store's user.
#[derive(Debug)]
pub struct Unreadable(pub String);

/// A row that is being read, and its table for errors.
#[derive(Clone, Copy)]
pub struct Named<'r> {
    pub table: &'static str,
    /// The column whose value names the row.
    pub key: &'static str,
    pub row: &'r dyn Cells,
}

impl Named<'_> {
    /// A text; null is the empty one.
    pub fn text(self, column: &str) -> Result<String, Unreadable> {
        Ok(self.maybe(column)?.unwrap_or_default())
    }

    pub fn maybe(self, column: &str) -> Result<Option<String>, Unreadable> {
        self.row.cell(column).map_err(|why| Unreadable(format!("a row of {}: {why}", self.table)))
    }

    pub fn bool(self, column: &str) -> Result<bool, Unreadable> {
        self.read(column, |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    pub fn parse<T: FromStr>(self, column: &str) -> Result<T, Unreadable> {
        self.read(column, |text| text.parse().ok())
    }

    pub fn json<T: DeserializeOwned>(self, column: &str) -> Result<T, Unreadable> {
        self.read(column, |text| serde_json::from_str(text).ok())
    }

    pub fn maybe_time(self, column: &str) -> Result<Option<Timestamp>, Unreadable> {
        match self.maybe(column)? {
            Some(text) if !text.is_empty() => self.parse(column).map(Some),
            _ => Ok(None),
        }
    }

    /// A text that `parse` knows.
    pub fn read<T>(self, column: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
        let text = self.text(column)?;
        parse(&text).ok_or_else(|| {
            let row = self.text(self.key).unwrap_or_default();
            let short: String = text.chars().take(80).collect();
            Unreadable(format!("the row {row:?} of {} has the {column} {short:?}", self.table))
        })
    }
}

/// The lease row; its column `now` is the database's clock.
pub fn lease(row: Named<'_>) -> Result<LeaseRow, Unreadable> {
    let token = row.parse("token")?;
    let held = match row.maybe("run")? {
        None => None,
        Some(run) => Some(Held {
            holder: Holder {
                run,
                who: shown(row.text("who")?),
                process: process(row)?,
                job_url: row.maybe("job_url")?.map(shown),
                reason: shown(row.text("reason")?),
            },
            token,
            acquired_at: row.parse("acquired_at")?,
            expires_at: row.parse("expires_at")?,
        }),
    };
    Ok(LeaseRow { token, held, now: row.parse("now")? })
}

/// What another norn wrote of itself must not steer the terminal of who reads it.
fn shown(text: String) -> String {
    text.replace(char::is_control, "\u{FFFD}")
}

/// The process that a row of `norn_locks` or `norn_runs` names.
fn process(row: Named<'_>) -> Result<ProcessIdentity, Unreadable> {
    Ok(ProcessIdentity {
        machine_id: row.text("machine_id")?,
        boot_id: row.text("boot_id")?,
        pid_namespace: row.text("pid_namespace")?,
        pid: row.parse("pid")?,
        start_time: row.parse("start_time")?,
    })
}

pub fn resource(row: Named<'_>) -> Result<(Address, Record), Unreadable> {
    let record =
        Record { body: row.json("body")?, digest: row.text("digest")?, protected: row.bool("protected")? };
    Ok((row.parse("address")?, record))
}

/// A deployment without its step logs.
pub fn deployment(row: Named<'_>) -> Result<Deployment, Unreadable> {
    Ok(Deployment {
        id: row.text("id")?,
        app: row.parse("app")?,
        commit_sha: row.text("commit_sha")?,
        image_tag: row.text("image_tag")?,
        status: row.read("status", DeploymentStatus::parse)?,
        steps: Vec::new(),
        error: row.text("error")?,
        started_at: row.parse("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
    })
}

pub fn deployment_with_steps(row: Named<'_>) -> Result<Deployment, Unreadable> {
    // An attempt that v1 never brought to a step has no log, or the log `null`.
    let steps = match row.maybe("steps")? {
        Some(_) => row.json::<Option<Vec<StepLog>>>("steps")?,
        None => None,
    };
    Ok(Deployment { steps: steps.unwrap_or_default(), ..deployment(row)? })
}

pub fn forge(row: Named<'_>) -> Result<(AppName, Forge), Unreadable> {
    let forge = Forge {
        status: row.read("status", ForgeStatus::parse)?,
        resources: row.json("resources")?,
        error: row.text("error")?,
        started_at: row.maybe_time("started_at")?,
        finished_at: row.maybe_time("finished_at")?,
    };
    Ok((row.parse("app")?, forge))
}

pub fn artifact(row: Named<'_>) -> Result<Artifact, Unreadable> {
    Ok(Artifact {
        id: row.text("id")?,
        app: row.parse("app")?,
        kind: row.read("kind", ArtifactKind::parse)?,
        name: row.text("name")?,
        body: row.json("body")?,
        created_at: row.parse("created_at")?,
    })
}

pub fn run(row: Named<'_>) -> Result<Run, Unreadable> {
    Ok(Run {
        id: row.text("id")?,
        who: row.text("who")?,
        process: process(row)?,
        reason: row.text("reason")?,
        token: row.parse("token")?,
        started_at: row.parse("started_at")?,
        heartbeat_at: row.parse("heartbeat_at")?,
    })
}

pub fn operation(row: Named<'_>) -> Result<Journaled, Unreadable> {
    Ok(Journaled {
        id: row.text("id")?,
        run: row.text("run")?,
        address: row.parse("address")?,
        action: row.text("action")?,
        intent: row.json("intent")?,
    })
}

pub fn applied(row: Named<'_>) -> Result<Applied, Unreadable> {
    Ok(Applied {
        address: row.parse("address")?,
        action: row.text("action")?,
        outcome: row.text("outcome")?,
        after: Digests { forge: row.maybe("forge_after")?, deploy: row.maybe("deploy_after")? },
    })
}

pub fn operated(row: Named<'_>) -> Result<Operated, Unreadable> {
    Ok(Operated {
        action: row.text("action")?,
        who: row.text("who")?,
        command: row.text("command")?,
        started_at: row.parse("started_at")?,
        ended_at: row.maybe_time("ended_at")?,
        outcome: row.text("outcome")?,
    })
}

/// When a record was last put.
pub fn updated(row: Named<'_>) -> Result<(Address, Timestamp), Unreadable> {
    Ok((row.parse("address")?, row.parse("updated_at")?))
}

pub fn pending(row: Named<'_>) -> Result<PendingStep, Unreadable> {
    Ok(PendingStep {
        id: row.text("id")?,
        operation: row.text("operation")?,
        step: row.text("step")?,
        key: row.text("key")?,
        detail: row.json("detail")?,
    })
}
