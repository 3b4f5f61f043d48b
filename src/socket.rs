//! One connection, as its handler has it: read, write, and deadlines that hold.

use std::io::{self, Read, Write};
use std::mem::offset_of;
use std::net::Shutdown;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::addr::Addr;
use crate::connection::{Connection, Seen, State};
use crate::deadline::{Deadline, REARM, Timeouts, arm, is_early_enough, left};
use crate::farewell;
use crate::stream::Stream;
use crate::writer::{Answers, Writer};

/// What becomes of a message that is not complete when the server stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// Its rest is waited for, until its deadline or the drain's.
    Finish,
    /// The read says "end", and the handler makes do with what it has.
    Interrupt,
}

/// A connected socket to read from and write to, under deadlines.
///
/// A read returns bytes, or 0 at the end of the input, or an error: `TimedOut` with the name of the
/// [`Deadline`] when one has passed. Node's events are all there: `data`, `end`, `timeout`, `error`; and
/// `close` is the handler's return.
///
/// The kernel's own time-outs are no deadlines: they begin again at every byte, so that a client which
/// sends a byte a second never meets one. This type keeps the deadline, and lends the kernel what is left
/// of it.
///
/// ```
/// use socket_steps::addr::Addr;
/// use socket_steps::listener::Listener;
/// use socket_steps::stream::Stream;
/// use socket_steps::deadline::{Deadline, Timeouts};
/// use socket_steps::socket::Socket;
/// use std::io::{Read, Write};
/// use std::time::Duration;
///
/// let listener = Listener::bind(&Addr::resolve("127.0.0.1:0")?[0])?;
/// let silent_client = Stream::connect(listener.local_addr())?;
/// let (stream, peer) = listener.accept()?;
///
/// let timeouts = Timeouts { idle: Some(Duration::from_millis(20)), ..Timeouts::default() };
/// let mut socket = Socket::new(stream, peer, timeouts);
/// let error = socket.read(&mut [0; 100]).unwrap_err();
/// assert!(matches!(Deadline::of(&error), Some(Deadline::Idle(_))));
/// # Ok::<(), std::io::Error>(())
/// ```
// As in a `Connection`, what every message touches comes first, in one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Socket {
    connection: Arc<Connection>,
    idle_limit: Option<Duration>,
    /// What the kernel's time-out is set to now, so that it is not set again for nothing: a `setsockopt` for
    /// each message costs 7 %.
    armed_read: Option<Duration>,
    /// When the message that is being read began, and what a stop does to it.
    message: Option<(Instant, OnStop)>,
    message_limit: Option<Duration>,
    /// Once the server is stopping: how much of what had arrived by then is still to be read.
    last_call: Option<usize>,
    answers: Answers,
}

const _: () = assert!(offset_of!(Socket, message_limit) <= 64, "what every message touches is one line of the cache");

impl Socket {
    /// A socket of its own, outside any server.
    pub fn new(stream: Stream, peer: Addr, timeouts: Timeouts) -> Socket {
        Socket::on(Arc::new(Connection::new(0, stream, peer, Arc::default())), timeouts)
    }

    /// A socket on a connection that others can see.
    pub fn on(connection: Arc<Connection>, timeouts: Timeouts) -> Socket {
        let Timeouts { idle: idle_limit, message: message_limit, write } = timeouts;
        let answers = Answers::within(write);
        Socket { connection, idle_limit, message_limit, armed_read: None, answers, message: None, last_call: None }
    }

    /// What is known of this connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The other side's address.
    pub fn peer(&self) -> &Addr {
        self.connection.peer()
    }

    /// Another entrance to the writing side, for a thread of its own: a connection that is spoken to while it is
    /// silent has one thread that reads and one that writes. From now on only that one is to write, or what the
    /// two say gets mixed.
    ///
    /// Whoever writes keeps the connection from being idle, also when nobody is there any more to read it. So from now
    /// on the idle deadline is also the kernel's, for what it has sent and nobody has acknowledged.
    pub fn writer(&self) -> Writer {
        if let Some(limit) = self.idle_limit {
            // It fails only when the connection is gone already.
            let _ = self.connection.stream().give_up_unacknowledged_after(limit);
        }
        Writer::on(Arc::clone(&self.connection), self.answers.limit)
    }

    /// From now on, these deadlines count: the conversation has come to another part. For a
    /// [`writer`](Socket::writer) that was made before, nothing changes.
    pub fn set_timeouts(&mut self, timeouts: Timeouts) {
        let Timeouts { idle, message, write } = timeouts;
        (self.idle_limit, self.message_limit, self.answers.limit) = (idle, message, write);
    }

    /// A message has begun: from now on its deadline counts, not the idle one. Said again before
    /// [`end_message`](Socket::end_message), it changes nothing.
    pub fn begin_message(&mut self, on_stop: OnStop) {
        let (began, _) = self.message.unwrap_or_else(|| (Instant::now(), on_stop));
        self.message = Some((began, on_stop));
    }

    /// The message is complete: from the next read on, the idle deadline counts.
    pub fn end_message(&mut self) {
        self.message = None;
    }

    /// Whether the server is stopping and all that had arrived by then has been read: after the answer to
    /// the message in hand, it is time to go.
    pub fn is_after_last_call(&self) -> bool {
        self.last_call == Some(0)
    }

    /// Ends our half: the other side reads what we have written, then an end. Reading goes on.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the other side has reset the connection.
    pub fn end(&mut self) -> io::Result<()> {
        self.connection.stream().shutdown(Shutdown::Write)
    }

    /// Closes politely: ends our half, discards what still comes, and returns when the other side has ended
    /// its half too, or after [a second](farewell::PATIENCE).
    ///
    /// A server's handler need not call it: when it returns, the server does the same, on another thread.
    ///
    /// # Errors
    /// When the connection was reset: then what was written last may not have arrived.
    pub fn finish(self) -> io::Result<()> {
        let stream = self.connection.stream();
        if self.connection.was_woken() { farewell::say_goodbye_unheard(stream) } else { farewell::say_goodbye(stream) }
    }

    /// Ends with a reset: what the kernel has not sent yet is thrown away, and the other side sees an error.
    /// In a server's handler, the reset goes out when the handler returns. On a path there are no resets,
    /// only ends.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn abort(self) -> io::Result<()> {
        self.connection.note(Seen::Abort);
        self.connection.stream().reset_on_close()
    }

    /// Whether a stop ends what is being read now, rather than waiting for its rest.
    fn may_stop(&self) -> bool {
        !matches!(self.message, Some((_, OnStop::Finish)))
    }

    /// What is left of the deadline that counts now, for a read that began at `began`; `None` is just now.
    fn time_to_read(&self, began: Option<Instant>) -> Result<Option<Duration>, Deadline> {
        if let (Some((message_began, _)), Some(limit)) = (self.message, self.message_limit) {
            return left(limit, message_began.elapsed()).ok_or(Deadline::Message(limit)).map(Some);
        }
        let Some(limit) = self.idle_limit else { return Ok(None) };
        let silent_for = match began {
            // Another thread may be writing to this connection: that is not silence either.
            Some(began) => began.max(self.connection.last_spoken_to()).elapsed(),
            None => Duration::ZERO,
        };
        left(limit, silent_for).ok_or(Deadline::Idle(limit)).map(Some)
    }

    /// Lends the kernel what is left of the deadline that counts now, for a read that began at `began`; `None` is just now.
    fn arm(&mut self, began: Option<Instant>) -> io::Result<()> {
        let left = self.time_to_read(began)?;
        arm(&mut self.armed_read, left, |timeout| self.connection.stream().set_read_timeout(timeout))
    }

    /// Goes on with a read whose first attempt has brought nothing, or was not made: there is a message to wait for, or a stop,
    /// or a time-out to set.
    #[cold]
    fn read_on(&mut self, buffer: &mut [u8], first: Option<io::Result<usize>>) -> io::Result<usize> {
        let (mut result, mut began) = (first, None);
        loop {
            if let Some(Ok(count)) = result
                && count > 0
            {
                self.has_read(count);
                return Ok(count);
            }
            if let Some(nothing) = result
                && self.is_the_end(nothing, &mut began)?
            {
                return Ok(0);
            }
            if self.connection.is_stopping() {
                if self.may_stop() {
                    return self.read_what_arrived(buffer);
                }
                self.waiting_at_last_call()?;
            }
            self.arm(began)?;
            result = Some(self.connection.stream().read(buffer));
        }
    }

    /// Whether a read that has brought nothing means the end of the input; if not, it is to be tried again.
    fn is_the_end(&mut self, result: io::Result<usize>, began: &mut Option<Instant>) -> io::Result<bool> {
        match result {
            // Perhaps not the client's end, but the stop's wake-up.
            Ok(_) if self.may_stop() && self.connection.is_stopping() => Ok(false),
            // The wake-up reached us in the middle of a message whose first part came at the same
            // instant. The end that we read is our own; the client's bytes still come. A reading end that
            // is shut cannot be waited for, and its end cannot be told from the client's: so we look again
            // and again, but not for long.
            Ok(_) if self.connection.has_seen(Seen::ReadShut) && !self.connection.was_cut() => {
                thread::sleep(Duration::from_millis(5));
                Ok(began.get_or_insert_with(Instant::now).elapsed() > farewell::PATIENCE)
            }
            Ok(_) if self.connection.take(Seen::UnheardReset) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(_) if self.connection.take(Seen::UnheardSilence) => Err(Errno::TIMEDOUT.into()),
            Ok(_) => {
                self.has_read(0);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                began.get_or_insert_with(Instant::now);
                Ok(false)
            }
            // The kernel says so when its time-out has passed, and is believed.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let waited = self.armed_read.unwrap_or_default();
                began.get_or_insert_with(|| Instant::now().checked_sub(waited).unwrap_or_else(Instant::now));
                self.armed_read = REARM;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads what had arrived when the server began to stop, and nothing that comes later: a client that
    /// never pauses would keep the server from ever ending.
    fn read_what_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = self.waiting_at_last_call()?.min(buffer.len());
        if waiting == 0 {
            return Ok(0);
        }
        let mut stream = self.connection.stream();
        let count = stream.read(&mut buffer[..waiting])?;
        self.has_read(count);
        Ok(count)
    }

    /// What is left of the bytes that were there when the stop was first noticed.
    fn waiting_at_last_call(&mut self) -> io::Result<usize> {
        let waiting = match self.last_call {
            Some(waiting) => waiting,
            None => self.connection.stream().bytes_waiting()?,
        };
        self.last_call = Some(waiting);
        Ok(waiting)
    }

    fn has_read(&mut self, count: usize) {
        self.connection.has_read(count);
        // Before the server stops there is none, and no need to look at it.
        if self.connection.is_stopping()
            && let Some(waiting) = &mut self.last_call
        {
            *waiting = waiting.saturating_sub(count);
        }
    }
}

impl Read for Socket {
    /// Waits for bytes, until the deadline that counts: the message's once it has
    /// [begun](Socket::begin_message), else the idle one.
    ///
    /// While the server is stopping, a read between messages returns what has arrived already, then 0.
    // What nearly every read is, and no more, as a part of the loop that reads: the frame of a call would be two lines of the
    // processor's cache, which is 1 % of a message where a hundred connections are busy.
    #[inline(always)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // First the mark, then the look at the flag: see `wake_if_idle`.
        self.connection.set_state(if self.may_stop() { State::Idle } else { State::Active });
        let is_armed = self.message.is_none() && is_early_enough(self.armed_read, self.idle_limit);
        // No look at the clock: when the kernel's time-out fires, as much time has passed.
        let first = (is_armed && !self.connection.is_stopping()).then(|| self.connection.stream().read(buffer));
        match first {
            Some(Ok(count)) if count > 0 => {
                self.has_read(count);
                Ok(count)
            }
            first => self.read_on(buffer, first),
        }
    }
}

impl Write for Socket {
    /// Writes what the kernel takes at once, or waits for room until the write deadline.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answers.write(&self.connection, bytes)
    }

    /// Writes an answer as a whole under one deadline, as [`Writer`] does.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.answers.write_all(&self.connection, bytes)
    }

    /// Nothing to do: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Socket {
    /// The handler has done with the connection: a stop need not wake anyone in it, and may not shut what is
    /// still being closed politely.
    fn drop(&mut self) {
        self.connection.set_state(State::Active);
        self.connection.note(Seen::Released);
    }
}
