//! Lines of JSON over a Unix socket, and the descriptors that may come with them.
//!
//! Invariant: a line is at most [`LINE_LIMIT`] bytes; nobody makes a reader keep more.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The most bytes a line may have, its end included.
pub const LINE_LIMIT: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("a line has at most {LINE_LIMIT} bytes")]
    TooLong,
    /// The parser's own text may quote a value, so only the place is told.
    #[error("the line is not what the protocol expects, at column {column}")]
    Json { column: usize },
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
    unread: Vec<u8>,
    /// How far `unread` was searched for a line's end.
    searched: usize,
    descriptor: Option<OwnedFd>,
}

impl Channel {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, unread: Vec::new(), searched: 0, descriptor: None }
    }

    /// The next line without its end; `None` when the other side has closed. Safe to cancel.
    pub async fn line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        loop {
            if let Some(at) = self.unread[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.unread, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.unread.len();
            if self.unread.len() >= LINE_LIMIT {
                return Err(WireError::TooLong);
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next line as a value; `None` when the other side has closed. Safe to cancel.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        self.line().await?.map(|line| parse(&line)).transpose()
    }

    /// The descriptor that came with the lines read so far.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptor.take()
    }

    /// Returns when the other side has closed; what it still says is thrown away.
    pub async fn closed(&mut self) {
        while matches!(self.fill().await, Ok(1..)) {
            self.unread.clear();
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write)?)
    }

    pub async fn send<T: Serialize>(&self, value: &T) -> io::Result<()> {
        self.send_with(value, None).await
    }

    /// Sends a line, and the descriptor with its first byte.
    pub async fn send_with<T: Serialize>(
        &self,
        value: &T,
        mut descriptor: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            let sent = self.stream.async_io(Interest::WRITABLE, || self.send_some(rest, descriptor)).await?;
            rest = &rest[sent..];
            descriptor = None;
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = descriptor.map(|fd| [fd]);
        if let Some(descriptors) = &descriptors {
            let fits = control.push(SendAncillaryMessage::ScmRights(descriptors));
            assert!(fits, "the space is that of one descriptor");
        }
        Ok(sendmsg(self.stream.as_fd(), &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let Self { stream, unread, descriptor, .. } = self;
        stream.async_io(Interest::READABLE, || receive_some(stream, unread, descriptor)).await
    }
}

/// Reads one line's value.
pub fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(line).map_err(|error| WireError::Json { column: error.column() })
}

fn receive_some(
    stream: &UnixStream,
    unread: &mut Vec<u8>,
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<usize> {
    let mut bytes = [0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            *descriptor = descriptors.last().or(descriptor.take());
        }
    }
    unread.extend_from_slice(&bytes[..got.bytes]);
    Ok(got.bytes)
}
