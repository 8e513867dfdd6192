//! norn struck at its boundaries while it changes a project, and applied again: the world and the
//! records are as if nothing had happened.
//!
//! Here: which cases of a change are tried. In the submodules: one case (`case`), what a project looks
//! like (`world`), the figures (`table`). Elsewhere: the changes, which are a test binary's own.
//!
//! No list of boundaries is kept: an undisturbed apply tells which it reaches and what can happen
//! there. `NORN_CRASH=full` tries what is only sampled otherwise; `NORN_CRASH_CASE` names the one case to
//! run, or how the names of several begin; `NORN_CRASH_JOBS` is how many cases run at once.
//!
//! The module that has this one also has `tests/support/sandbox.rs`, as `sandbox`.

#![allow(dead_code, reason = "each test binary uses its part")]

pub mod case;
pub mod table;
pub mod world;

use std::sync::{Mutex, PoisonError};

use self::case::{Case, Point, RENEWAL, Strike};
use self::table::{Table, Tried};
use self::world::World;
use super::sandbox::Sandbox;

/// A change of a project, which is made as often as it takes, each time of a project of its own.
pub trait Change: Sync {
    /// On what, and which: `SQLite | first`.
    fn name(&self) -> String;

    /// A project about to be changed.
    fn stage(&self) -> Box<dyn Stage + '_>;

    /// Whether it can be made; else the project is as before, and norn says so each time.
    fn succeeds(&self) -> bool {
        true
    }

    /// How often a lease is renewed, in milliseconds: the change takes longer.
    fn heartbeat(&self) -> u32;
}

/// A project about to be changed.
pub trait Stage {
    fn sandbox(&self) -> &Sandbox;

    fn project(&self) -> &str;

    /// What makes the change, and goes on with it, where it is no apply.
    fn command(&self) -> Option<&str> {
        None
    }

    /// Everything that can be seen of it, but for what differs from run to run.
    fn look(&self) -> World;
}

/// Which cases are tried, where not all are.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    /// The boundaries that are all struck. Of the others every so many is.
    pub chosen: fn(&str) -> bool,
    pub others: usize,
    /// Of the faults but a kill, every so many is tried.
    pub faults: usize,
    /// Of late answers among them: they are the slowest cases, and the least different.
    pub late: usize,
    /// Of the moments at which a run is killed first, every so many is followed by a second kill; none
    /// if absent.
    pub twice: Option<usize>,
    /// A fault that makes no sense there.
    pub not: Option<&'static str>,
    /// How many cases run at once: they mostly wait.
    pub jobs: usize,
}

/// A change that nobody disturbed: its case, what became of the project, the boundaries on the way.
struct Calm<'a> {
    case: Case<'a>,
    expected: World,
    points: Vec<Point>,
}

impl<'a> Calm<'a> {
    fn one(&self, point: &Point, fault: &str) -> Case<'a> {
        let strikes = vec![Strike { point: point.name.clone(), fault: fault.to_owned() }];
        Case { strikes, ..self.case.clone() }
    }

    /// The cases of one strike.
    fn once(&self, choice: Choice, full: bool) -> Vec<Case<'a>> {
        let every = |count: &mut usize, many: usize| {
            *count += 1;
            full || *count % many == 1 % many
        };
        let (mut faults, mut late, mut others) = (0, 0, 0);
        let mut cases = Vec::new();
        for point in &self.points {
            if !(choice.chosen)(&point.name) && !every(&mut others, choice.others) {
                continue;
            }
            for fault in point.faults.iter().filter(|fault| Some(fault.as_str()) != choice.not) {
                let tried = match fault.as_str() {
                    "kill" => true,
                    "late" => every(&mut late, choice.late),
                    _ => every(&mut faults, choice.faults),
                };
                if tried {
                    cases.push(self.one(point, fault));
                }
            }
        }
        cases
    }
}

/// All cases of changes.
pub fn strike(changes: &[Box<dyn Change + '_>], choice: Choice) -> Table {
    let mut table = Table::default();
    let alone = std::env::var("NORN_CRASH_CASE").unwrap_or_default();
    let jobs =
        std::env::var("NORN_CRASH_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(choice.jobs);
    let wanted = |case: &Case<'_>| case.to_string().starts_with(&alone);
    // A case is named by what it begins with, and more.
    let leads = |case: &Case<'_>| wanted(case) || alone.starts_with(&format!("{case} | "));
    // One that is named is not to be left out.
    let full = alone.contains('#') || std::env::var("NORN_CRASH").is_ok_and(|value| value == "full");
    let calm = changes.iter().map(|change| Case { change: &**change, strikes: Vec::new() });
    let calm = at_once(calm.filter(leads).collect(), jobs, |case| {
        let (expected, points) = case.undisturbed();
        Calm { case, expected, points }
    });
    let each = |calm: &Calm<'_>| calm.case.to_string();
    let once = calm.iter().flat_map(|calm| calm.once(choice, full).into_iter().map(move |case| (calm, case)));
    let once = run(once.filter(|(_, case)| wanted(case)).collect(), jobs);
    calm.iter().for_each(|calm| table.add(&each(calm), "struck once", calm.points.len(), &once));

    // The run that recovers is killed while it does.
    let Some(step) = (if full { Some(1) } else { choice.twice }) else { return table };
    let firsts = calm.iter().flat_map(|calm| {
        let firsts = calm.points.iter().filter(|point| !point.name.starts_with(RENEWAL)).step_by(step);
        firsts.map(move |point| (calm, calm.one(point, "kill")))
    });
    let again = at_once(firsts.filter(|(_, first)| leads(first)).collect(), jobs, |(calm, first)| {
        let points = first.recovery().into_iter();
        let both = |point| {
            let second = Strike { point, fault: "kill".to_owned() };
            Case { strikes: first.strikes.iter().cloned().chain([second]).collect(), ..first.clone() }
        };
        points.map(|point| (calm, both(point))).collect::<Vec<_>>()
    });
    let again: Vec<_> = again.into_iter().flatten().collect();
    let points: Vec<usize> =
        calm.iter().map(|calm| again.iter().filter(|(of, _)| each(of) == each(calm)).count()).collect();
    let again = run(again.into_iter().filter(|(_, case)| wanted(case)).collect(), jobs);
    for (calm, points) in calm.iter().zip(points) {
        table.add(&each(calm), "killed again while recovering", points, &again);
    }
    table
}

/// Runs cases, each beside what its change makes undisturbed.
fn run<'a>(cases: Vec<(&Calm<'a>, Case<'a>)>, jobs: usize) -> Vec<Tried<'a>> {
    at_once(cases, jobs, |(calm, case)| {
        let outcome = case.run(&calm.expected);
        if let Some(wrong) = outcome.wrong(&case) {
            eprintln!("{wrong}");
        }
        (calm.case.to_string(), case, outcome)
    })
}

/// Does the work of each, some at once; what came of them is in their order.
fn at_once<T: Send, R: Send>(all: Vec<T>, jobs: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let queue = Mutex::new(all.into_iter().enumerate());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((at, one)) = next else { return };
                    let result = work(one);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
