//! The writing side of a connection, under a deadline for the whole of what is written.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Seen};
use crate::deadline::{Deadline, REARM, arm, left};

/// Writes to a connection, from whichever thread: a [`Socket`](crate::socket::Socket) writes through one, and a
/// thread that [only writes](crate::socket::Socket::writer) has one of its own.
#[derive(Debug)]
pub struct Writer {
    connection: Arc<Connection>,
    /// For an answer as a whole, until the kernel has taken all of it.
    limit: Option<Duration>,
    /// What the kernel's time-out is set to now, so that it is not set again for nothing.
    armed: Option<Duration>,
}

impl Writer {
    /// Gives each answer `limit` to be taken; `None` is for ever.
    pub(crate) fn on(connection: Arc<Connection>, limit: Option<Duration>) -> Writer {
        Writer { connection, limit, armed: None }
    }

    pub(crate) fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// Writes once, within what is left of an answer that began at `began`.
    fn write_once(&mut self, bytes: &[u8], began: Instant, first: bool) -> io::Result<usize> {
        self.write_in_time(bytes, began, first).inspect_err(|error| {
            if Deadline::of(error).is_some() || self.connection.was_cut() {
                self.connection.note(Seen::HalfAnswer);
            }
        })
    }

    fn write_in_time(&mut self, bytes: &[u8], began: Instant, first: bool) -> io::Result<usize> {
        let mut elapsed = if first { Duration::ZERO } else { began.elapsed() };
        let connection = &*self.connection;
        loop {
            let left = match self.limit {
                Some(limit) => Some(left(limit, elapsed).ok_or(Deadline::Write(limit))?),
                None => None,
            };
            arm(&mut self.armed, left, |timeout| connection.stream().set_write_timeout(timeout))?;
            match connection.stream().write(bytes) {
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    connection.has_written(count, began + elapsed);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.armed = REARM,
                Err(error) => {
                    // The kernel reports a reset once, to whoever reads or writes next, and a clean end after
                    // that. The reader must not take it for the client's end. (A broken pipe says nothing of the
                    // input: our own half has ended, or the reset is known already.)
                    match error.kind() {
                        io::ErrorKind::BrokenPipe => {}
                        io::ErrorKind::TimedOut => connection.note(Seen::UnheardSilence),
                        _ => connection.note(Seen::UnheardReset),
                    }
                    return Err(error);
                }
            }
            elapsed = began.elapsed();
        }
    }
}

impl Write for Writer {
    /// Writes what the kernel takes at once, or waits for room until the write deadline.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_once(bytes, Instant::now(), true)
    }

    /// Writes an answer as a whole under one deadline, however slowly the other side takes it. After an
    /// error nobody knows how much has arrived: the only thing left to do is to end the connection.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        let mut first = true;
        while !bytes.is_empty() {
            let count = self.write_once(bytes, began, first)?;
            bytes = &bytes[count..];
            first = false;
        }
        Ok(())
    }

    /// Nothing to do: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
