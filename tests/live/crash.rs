//! norn struck at every boundary in every way, and applied again: the world and the records are as
//! if nothing had happened.
//!
//! Here: which cases there are. In the submodules: the projects that are changed (`scenario`), what
//! one looks like afterwards (`world`), one case (`case`), the figures (`table`).
//!
//! No list of boundaries is kept: an undisturbed apply tells which it reaches and what can happen
//! there. `NORN_CRASH=full` adds every late answer, of which only some are tried otherwise;
//! `NORN_CRASH_CASE` names the one case to run, or how the names of several begin; `NORN_CRASH_JOBS` is how many run at once.

mod case;
mod scenario;
mod table;
mod world;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use case::{Case, Point, RENEWAL, Strike};
use scenario::Scenario;
use table::{Outcome, Table};
use world::{Kind, World};

/// Of late answers, every so many is tried: they are the slowest cases, and the least different.
const LATE: usize = 4;
/// Of the moments at which a run is killed first, every so many is followed by a second kill.
const TWICE: usize = 17;

#[test]
fn struck_at_every_boundary_norn_goes_on_as_if_nothing_had_happened() {
    let alone = std::env::var("NORN_CRASH_CASE").ok();
    let mut table = Table::default();
    for kind in world::KINDS.iter().filter(|kind| (kind.there)()) {
        for scenario in scenario::all() {
            matrix(kind, scenario, alone.as_deref().unwrap_or_default(), &mut table);
        }
    }
    table.conclude();
}

/// All cases of a scenario, on one kind of store.
fn matrix(kind: &'static Kind, scenario: &'static Scenario, alone: &str, table: &mut Table) {
    let calm = Case { kind, scenario, strikes: Vec::new() };
    let wanted = |case: &Case| case.to_string().starts_with(alone);
    // A case is named by what it begins with, and more.
    let leads = |case: &Case| wanted(case) || alone.starts_with(&format!("{case} | "));
    if !leads(&calm) {
        return;
    }
    let (expected, points) = calm.undisturbed();
    let one = |point: &Point, fault: &str| Case {
        strikes: vec![Strike { point: point.name.clone(), fault: fault.to_owned() }],
        ..calm.clone()
    };
    // One that is named is not to be left out.
    let full = alone.contains('#') || std::env::var("NORN_CRASH").is_ok_and(|value| value == "full");
    let mut cases = Vec::new();
    let mut late = 0;
    for point in &points {
        for fault in point.faults.iter().filter(|fault| *fault != "cut" || kind.connected) {
            late += usize::from(fault == "late");
            if fault != "late" || full || late % LATE == 1 {
                cases.push(one(point, fault));
            }
        }
    }
    cases.retain(wanted);
    table.add(&calm, "struck once", points.len(), &run(cases, &expected));

    // The run that recovers is killed while it does.
    let mut again = Vec::new();
    let mut twice = 0;
    let firsts = points.iter().filter(|point| !point.name.starts_with(RENEWAL));
    for first in firsts.step_by(if full { 1 } else { TWICE }).map(|point| one(point, "kill")) {
        if !leads(&first) {
            continue;
        }
        for point in first.recovery() {
            twice += 1;
            let mut both = first.clone();
            both.strikes.push(Strike { point, fault: "kill".to_owned() });
            again.push(both);
        }
    }
    again.retain(wanted);
    table.add(&calm, "killed again while recovering", twice, &run(again, &expected));
}

/// Runs the cases, some at once: they mostly wait.
fn run(cases: Vec<Case>, expected: &World) -> Vec<(Case, Outcome)> {
    let jobs = std::env::var("NORN_CRASH_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(6);
    let queue = Mutex::new(VecDeque::from(cases));
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(case) = next else { return };
                    let outcome = case.run(expected);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((case, outcome));
                }
            });
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}
