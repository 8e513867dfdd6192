//! Why a roll failed or was refused, in words.

use std::fmt;

use super::protocol::{Failure, FailureReason, Refusal};

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if let Some(probe) = &self.probe {
            write!(f, "; the last probe: {probe}")?;
        }
        if !self.listens.is_empty() {
            let addresses: Vec<String> = self.listens.iter().map(ToString::to_string).collect();
            let addresses = addresses.join(", ");
            write!(
                f,
                "; it listens on {addresses} instead of 127.0.0.1 and $PORT: let it listen on $PORT, or set \
                 `front: false` and `port` to where it listens"
            )?;
        }
        match self.restored {
            None => Ok(()),
            Some(true) => write!(f, "; the release before it serves again"),
            Some(false) => write!(f, "; the release before it was started again and is not healthy"),
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverHealthy { replica, waited } => {
                write!(f, "replica {replica} was not healthy within {:.1} s", waited.as_secs_f64())
            }
            Self::Exited { replica, status, times } => {
                write!(f, "replica {replica} {status}, {times} times in a row, before it was healthy")
            }
            Self::NotStarted { replica, error } => {
                write!(f, "replica {replica} could not be started: {error}")
            }
            Self::PortUnavailable { port, error, holder: Some(holder) } => {
                write!(f, "port {port} cannot be opened: {error} by {holder}")
            }
            Self::PortUnavailable { port, error, holder: None } => {
                write!(f, "port {port} cannot be opened: {error}")
            }
            Self::Abandoned => f.write_str("the roll was given up before traffic moved"),
            Self::NotHandedOver { error } => {
                write!(f, "the supervisor that runs did not hand over: {error}")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol { speaks } => {
                write!(f, "the supervisor speaks protocol {speaks}: use the norn that started it to stop it")
            }
            Self::Fenced { seen } => {
                write!(f, "a newer lease (token {seen}) has given orders already: plan again")
            }
            Self::Busy { key } => write!(f, "another order ({key}) is under way: wait until it is done"),
            Self::Malformed { error } => write!(f, "the supervisor does not understand the order: {error}"),
        }
    }
}
