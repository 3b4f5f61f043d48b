//! The central stats thread: told of every connect and disconnect over a channel, asked over the same one.
//!
//! Threads that share counters have to agree on every change; threads that report to one that counts do
//! not. And a counter that a handler decrements at its end is wrong for ever after the first panic.
//!
//! Reporting never waits. The channel has a limit, and when this thread cannot keep up, what does not fit
//! is dropped and *counted as dropped*: a server must not stand still because its bookkeeper does. The
//! totals that must be exact do not depend on it: see [`Registry`](crate::shutdown::Registry).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::addr::Addr;
use crate::connection::{Connection, State};
use crate::deadline::Deadline;
use crate::log_limit::LogLimit;
use crate::outbox::Full;
use crate::pool::survive;

/// How many events wait at most. Below half a megabyte, and a burst of thousands of clients fits.
const QUEUE: usize = 4096;

/// How long a question may take. The thread answers at once, unless it is stuck in an observer.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// What is reported to the stats thread.
#[derive(Clone, Debug)]
pub enum Event {
    /// A connection was accepted and has a place.
    Connected {
        /// The connection's number.
        id: u64,
        /// The client's address.
        peer: Addr,
    },
    /// A connection has ended.
    Disconnected {
        /// The connection's number.
        id: u64,
        /// Why it ended.
        reason: CloseReason,
        /// How long it lasted.
        age: Duration,
        /// Bytes that the handler has read.
        bytes_in: u64,
        /// Bytes that the handler has written.
        bytes_out: u64,
    },
    /// A client was turned away with a text.
    Refused {
        /// The client's address.
        peer: Addr,
        /// The text that it was sent.
        text: String,
    },
    /// A client could be neither served nor told.
    Failed {
        /// The client's address, where accept still gave one.
        peer: Addr,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// The client ended its half first, and the handler finished.
    Finished,
    /// The handler returned before the client had ended.
    Closed,
    /// The client was silent for too long, or its kernel was.
    Idle,
    /// A message took too long.
    Message,
    /// The client did not take its answer.
    Write,
    /// The client reset the connection.
    Reset,
    /// The client was gone when an answer was written.
    BrokenPipe,
    /// The client broke the rules, such as a line over the limit.
    Rejected,
    /// The handler ended it with a reset.
    Aborted,
    /// The handler returned another error.
    Error,
    /// The handler panicked.
    Panicked,
    /// The server was stopping, and the client was between two messages.
    Stopped,
    /// The server was stopping, and the drain deadline had passed.
    Cut,
}

impl CloseReason {
    /// What a handler's result, and what its connection has seen, say about the end.
    pub fn of(result: &thread::Result<io::Result<()>>, connection: &Connection) -> CloseReason {
        let error = match result {
            Err(_) => return CloseReason::Panicked,
            Ok(_) if connection.was_cut() => return CloseReason::Cut,
            Ok(_) if connection.was_aborted() => return CloseReason::Aborted,
            Ok(Ok(())) if connection.peer_has_ended() => return CloseReason::Finished,
            Ok(Ok(())) if connection.is_stopping() => return CloseReason::Stopped,
            Ok(Ok(())) => return CloseReason::Closed,
            Ok(Err(error)) => error,
        };
        match (Deadline::of(error), error.kind()) {
            (Some(Deadline::Idle(_)), _) => CloseReason::Idle,
            (Some(Deadline::Message(_)), _) => CloseReason::Message,
            (Some(Deadline::Write(_)), _) => CloseReason::Write,
            (None, io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted) => CloseReason::Reset,
            (None, io::ErrorKind::BrokenPipe) => CloseReason::BrokenPipe,
            // The kernel's own: what it has sent, or asked for keep-alive, was not acknowledged.
            (None, io::ErrorKind::TimedOut) if error.raw_os_error().is_some() => CloseReason::Idle,
            (None, _) if Full::is(error) => CloseReason::Write,
            (None, io::ErrorKind::InvalidData) => CloseReason::Rejected,
            (None, _) => CloseReason::Error,
        }
    }

    /// One word, for logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::Finished => "finished",
            CloseReason::Closed => "closed",
            CloseReason::Idle => "idle",
            CloseReason::Message => "message",
            CloseReason::Write => "write",
            CloseReason::Reset => "reset",
            CloseReason::BrokenPipe => "broken-pipe",
            CloseReason::Rejected => "rejected",
            CloseReason::Aborted => "aborted",
            CloseReason::Error => "error",
            CloseReason::Panicked => "panicked",
            CloseReason::Stopped => "stopped",
            CloseReason::Cut => "cut",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the stats thread has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Connections that were reported and not yet reported as ended.
    pub now: u64,
    /// The most that `now` has been.
    pub peak: u64,
    /// Connects.
    pub connected: u64,
    /// Clients that were turned away.
    pub refused: u64,
    /// Clients that could be neither served nor told.
    pub failed: u64,
    /// Disconnects, by reason.
    pub ended: BTreeMap<CloseReason, u64>,
}

impl Tally {
    fn add(&mut self, event: &Event) {
        match event {
            Event::Connected { .. } => {
                self.connected += 1;
                self.now += 1;
                self.peak = self.peak.max(self.now);
            }
            Event::Disconnected { reason, .. } => {
                // Its `Connected` may be among the events that were dropped.
                self.now = self.now.saturating_sub(1);
                *self.ended.entry(*reason).or_default() += 1;
            }
            Event::Refused { .. } => self.refused += 1,
            Event::Failed { .. } => self.failed += 1,
        }
    }

    /// How many events these are.
    pub fn events(&self) -> u64 {
        self.connected + self.refused + self.failed + self.ended.values().sum::<u64>()
    }
}

/// The entrance to the stats thread. Clones report to the same one, which ends after the last of them.
///
/// ```
/// use socket_steps::addr::Addr;
/// use socket_steps::stats::{Event, Stats};
///
/// let stats = Stats::start(|event| println!("{event:?}"))?;
/// stats.report(Event::Connected { id: 1, peer: Addr::Unix(None) });
/// let tally = stats.tally().expect("the thread is alive");
/// assert_eq!((tally.now, tally.peak), (1, 1));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stats {
    channel: Sender<Told>,
    dropped: Arc<AtomicU64>,
}

enum Told {
    Event(Event),
    Question(Sender<Tally>),
}

impl Stats {
    /// Starts the thread. It calls `observer` with each event, one after another, in its own time: an
    /// observer that is slow loses events, and never slows the server. One that panics is called again with
    /// the next event.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(observer: impl Fn(&Event) + Send + 'static) -> io::Result<Stats> {
        Stats::start_logging_at(log::Level::Info, observer)
    }

    /// As [`start`](Stats::start); who comes and goes is logged at this level.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start_logging_at(level: log::Level, observer: impl Fn(&Event) + Send + 'static) -> io::Result<Stats> {
        let (channel, told) = bounded(QUEUE);
        thread::Builder::new().name("stats".to_owned()).spawn(move || keep_tally(&told, level, observer))?;
        Ok(Stats { channel, dropped: Arc::default() })
    }

    /// Reports an event, at once; counts it as dropped if there is no room.
    pub fn report(&self, event: Event) {
        if self.channel.try_send(Told::Event(event)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asks for the tally of everything reported before. `None` if the thread does not answer within half a
    /// second.
    pub fn tally(&self) -> Option<Tally> {
        let began = Instant::now();
        let (answer, answers) = bounded(1);
        self.channel.send_timeout(Told::Question(answer), ANSWER_WITHIN).ok()?;
        answers.recv_timeout(ANSWER_WITHIN.saturating_sub(began.elapsed())).ok()
    }

    /// How many events were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

fn keep_tally(told: &Receiver<Told>, level: log::Level, observer: impl Fn(&Event)) {
    let mut tally = Tally::default();
    let mut refusals = LogLimit::default();
    for told in told {
        match told {
            Told::Event(event) => {
                tally.add(&event);
                // The program's logger and the observer are others' business. With the thread, the tally would die, and
                // every event that waits for it, uncounted.
                survive(|| log_event(&event, level, &mut refusals));
                survive(|| observer(&event));
            }
            // Whoever asked may have lost patience.
            Told::Question(answer) => drop(answer.try_send(tally.clone())),
        }
    }
}

/// One line a connect and a disconnect, written here so that no client waits for its formatting; refusals,
/// which may come a thousand a second, once a second.
fn log_event(event: &Event, level: log::Level, refusals: &mut LogLimit) {
    match event {
        Event::Connected { id, peer } => log::log!(level, "#{id} {peer} connected"),
        Event::Disconnected { id, reason, age, bytes_in, bytes_out } => {
            let age = age.as_secs_f32();
            log::log!(level, "#{id} ended ({reason}) after {age:.1} s, {bytes_in} bytes in, {bytes_out} bytes out");
        }
        Event::Refused { peer, text } => refusals.log(format_args!("{peer} was refused: {text}")),
        Event::Failed { peer } => refusals.log(format_args!("{peer} had gone before it could be told anything")),
    }
}

/// Everything there is to know about a server at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the server was bound.
    pub uptime: Duration,
    /// Open connections.
    pub now: u64,
    /// The most that were open at once.
    pub peak: u64,
    /// Connections that accept has given: `served + refused + failed`, always.
    pub accepted: u64,
    /// Given to a handler.
    pub served: u64,
    /// Turned away with a text.
    pub refused: u64,
    /// Neither was possible.
    pub failed: u64,
    /// Bytes that handlers have read.
    pub bytes_in: u64,
    /// Bytes that handlers have written.
    pub bytes_out: u64,
    /// Threads in the pool.
    pub threads: usize,
    /// How many connections ended for which reason; without those among the dropped events.
    pub ended: BTreeMap<CloseReason, u64>,
    /// Events that the stats thread had no room for.
    pub events_dropped: u64,
    /// The open connections, oldest first.
    pub connections: Vec<ConnectionInfo>,
}

/// One open connection in a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Its number.
    pub id: u64,
    /// The client's address.
    pub peer: Addr,
    /// How long it has been open.
    pub age: Duration,
    /// What it is doing.
    pub state: State,
    /// Bytes read from it.
    pub bytes_in: u64,
    /// Bytes written to it.
    pub bytes_out: u64,
}

impl From<&Connection> for ConnectionInfo {
    fn from(connection: &Connection) -> ConnectionInfo {
        ConnectionInfo {
            id: connection.id(),
            peer: connection.peer().clone(),
            age: connection.age(),
            state: connection.state(),
            bytes_in: connection.bytes_in(),
            bytes_out: connection.bytes_out(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic;

    fn connected(id: u64) -> Event {
        Event::Connected { id, peer: Addr::Unix(None) }
    }

    fn disconnected(id: u64) -> Event {
        let (age, bytes_in, bytes_out) = (Duration::ZERO, 0, 0);
        Event::Disconnected { id, reason: CloseReason::Finished, age, bytes_in, bytes_out }
    }

    #[test]
    fn a_disconnect_whose_connect_was_lost_never_makes_the_count_negative() {
        let stats = Stats::start(|_| {}).unwrap();
        stats.report(disconnected(1));
        stats.report(connected(2));
        stats.report(connected(3));
        stats.report(disconnected(3));
        let tally = stats.tally().unwrap();
        assert_eq!((tally.now, tally.peak, tally.events()), (1, 2, 4));
    }

    #[test]
    fn what_a_stalled_thread_has_no_room_for_is_counted_as_dropped() {
        let (release, stalled) = bounded::<()>(0);
        let stats = Stats::start(move |_| stalled.recv().unwrap_or_default()).unwrap();
        let events = 3 * QUEUE as u64;
        (0..events).for_each(|id| stats.report(connected(id)));
        assert!(stats.dropped() > 0, "the fault did not happen");
        assert_eq!(stats.tally(), None, "it is stuck, and yet it answers");
        drop(release);
        let tally = (0..100).find_map(|_| stats.tally()).expect("it goes on");
        assert_eq!(tally.events() + stats.dropped(), events);
    }

    #[test]
    fn a_thread_that_is_dead_costs_events_and_never_time() {
        let (channel, told) = bounded(QUEUE);
        drop(told);
        let stats = Stats { channel, dropped: Arc::default() };
        let began = Instant::now();
        (0..10).for_each(|id| stats.report(connected(id)));
        assert_eq!((stats.tally(), stats.dropped()), (None, 10));
        assert!(began.elapsed() < ANSWER_WITHIN, "it was waited for");
    }

    #[test]
    fn an_observer_that_panics_costs_no_event() {
        let stats = Stats::start(|_| panic::resume_unwind(Box::new("on purpose"))).unwrap();
        (0..10).for_each(|id| stats.report(connected(id)));
        assert_eq!((stats.tally().unwrap().events(), stats.dropped()), (10, 0));
    }
}
