//! The writing side of a connection, under a deadline for the whole of what is written.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::connection::{Connection, Seen};
use crate::deadline::{Deadline, REARM, arm, left};
use crate::stream::Stream;

/// How much is written to a path at once while its reader is slow: see `write_later`.
const BLOCK: usize = 32 * 1024;

/// Writes to a connection from a thread of its own: see [`Socket::writer`](crate::socket::Socket::writer).
#[derive(Debug)]
pub struct Writer {
    connection: Arc<Connection>,
    answers: Answers,
}

impl Writer {
    /// Gives each answer `limit` to be taken; `None` is for ever.
    pub(crate) fn on(connection: Arc<Connection>, limit: Option<Duration>) -> Writer {
        Writer { connection, answers: Answers::within(limit) }
    }
}

impl Write for Writer {
    /// Writes what the kernel takes at once, or waits for room until the write deadline.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.answers.write(&self.connection, bytes)?;
        self.connection.was_spoken_to();
        Ok(count)
    }

    /// Writes an answer as a whole under one deadline, however slowly the other side takes it. After an
    /// error nobody knows how much has arrived: the only thing left to do is to end the connection.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answers.write_all(&self.connection, bytes)?;
        if !bytes.is_empty() {
            self.connection.was_spoken_to();
        }
        Ok(())
    }

    /// Nothing to do: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How answers are written to a connection, by its [`Socket`](crate::socket::Socket) or a [`Writer`].
#[derive(Debug)]
pub(crate) struct Answers {
    /// For an answer as a whole, until the kernel has taken all of it.
    pub(crate) limit: Option<Duration>,
    /// What the kernel's time-out is set to now, so that it is not set again for nothing.
    armed: Option<Duration>,
}

impl Answers {
    /// Gives each answer `limit` to be taken; `None` is for ever.
    pub(crate) fn within(limit: Option<Duration>) -> Answers {
        Answers { limit, armed: None }
    }

    /// Writes what the kernel takes at once, or waits for room until the deadline.
    pub(crate) fn write(&mut self, connection: &Connection, bytes: &[u8]) -> io::Result<usize> {
        let count = at_once(connection, bytes)?;
        if count > 0 || bytes.is_empty() { Ok(count) } else { self.write_later(connection, bytes, Instant::now()) }
    }

    /// Writes an answer as a whole under one deadline.
    pub(crate) fn write_all(&mut self, connection: &Connection, bytes: &[u8]) -> io::Result<()> {
        let count = at_once(connection, bytes)?;
        if count < bytes.len() { self.write_rest(connection, &bytes[count..]) } else { Ok(()) }
    }

    /// Writes what the kernel had no room for at once. The answer's time begins here: until now, nothing was waited for.
    #[cold]
    fn write_rest(&mut self, connection: &Connection, mut bytes: &[u8]) -> io::Result<()> {
        let began = Instant::now();
        while !bytes.is_empty() {
            let count = self.write_later(connection, bytes, began)?;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Waits for room, within what is left of an answer that began at `began`.
    fn write_later(&mut self, connection: &Connection, bytes: &[u8], began: Instant) -> io::Result<usize> {
        // On a path, Linux begins its time-out again with each block that it cuts a write into. These are as large.
        let bytes = match connection.stream() {
            Stream::Tcp(_) => bytes,
            Stream::Unix(_) => &bytes[..bytes.len().min(BLOCK)],
        };
        loop {
            self.arm(connection.stream(), began).inspect_err(|_| connection.note(Seen::HalfAnswer))?;
            let count = taken(connection, connection.stream().write(bytes))?;
            if count > 0 {
                return Ok(count);
            }
            self.armed = REARM;
        }
    }

    /// Lends the kernel what is left of the deadline.
    fn arm(&mut self, stream: &Stream, began: Instant) -> io::Result<()> {
        let left = match self.limit {
            Some(limit) => Some(left(limit, began.elapsed()).ok_or(Deadline::Write(limit))?),
            None => None,
        };
        arm(&mut self.armed, left, |timeout| stream.set_write_timeout(timeout))
    }
}

/// Writes what the kernel takes at once. For nearly every answer that is all of it: no clock is looked at, no time-out
/// set.
fn at_once(connection: &Connection, bytes: &[u8]) -> io::Result<usize> {
    // Not on Linux, a `send` may wait all the same (macOS does not look at the flag), and without a time-out for ever.
    // And of nothing at all the kernel might say that the connection is gone.
    if cfg!(not(target_os = "linux")) || bytes.is_empty() {
        return Ok(0);
    }
    taken(connection, connection.stream().write_at_once(bytes))
}

/// How much the kernel has taken; 0 when it had no room, or was interrupted.
fn taken(connection: &Connection, result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Ok(count) => {
            connection.has_written(count);
            Ok(count)
        }
        Err(error) => is_to_be_tried_again(connection, error).map(|()| 0),
    }
}

/// Whether an error says no more than that: then it is none.
#[cold]
fn is_to_be_tried_again(connection: &Connection, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => return Ok(()),
        // The kernel reports a reset once, to whoever reads or writes next, and a clean end after that. The
        // reader must not take it for the client's end. (A broken pipe says nothing of the input: our own
        // half has ended, or the reset is known already.)
        io::ErrorKind::BrokenPipe => {}
        io::ErrorKind::TimedOut => connection.note(Seen::UnheardSilence),
        _ => connection.note(Seen::UnheardReset),
    }
    if connection.was_cut() {
        connection.note(Seen::HalfAnswer);
    }
    Err(error)
}
