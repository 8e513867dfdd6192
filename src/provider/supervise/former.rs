//! An app that was renamed goes on where its former name runs, until its own supervisor has taken
//! over from that one.
//!
//! Invariant: the word of a former name is written before the state knows the new one, and removed
//! after nothing runs under the former; a crash between the two leaves something to go on from.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::client::{Home, Observation, RollError};
use super::place::{Seat, private_folder};
use super::protocol::Report;
use crate::failpoint;
use crate::spec::name::AppName;

impl Home {
    /// Remembers that `app` was called `former` until now. Again is fine.
    ///
    /// # Errors
    /// Where the run folder cannot be written.
    pub fn succeed(&self, app: &AppName, former: &AppName) -> io::Result<()> {
        // Renamed twice, before the first new name ever ran.
        let origin = self.former(former).unwrap_or_else(|| former.clone());
        private_folder(&self.run)?;
        let temporary = self.word(app).with_extension("was.new");
        fs::write(&temporary, origin.as_str())?;
        failpoint::before("remember the former name", &self.word(app))?;
        fs::rename(temporary, self.word(app))?;
        failpoint::after("remember the former name", &self.word(app))
    }

    /// The former name of an app, while something may run under it.
    pub fn former(&self, app: &AppName) -> Option<AppName> {
        fs::read_to_string(self.word(app)).ok()?.parse().ok()
    }

    /// What supervises the app; changes nothing. Takes at most some 10 s. What runs under a former
    /// name counts as under no definition: it is not yet as it should be.
    pub async fn observe(&self, app: &AppName) -> Observation {
        let (seen, _) = self.look(app).await;
        let Some(former) = self.former(app).filter(|_| seen == Observation::Absent) else { return seen };
        match self.look(&former).await.0 {
            Observation::Running(mut status) => {
                status.definition = None;
                Observation::Running(status)
            }
            other => other,
        }
    }

    /// Ends a rename whose order was not heard to its end: once the app has a supervisor of its own,
    /// nothing is left under the former name, and that name is forgotten.
    ///
    /// # Errors
    /// [`RollError::Refused`] while the former supervisor still drains.
    pub async fn finish_rename(&self, app: &AppName, fence: u64) -> Result<(), RollError> {
        if self.former(app).is_none() {
            return Ok(());
        }
        match self.look(app).await.0 {
            Observation::Running(_) => self.leave_former(app, fence, |_| {}).await,
            Observation::Absent
            | Observation::Unsupervised { .. }
            | Observation::Rebooted
            | Observation::OtherMachine { .. }
            | Observation::Silent { .. } => Ok(()),
        }
    }

    /// Makes way for a first supervisor of `app`; returns the former name that one has to relieve.
    pub(super) async fn make_way(&self, app: &AppName, fence: u64) -> Result<Option<AppName>, RollError> {
        let not_started = |why: String| RollError::NotStarted { app: app.clone(), why };
        let Some(former) = self.former(app) else { return Ok(None) };
        let (seen, record) = self.look(&former).await;
        let place = match self.place(&former, false) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(not_started(self.unusable(&error))),
        };
        self.sweep_successor(&former, &place, fence).await?;
        match seen {
            Observation::Running(_) => return Ok(Some(former)),
            Observation::Absent | Observation::Rebooted => {}
            Observation::Unsupervised { .. } => {
                let recorded = record.map(|record| record.replicas).unwrap_or_default();
                self.sweep(&former, &place, &recorded).await?;
            }
            Observation::OtherMachine { who } => return Err(self.other_machine(&former, &place, who)),
            Observation::Silent { why } => return Err(not_started(why)),
        }
        place.clear(Seat::Office).map_err(|error| not_started(self.unusable(&error)))?;
        Ok(None)
    }

    /// Ends what may be left under the former name, and forgets that name.
    pub(super) async fn leave_former(
        &self,
        app: &AppName,
        fence: u64,
        on_report: impl FnMut(Report),
    ) -> Result<(), RollError> {
        let Some(former) = self.former(app) else { return Ok(()) };
        self.stop_own(&former, fence, on_report).await?;
        let forget = || {
            failpoint::before("forget the former name", &self.word(app))?;
            fs::remove_file(self.word(app))?;
            failpoint::after("forget the former name", &self.word(app))
        };
        forget().map_err(|error| RollError::NotStarted { app: app.clone(), why: self.unusable(&error) })
    }

    fn word(&self, app: &AppName) -> PathBuf {
        self.run.join(format!("{app}.was"))
    }
}
