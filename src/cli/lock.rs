//! `norn lock`: who holds the lock on the state, and taking it away.

use jiff::SignedDuration;

use super::args::Global;
use super::ask::ask_word;
use super::failure::{Exit, Failure};
use super::project::{Project, store_failure};
use crate::provider::machine;
use crate::render::Printer;
use crate::render::lock::{DoingV1, HolderV1, LockV1, Process, human};
use crate::state::lock::TTL;
use crate::state::{Held, LeaseRow, Snapshot, StoreError};

pub fn status(global: &Global, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let row = project.store.lease().await.map_err(store_failure)?;
        show(&project, global, row.as_ref(), printer).await?;
        Ok(Exit::Ok)
    })
}

pub fn break_it(global: &Global, yes: bool, token: Option<u64>, printer: Printer) -> Result<Exit, Failure> {
    super::runtime()?.block_on(async {
        let project = Project::open(global, printer).await?;
        let row = project.store.lease().await.map_err(store_failure)?;
        let Some(held) = row.as_ref().and_then(|row| row.held.as_ref()) else {
            printer.talk(&format!("the state in {} is not locked", project.state_label()));
            return Ok(Exit::Ok);
        };
        if let Some(other) = token.filter(|token| *token != held.token) {
            return Err(Failure::new(format!(
                "the lock has the token {}, not {other}, so nothing was broken",
                held.token
            ))
            .help("another norn took it since: `norn lock status` shows who"));
        }
        show(&project, global, row.as_ref(), printer).await?;
        let pid = held.holder.process.pid;
        if machine::alive(&held.holder.process) == Some(true) {
            printer.alert(&format!(
                "warning: process {pid} is alive on this machine, and goes on until its next write: end it first with `kill {pid}`, which lets it finish its running steps"
            ));
        }
        if !yes {
            ask_word("break the lock", project.name(), "nothing was broken")?;
        }
        let token = held.token;
        if !project.store.break_lock(token).await.map_err(store_failure)? {
            return Err(Failure::new("the lock was given back or taken by another meanwhile, so nothing was broken")
                .help("`norn lock status` shows who holds it now"));
        }
        printer.talk(&format!("broke the lock of {held}: its next write fails"));
        Ok(Exit::Ok)
    })
}

async fn show(
    project: &Project,
    global: &Global,
    row: Option<&LeaseRow>,
    printer: Printer,
) -> Result<(), Failure> {
    let held = row.and_then(|row| Some((row, row.held.as_ref()?)));
    let holder = match held {
        None => None,
        Some((row, held)) => {
            let stored = match project.store.snapshot().await {
                // One that is being brought to this version has no records to read yet.
                Err(StoreError::Older { .. }) => Snapshot::default(),
                stored => stored.map_err(store_failure)?,
            };
            Some(holder(row, held, &stored))
        }
    };
    let document = LockV1 {
        format_version: 1,
        project: project.scope.project.to_string(),
        stage: project.stage.as_ref().map(ToString::to_string),
        state: project.state_label(),
        holder,
    };
    printer.data(&if global.json {
        serde_json::to_string_pretty(&document).expect("a lock has text keys only")
    } else {
        human(&document, printer.out_color)
    });
    Ok(())
}

fn holder(row: &LeaseRow, held: &Held, stored: &Snapshot) -> HolderV1 {
    let seconds = |time: SignedDuration| time.as_secs();
    let ttl = SignedDuration::try_from(TTL).expect("a lease is short");
    // Renewing it sets its end, so its end tells when that was.
    let renewed = held.expires_at - ttl;
    let of_run = stored.operations.iter().filter(|operation| operation.run == held.holder.run);
    let doing = of_run.map(|operation| DoingV1 {
        address: operation.address.to_string(),
        action: operation.action.clone(),
        steps: stored
            .pending
            .iter()
            .filter(|step| step.operation == operation.id)
            .map(|step| step.step.clone())
            .collect(),
    });
    HolderV1 {
        who: held.holder.who.clone(),
        pid: held.holder.process.pid,
        process: match machine::alive(&held.holder.process) {
            Some(true) => Process::Alive,
            Some(false) => Process::Gone,
            None => Process::Unseen,
        },
        command: held.holder.reason.clone(),
        job_url: held.holder.job_url.clone(),
        token: held.token,
        since: held.acquired_at.to_string(),
        held_seconds: seconds(row.now.duration_since(held.acquired_at)),
        renewed_seconds: seconds(row.now.duration_since(renewed)),
        expires: held.expires_at.to_string(),
        expires_in_seconds: seconds(held.expires_at.duration_since(row.now)),
        abandoned: row.clone().blocker(machine::alive).is_none(),
        doing: doing.collect(),
    }
}
