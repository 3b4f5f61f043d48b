//! One connection: read, write, and deadlines that hold.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::farewell;
use crate::listener::{Addr, Stream};

/// How long a connection may take for what. `None` is for ever.
///
/// ```
/// use socket_steps::socket::Timeouts;
/// use std::time::Duration;
///
/// let patient = Timeouts { idle: Some(Duration::from_secs(300)), ..Timeouts::default() };
/// assert_eq!(patient.message, Some(Duration::from_secs(10)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Without a byte in either direction, between two messages.
    pub idle: Option<Duration>,
    /// From the first byte of a message to its last.
    pub message: Option<Duration>,
    /// For an answer as a whole, until the kernel has taken all of it.
    pub write: Option<Duration>,
}

impl Timeouts {
    /// No deadline at all: for a client that waits for a person.
    pub const NONE: Timeouts = Timeouts { idle: None, message: None, write: None };
}

impl Default for Timeouts {
    /// 30 s of silence, 10 s for a message, 10 s for an answer.
    fn default() -> Timeouts {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        Timeouts { idle: seconds(30), message: seconds(10), write: seconds(10) }
    }
}

/// The deadline that has passed: what a [`TimedOut`](io::ErrorKind::TimedOut) error of a [`Socket`] holds.
///
/// ```
/// use socket_steps::socket::Deadline;
/// use std::{io, time::Duration};
///
/// let error = io::Error::from(Deadline::Idle(Duration::from_secs(30)));
/// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
/// assert_eq!(error.to_string(), "silent for 30s");
/// assert!(matches!(Deadline::of(&error), Some(Deadline::Idle(_))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// Nothing was read or written for this long.
    Idle(Duration),
    /// A message that had begun was not complete after this long.
    Message(Duration),
    /// An answer could not be written in this long, because the other side does not read.
    Write(Duration),
}

impl Deadline {
    /// The deadline in an error, if one is in it.
    pub fn of(error: &io::Error) -> Option<Deadline> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deadline::Idle(limit) => write!(f, "silent for {limit:?}"),
            Deadline::Message(limit) => write!(f, "a message took longer than {limit:?}"),
            Deadline::Write(limit) => write!(f, "an answer was not taken within {limit:?}"),
        }
    }
}

impl std::error::Error for Deadline {}

impl From<Deadline> for io::Error {
    fn from(deadline: Deadline) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, deadline)
    }
}

/// What a connection is doing, as seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waiting for the next message: may be ended at any time.
    Idle,
    /// In the middle of a message or an answer: to be finished first.
    Active,
}

/// What the threads of a program share of one connection: the stream, and what is known of it.
///
/// The handler's [`Socket`] reads and writes; the server's registry lists connections, counts their bytes,
/// and wakes them when it stops.
#[derive(Debug)]
pub struct Connection {
    id: u64,
    peer: Addr,
    stream: Arc<Stream>,
    opened: Instant,
    stopping: Arc<AtomicBool>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// When something was last written, in nanoseconds after `opened`.
    last_write: AtomicU64,
    state: AtomicU8,
    /// Bits of [`Seen`].
    seen: AtomicU8,
}

/// What has happened to a connection so far, for whoever asks why it ended.
enum Seen {
    /// The other side has ended its half.
    PeerEnd = 1,
    /// A blocked read was woken with `shutdown(Read)`.
    ReadShut = 2,
    /// Both directions were shut down at the drain deadline.
    Cut = 4,
    /// It is to end with a reset.
    Abort = 8,
    /// It was reset, and only a writer was told.
    UnheardReset = 16,
    /// The handler has let go of its socket.
    Released = 32,
}

const IDLE: u8 = 0;
const ACTIVE: u8 = 1;

impl Connection {
    /// A connection under this number. When `stopping` becomes true, its socket's reads end it as soon as
    /// what has arrived is answered.
    pub fn new(id: u64, stream: Stream, peer: Addr, stopping: Arc<AtomicBool>) -> Connection {
        Connection {
            id,
            peer,
            stream: Arc::new(stream),
            opened: Instant::now(),
            stopping,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            // Active until the handler waits for the first time: what it may say first is not cut off.
            state: AtomicU8::new(ACTIVE),
            seen: AtomicU8::new(0),
        }
    }

    /// Its number: unique within a server, in the order of accepting.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The other side's address.
    pub fn peer(&self) -> &Addr {
        &self.peer
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Bytes that reads have returned.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes that the kernel has taken from writes.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// What it is doing now.
    pub fn state(&self) -> State {
        if self.state.load(Ordering::SeqCst) == IDLE { State::Idle } else { State::Active }
    }

    /// The stream below, shared.
    pub fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// Whether the other side has ended its half, and a read has said so.
    pub fn peer_has_ended(&self) -> bool {
        self.has_seen(Seen::PeerEnd)
    }

    /// Whether [`cut`](Connection::cut) was called.
    pub fn was_cut(&self) -> bool {
        self.has_seen(Seen::Cut)
    }

    /// Whether [`Socket::abort`] was called.
    pub fn was_aborted(&self) -> bool {
        self.has_seen(Seen::Abort)
    }

    /// Whether [`wake_if_idle`](Connection::wake_if_idle) has shut the reading end.
    pub(crate) fn was_woken(&self) -> bool {
        self.has_seen(Seen::ReadShut)
    }

    /// Whether its [`Socket`] is no more.
    pub(crate) fn is_released(&self) -> bool {
        self.has_seen(Seen::Released)
    }

    /// Wakes the thread that waits for this connection's next message, and only that one: a message that
    /// has begun goes on.
    ///
    /// Set the stop flag first. The reader marks itself idle and then looks at the flag; this looks at the
    /// mark after the flag is set. Whichever comes second sees the other, so no reader sleeps through it.
    pub fn wake_if_idle(&self) {
        if self.state.load(Ordering::SeqCst) == IDLE {
            self.note(Seen::ReadShut);
            let _ = self.stream.shutdown(Shutdown::Read); // Already gone is as good.
        }
    }

    /// Ends both directions at once: every blocked read and write of this connection returns.
    pub fn cut(&self) {
        self.note(Seen::Cut);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether the server is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn note(&self, what: Seen) {
        self.seen.fetch_or(what as u8, Ordering::SeqCst);
    }

    fn has_seen(&self, what: Seen) -> bool {
        self.seen.load(Ordering::SeqCst) & what as u8 != 0
    }

    /// As [`has_seen`](Connection::has_seen), and forgets it.
    fn take(&self, what: Seen) -> bool {
        let what = what as u8;
        self.seen.fetch_and(!what, Ordering::SeqCst) & what != 0
    }
}

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
/// use socket_steps::listener::{Addr, Listener, Stream};
/// use socket_steps::socket::{Deadline, Socket, Timeouts};
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
#[derive(Debug)]
pub struct Socket {
    connection: Arc<Connection>,
    timeouts: Timeouts,
    /// What the kernel's time-outs are set to now, so that they are not set again for nothing: a
    /// `setsockopt` for each message costs 7 %.
    armed_read: Option<Duration>,
    armed_write: Option<Duration>,
    /// When the message that is being read began, and what a stop does to it.
    message: Option<(Instant, OnStop)>,
    /// Once the server is stopping: how much of what had arrived by then is still to be read.
    last_call: Option<usize>,
}

/// In place of a time-out that is not worth keeping: longer than any, so that the next one replaces it.
const REARM: Option<Duration> = Some(Duration::MAX);

impl Socket {
    /// A socket of its own, outside any server.
    pub fn new(stream: Stream, peer: Addr, timeouts: Timeouts) -> Socket {
        Socket::on(Arc::new(Connection::new(0, stream, peer, Arc::default())), timeouts)
    }

    /// A socket on a connection that others can see.
    pub fn on(connection: Arc<Connection>, timeouts: Timeouts) -> Socket {
        Socket { connection, timeouts, armed_read: None, armed_write: None, message: None, last_call: None }
    }

    /// What is known of this connection.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The other side's address.
    pub fn peer(&self) -> &Addr {
        self.connection.peer()
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
        self.connection.stream.shutdown(Shutdown::Write)
    }

    /// Closes politely: ends our half, discards what still comes, and returns when the other side has ended
    /// its half too, or after [a second](farewell::PATIENCE).
    ///
    /// A server's handler need not call it: when it returns, the server does the same, on another thread.
    ///
    /// # Errors
    /// When the connection was reset: then what was written last may not have arrived.
    pub fn finish(self) -> io::Result<()> {
        let stream = &self.connection.stream;
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
        self.connection.stream.reset_on_close()
    }

    /// The deadline that counts for a read that began at `began`, and how much is left of it.
    fn time_to_read(&self, began: Instant) -> Result<Option<Duration>, Deadline> {
        if let (Some((message_began, _)), Some(limit)) = (self.message, self.timeouts.message) {
            return left(limit, message_began.elapsed()).ok_or(Deadline::Message(limit)).map(Some);
        }
        let Some(limit) = self.timeouts.idle else { return Ok(None) };
        // Another thread may be writing to this connection: that is not silence either.
        let written = Duration::from_nanos(self.connection.last_write.load(Ordering::Relaxed));
        let silent_since = began.max(self.connection.opened + written);
        left(limit, silent_since.elapsed()).ok_or(Deadline::Idle(limit)).map(Some)
    }

    /// Reads what had arrived when the server began to stop, and nothing that comes later: a client that
    /// never pauses would keep the server from ever ending.
    fn read_what_arrived(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = self.waiting_at_last_call()?.min(buffer.len());
        if waiting == 0 {
            return Ok(0);
        }
        let mut stream = &*self.connection.stream;
        let count = stream.read(&mut buffer[..waiting])?;
        self.has_read(count);
        Ok(count)
    }

    /// What is left of the bytes that were there when the stop was first noticed.
    fn waiting_at_last_call(&mut self) -> io::Result<usize> {
        let waiting = match self.last_call {
            Some(waiting) => waiting,
            None => self.connection.stream.bytes_waiting()?,
        };
        self.last_call = Some(waiting);
        Ok(waiting)
    }

    fn has_read(&mut self, count: usize) {
        let connection = &self.connection;
        connection.state.store(ACTIVE, Ordering::SeqCst);
        connection.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        log::trace!("#{} has sent {count} bytes", connection.id);
        if count == 0 {
            connection.note(Seen::PeerEnd);
        }
        if let Some(waiting) = &mut self.last_call {
            *waiting = waiting.saturating_sub(count);
        }
    }

    /// Writes once, within what is left of an answer that began at `began`.
    fn write_once(&mut self, bytes: &[u8], began: Instant, first: bool) -> io::Result<usize> {
        let mut elapsed = if first { Duration::ZERO } else { began.elapsed() };
        let connection = &*self.connection;
        loop {
            let left = match self.timeouts.write {
                Some(limit) => Some(left(limit, elapsed).ok_or(Deadline::Write(limit))?),
                None => None,
            };
            arm(&mut self.armed_write, left, |timeout| connection.stream.set_write_timeout(timeout))?;
            match (&*connection.stream).write(bytes) {
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let when = (began + elapsed).saturating_duration_since(connection.opened);
                    connection.last_write.store(when.as_nanos() as u64, Ordering::Relaxed);
                    connection.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
                    log::trace!("#{} was sent {count} bytes", connection.id);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.armed_write = REARM,
                Err(error) => {
                    // The kernel reports a reset once, to whoever reads or writes next, and a clean end after
                    // that. The reader must not take it for the client's end. (A broken pipe says nothing of the
                    // input: our own half has ended, or the reset is known already.)
                    if error.kind() != io::ErrorKind::BrokenPipe {
                        connection.note(Seen::UnheardReset);
                    }
                    return Err(error);
                }
            }
            elapsed = began.elapsed();
        }
    }
}

impl Read for Socket {
    /// Waits for bytes, until the deadline that counts: the message's once it has
    /// [begun](Socket::begin_message), else the idle one.
    ///
    /// While the server is stopping, a read between messages returns what has arrived already, then 0.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let may_stop = !matches!(self.message, Some((_, OnStop::Finish)));
        let began = Instant::now();
        // First the mark, then the look at the flag: see `wake_if_idle`.
        self.connection.state.store(if may_stop { IDLE } else { ACTIVE }, Ordering::SeqCst);
        loop {
            if self.connection.is_stopping() {
                if may_stop {
                    return self.read_what_arrived(buffer);
                }
                self.waiting_at_last_call()?;
            }
            let left = self.time_to_read(began)?;
            arm(&mut self.armed_read, left, |timeout| self.connection.stream.set_read_timeout(timeout))?;
            match (&*self.connection.stream).read(buffer) {
                // Perhaps not the client's end, but the stop's wake-up.
                Ok(0) if may_stop && self.connection.is_stopping() => {}
                // The wake-up reached us in the middle of a message whose first part came at the same
                // instant. The end that we read is our own; the client's bytes still come.
                Ok(0) if self.connection.has_seen(Seen::ReadShut) && !self.connection.was_cut() => {
                    thread::sleep(Duration::from_millis(5));
                    if began.elapsed() > farewell::PATIENCE {
                        return Ok(0);
                    }
                }
                Ok(0) if self.connection.take(Seen::UnheardReset) => {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                Ok(count) => {
                    self.has_read(count);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.armed_read = REARM,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Write for Socket {
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

impl Drop for Socket {
    /// The handler has done with the connection: a stop need not wake anyone in it, and may not shut what is
    /// still being closed politely.
    fn drop(&mut self) {
        self.connection.state.store(ACTIVE, Ordering::SeqCst);
        self.connection.note(Seen::Released);
    }
}

/// What is left of a limit, unless nothing is. Zero would mean "for ever" to the kernel.
fn left(limit: Duration, elapsed: Duration) -> Option<Duration> {
    limit.checked_sub(elapsed).filter(|left| !left.is_zero())
}

/// Sets one of the kernel's time-outs, unless it is set short enough already: one that fires early costs
/// a second look at the clock, which is cheaper than setting it for every message.
fn arm(
    armed: &mut Option<Duration>,
    left: Option<Duration>,
    set: impl FnOnce(Option<Duration>) -> io::Result<()>,
) -> io::Result<()> {
    let early_enough = match (*armed, left) {
        (Some(armed), Some(left)) => armed <= left,
        (armed, left) => armed == left,
    };
    if !early_enough {
        set(left)?;
        *armed = left;
    }
    Ok(())
}
