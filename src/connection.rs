//! One connection, as the threads of a program share it: the stream, and what is known of it.

use std::mem::offset_of;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::addr::Addr;
use crate::stream::Stream;

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
/// The handler's [`Socket`](crate::socket::Socket) reads and writes; the server's registry lists connections, counts their bytes,
/// and wakes them when it stops.
// What every message touches comes first, in one line of the processor's cache: where a hundred connections are busy
// in turns, a message waits for such lines to be fetched, not for instructions.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Connection {
    stream: Stream,
    stopping: Arc<AtomicBool>,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    state: AtomicU8,
    /// Bits of [`Seen`].
    seen: AtomicU8,
    id: u64,
    opened: Instant,
    /// When another thread than the one that reads wrote last, in nanoseconds after `opened`.
    spoken_to: AtomicU64,
    peer: Addr,
}

const _: () = assert!(offset_of!(Connection, opened) <= 64, "what every message touches is one line of the cache");

/// What has happened to a connection so far, for whoever asks why it ended.
pub(crate) enum Seen {
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
    /// The server gave up a write that was not complete: its deadline, or the drain's, had passed, or could not be set.
    HalfAnswer = 64,
    /// The kernel has given it up, for nothing was acknowledged, and only a writer was told.
    UnheardSilence = 128,
}

const IDLE: u8 = 0;
const ACTIVE: u8 = 1;

impl Connection {
    /// A connection under this number. When `stopping` becomes true, its socket's reads end it as soon as
    /// what has arrived is answered.
    pub fn new(id: u64, stream: Stream, peer: Addr, stopping: Arc<AtomicBool>) -> Connection {
        Connection {
            stream,
            stopping,
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            // Active until the handler waits for the first time: what it may say first is not cut off.
            state: AtomicU8::new(ACTIVE),
            seen: AtomicU8::new(0),
            id,
            opened: Instant::now(),
            spoken_to: AtomicU64::new(0),
            peer,
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

    /// The stream below. It is closed with the last reference to this.
    pub fn stream(&self) -> &Stream {
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

    /// Whether [`Socket::abort`](crate::socket::Socket::abort) was called.
    pub fn was_aborted(&self) -> bool {
        self.has_seen(Seen::Abort)
    }

    /// Whether [`wake_if_idle`](Connection::wake_if_idle) has shut the reading end.
    pub(crate) fn was_woken(&self) -> bool {
        self.has_seen(Seen::ReadShut)
    }

    /// Whether what the other side has been sent may end in the middle of an answer.
    pub(crate) fn has_half_an_answer(&self) -> bool {
        self.has_seen(Seen::HalfAnswer)
    }

    /// Whether its [`Socket`](crate::socket::Socket) is no more.
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

    /// Ends both directions at once: every blocked read and write of this connection returns. In a server, a
    /// connection whose write this has cut short is closed with a reset, for its answer is not whole.
    pub fn cut(&self) {
        self.note(Seen::Cut);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// Whether the server is stopping.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Marks what the socket's thread is about to do.
    pub(crate) fn set_state(&self, state: State) {
        match state {
            // Before the look at the flag that follows, for every thread: see `wake_if_idle`.
            State::Idle => self.state.store(IDLE, Ordering::SeqCst),
            State::Active => self.state.store(ACTIVE, Ordering::Release),
        }
    }

    /// A read has brought this many bytes; none are the other side's end.
    pub(crate) fn has_read(&self, count: usize) {
        self.set_state(State::Active);
        self.bytes_in.fetch_add(count as u64, Ordering::Relaxed);
        if count == 0 {
            self.note(Seen::PeerEnd);
        }
        self.trace("has sent", count);
    }

    /// The kernel has taken this many bytes.
    pub(crate) fn has_written(&self, count: usize) {
        self.bytes_out.fetch_add(count as u64, Ordering::Relaxed);
        self.trace("was sent", count);
    }

    /// Logs a piece, out of the way: what is to be logged takes a good part of a stack frame, logged or not.
    fn trace(&self, what: &str, count: usize) {
        #[cold]
        fn log(id: u64, what: &str, count: usize) {
            log::trace!("#{id} {what} {count} bytes");
        }
        if log::max_level() == log::LevelFilter::Trace {
            log(self.id, what, count);
        }
    }

    /// Something was written just now, by another thread than the one that reads.
    pub(crate) fn was_spoken_to(&self) {
        self.spoken_to.store(self.opened.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    /// When another thread than the one that reads wrote last; at first, when it was opened.
    pub(crate) fn last_spoken_to(&self) -> Instant {
        self.opened + Duration::from_nanos(self.spoken_to.load(Ordering::Relaxed))
    }

    pub(crate) fn note(&self, what: Seen) {
        self.seen.fetch_or(what as u8, Ordering::SeqCst);
    }

    pub(crate) fn has_seen(&self, what: Seen) -> bool {
        self.seen.load(Ordering::SeqCst) & what as u8 != 0
    }

    /// As [`has_seen`](Connection::has_seen), and forgets it.
    pub(crate) fn take(&self, what: Seen) -> bool {
        let what = what as u8;
        self.seen.fetch_and(!what, Ordering::SeqCst) & what != 0
    }
}
