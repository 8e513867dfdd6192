//! What went wrong inside the store, before it is told what was being done and where.

use std::io;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::connect::{ConnectError, words};
use crate::state::StoreError;
use crate::state::row::Unreadable;

#[derive(Debug)]
pub enum Failure {
    Connect(ConnectError),
    Sql(tokio_postgres::Error),
    /// No answer came in that time.
    Slow(Duration),
    /// Something that is there, or is missing, makes the work impossible.
    Data(String),
    /// Already in the words of the store's user.
    Store(StoreError),
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Failure::Connect(error)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        Failure::Sql(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Data(error.to_string())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Store(error)
    }
}

impl From<Unreadable> for Failure {
    fn from(Unreadable(why): Unreadable) -> Self {
        Failure::Data(why)
    }
}

impl Failure {
    pub fn at(self, place: &str, doing: &'static str) -> StoreError {
        let place = place.to_owned();
        let error = match self {
            Failure::Store(error) => return error,
            Failure::Connect(error) => {
                return StoreError::Unreachable { place, why: error.to_string() };
            }
            Failure::Data(why) => return StoreError::Broken { place, doing, why },
            Failure::Slow(time) => {
                let why = format!("the server did not answer within {} s", time.as_secs());
                return StoreError::Broken { place, doing, why };
            }
            Failure::Sql(error) => error,
        };
        let why = words(&error);
        match error.code() {
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => StoreError::ReadOnly {
                place,
                why: "the server is a read-only replica".into(),
                mend: "name the primary server",
            },
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) => StoreError::ReadOnly {
                place,
                why,
                mend: "give this role the right to create and write tables there",
            },
            Some(&SqlState::DISK_FULL) => StoreError::Full { place },
            _ => StoreError::Broken { place, doing, why },
        }
    }
}
