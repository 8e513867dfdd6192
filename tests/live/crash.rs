//! norn struck at every boundary in every way, and applied again, on every kind of store.
//!
//! Here: which changes there are. Elsewhere: the cases of one (`tests/support/matrix`); in the submodules
//! the projects that are changed (`scenario`), what one looks like (`world`).

mod scenario;
mod world;

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use self::scenario::Scenario;
use self::world::{Kind, Lent};
use crate::matrix::case::equip;
use crate::matrix::table::Table;
use crate::matrix::world::World;
use crate::matrix::{Change, Choice, Stage, strike};
use crate::support::Sandbox;

#[test]
fn struck_at_every_boundary_norn_goes_on_as_if_nothing_had_happened() {
    let mut table = Table::default();
    for kind in world::KINDS.iter().filter(|kind| (kind.there)()) {
        let not = if kind.connected { None } else { Some("cut") };
        let choice =
            Choice { chosen: |_| true, others: 1, faults: 1, late: 4, twice: Some(17), not, jobs: 6 };
        let changes = scenario::all().iter();
        let changes = changes.map(|scenario| Box::new(Stored { kind, scenario }) as Box<dyn Change>);
        table.merge(strike(&changes.collect::<Vec<_>>(), choice));
    }
    table.conclude("crash-matrix.md");
}

/// A change of a project whose state is in a kind of store.
struct Stored {
    kind: &'static Kind,
    scenario: &'static Scenario,
}

impl Change for Stored {
    fn name(&self) -> String {
        format!("{} | {}", self.kind.name, self.scenario.name)
    }

    fn stage(&self) -> Box<dyn Stage + '_> {
        Box::new(Project::new(self))
    }

    fn heartbeat(&self) -> u32 {
        20
    }
}

/// A project about to be changed.
struct Project {
    sandbox: Sandbox,
    _database: Option<Lent>,
    port: u16,
    kind: &'static Kind,
    /// What makes the change, where it is no apply.
    command: Option<String>,
}

impl Project {
    fn new(change: &Stored) -> Self {
        let Stored { kind, scenario } = change;
        let mut sandbox = Sandbox::new();
        equip(&mut sandbox);
        let database = (kind.database)();
        let url = database.as_ref().map(|database| (world::VARIABLE.to_owned(), database.url()));
        sandbox.env.extend(url);
        // A commit's name tells when it was made.
        for date in ["GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"] {
            sandbox.env.insert(date.to_owned(), "2026-01-01T00:00:00Z".to_owned());
        }
        let mut project = Self { sandbox, _database: database, port: own_port(), kind, command: None };
        if let Some(before) = scenario.before {
            scenario::write(&project.sandbox, before, project.port);
            project.sandbox.ok("apply --yes");
        }
        // There is one release yet.
        let folder = |app: &str| project.sandbox.names(&format!(".norn/releases/{app}"), "").remove(0);
        let back = scenario.back.map(|app| (app, folder(app)));
        scenario::write(&project.sandbox, scenario.after, project.port);
        if let Some((app, release)) = back {
            project.sandbox.ok("apply --yes");
            project.command = Some(format!("rollback {app} --to {release} --yes"));
        }
        if scenario.copies {
            fs::remove_dir_all(project.sandbox.path(".norn/bin")).expect("supervisors run from there");
        }
        project
    }
}

impl Stage for Project {
    fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    fn project(&self) -> &str {
        "shop"
    }

    fn command(&self) -> Option<&str> {
        self.command.as_deref()
    }

    fn look(&self) -> World {
        world::look(self.kind, &self.sandbox, self.port)
    }
}

/// A port that no other case has. It is above those of outgoing connections, and supervisors take
/// theirs from below.
fn own_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 61_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 4_500;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
