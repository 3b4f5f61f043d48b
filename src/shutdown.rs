//! Stopping, and the one truth about which connections are open.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::addr::Addr;
use crate::connection::Connection;
use crate::stream::Stream;
use crate::wake::Waker;

/// Stops a server, from any thread, as often as one likes. Clones stop the same one.
///
/// A stop is a flag. The flag is what counts, and everyone looks at it before they wait; waking those who
/// already wait is only a hint to look now.
///
/// ```
/// use socket_steps::shutdown::StopHandle;
///
/// let stop = StopHandle::new()?;
/// let same = stop.clone();
/// same.stop();
/// same.stop(); // changes nothing
/// assert!(stop.is_stopping());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct StopHandle {
    flag: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl StopHandle {
    /// A new flag, not set.
    ///
    /// # Errors
    /// When descriptors have run out: it holds a pipe.
    pub fn new() -> io::Result<StopHandle> {
        Ok(StopHandle { flag: Arc::default(), waker: Arc::new(Waker::new()?) })
    }

    /// Sets the flag and wakes whoever waits with [`waker`](StopHandle::waker).
    pub fn stop(&self) {
        self.flag.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Whether [`stop`](StopHandle::stop) was called.
    pub fn is_stopping(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }

    /// The flag itself, for those who only look at it.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.flag
    }

    /// What to watch in a `poll` that a stop should end.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}

/// Which connections are open, and what has become of all the others. Exact, at any moment.
///
/// A connection is in here from before its handler starts until after it has ended, however it ended.
/// Nothing is estimated, and nothing depends on a message that might be lost.
#[derive(Debug)]
pub struct Registry {
    stopping: Arc<AtomicBool>,
    books: Mutex<Books>,
    /// Told when the last connection is taken out.
    empty: Condvar,
}

#[derive(Debug, Default)]
struct Books {
    last_id: u64,
    open: HashMap<u64, Arc<Connection>>,
    /// How many are open from each source.
    sources: HashMap<IpAddr, usize>,
    totals: Totals,
}

/// What a registry has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Given to a handler; the same as served.
    pub opened: u64,
    /// Ended.
    pub closed: u64,
    /// Turned away with a text.
    pub refused: u64,
    /// Neither was possible.
    pub failed: u64,
    /// The most that were open at once.
    pub peak: u64,
    /// Bytes that handlers have read.
    pub bytes_in: u64,
    /// Bytes that handlers have written.
    pub bytes_out: u64,
}

impl Totals {
    /// Connections that accept has given.
    pub fn accepted(&self) -> u64 {
        self.opened + self.refused + self.failed
    }

    /// Open connections.
    pub fn now(&self) -> u64 {
        self.opened - self.closed
    }
}

impl Registry {
    /// An empty one, for connections that end when `stopping` becomes true.
    pub fn new(stopping: Arc<AtomicBool>) -> Registry {
        Registry { stopping, books: Mutex::default(), empty: Condvar::new() }
    }

    /// Enters a new connection.
    ///
    /// # Errors
    /// Gives the stream back if `per_source` connections from the same source are open already. A source is
    /// an IPv4 address or an IPv6 network of 64 bits, for that is what a single customer is given; on a path
    /// there are none.
    pub fn open(
        &self,
        stream: Stream,
        peer: Addr,
        per_source: Option<usize>,
    ) -> Result<Arc<Connection>, (Stream, Addr)> {
        let mut books = self.lock();
        if !books.has_room_for(&peer, per_source) {
            return Err((stream, peer));
        }
        if let (Some(source), Some(_)) = (source(&peer), per_source) {
            *books.sources.entry(source).or_default() += 1;
        }
        books.last_id += 1;
        let connection = Arc::new(Connection::new(books.last_id, stream, peer, Arc::clone(&self.stopping)));
        books.open.insert(connection.id(), Arc::clone(&connection));
        books.totals.opened += 1;
        books.totals.peak = books.totals.peak.max(books.totals.now());
        Ok(connection)
    }

    /// Whether [`open`](Registry::open) would enter another connection of this client.
    pub fn has_room_for(&self, peer: &Addr, per_source: Option<usize>) -> bool {
        self.lock().has_room_for(peer, per_source)
    }

    /// Takes a connection out that has ended, and adds its bytes to the totals.
    pub fn close(&self, connection: &Connection) {
        let mut books = self.lock();
        if books.remove(connection) {
            books.totals.closed += 1;
            books.totals.bytes_in += connection.bytes_in();
            books.totals.bytes_out += connection.bytes_out();
        }
        self.tell_if_empty(&books);
    }

    /// Takes a connection out that no thread was found for. It was never opened; only the peak remembers it.
    pub fn withdraw(&self, connection: &Connection) {
        let mut books = self.lock();
        if books.remove(connection) {
            books.totals.opened -= 1;
        }
        self.tell_if_empty(&books);
    }

    /// Counts a client that was turned away: `told` if it could be sent a text.
    pub fn turn_away(&self, told: bool) {
        let totals = &mut self.lock().totals;
        *(if told { &mut totals.refused } else { &mut totals.failed }) += 1;
    }

    /// The totals, with the bytes of the open connections so far.
    pub fn totals(&self) -> Totals {
        let books = self.lock();
        let mut totals = books.totals;
        for connection in books.open.values() {
            totals.bytes_in += connection.bytes_in();
            totals.bytes_out += connection.bytes_out();
        }
        totals
    }

    /// The open connections, oldest first.
    pub fn connections(&self) -> Vec<Arc<Connection>> {
        let mut open: Vec<_> = self.lock().open.values().cloned().collect();
        open.sort_by_key(|connection| connection.id());
        open
    }

    /// Waits until no connection is open, at most `patience`; says whether that is so.
    pub fn wait_until_empty(&self, patience: Duration) -> bool {
        let began = Instant::now();
        let mut books = self.lock();
        while !books.open.is_empty() {
            let left = patience.saturating_sub(began.elapsed());
            if left.is_zero() {
                return false;
            }
            books = self.empty.wait_timeout(books, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn tell_if_empty(&self, books: &Books) {
        if books.open.is_empty() {
            self.empty.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // Nothing in here can panic half-way, so the books are right even if a thread that held them died.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn has_room_for(&self, peer: &Addr, per_source: Option<usize>) -> bool {
        let count = source(peer).and_then(|source| self.sources.get(&source)).copied().unwrap_or_default();
        per_source.is_none_or(|limit| count < limit)
    }

    fn remove(&mut self, connection: &Connection) -> bool {
        let was_open = self.open.remove(&connection.id()).is_some();
        if was_open
            && let Some(source) = source(connection.peer())
            && let Some(count) = self.sources.get_mut(&source)
        {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
        was_open
    }
}

fn source(peer: &Addr) -> Option<IpAddr> {
    const NETWORK: u128 = !0 << 64;
    Some(match peer.ip()? {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & NETWORK)),
        v4 => v4,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::{panic, thread};

    fn stream() -> Stream {
        Stream::Unix(UnixStream::pair().unwrap().0)
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_a_network_of_64_bits() {
        let registry = Registry::new(Arc::default());
        let open = |peer: &str| registry.open(stream(), Addr::Tcp(peer.parse().unwrap()), Some(1)).map_err(drop);
        let first = open("[2001:db8:0:1::1]:1").unwrap();
        assert!(open("[2001:db8:0:1:ffff::2]:1").is_err(), "the same customer");
        assert!(open("[2001:db8:0:2::1]:1").is_ok(), "another customer");
        assert!(open("192.0.2.1:1").is_ok());
        assert!(open("192.0.2.1:2").is_err());
        assert!(open("192.0.2.2:1").is_ok());
        registry.close(&first);
        assert!(open("[2001:db8:0:1::3]:1").is_ok(), "the place was given back");
        assert_eq!(registry.totals().now(), 4);
    }

    #[test]
    fn closing_twice_counts_once_and_withdrawing_counts_nothing() {
        let registry = Registry::new(Arc::default());
        let first = registry.open(stream(), Addr::Unix(None), None).unwrap();
        let second = registry.open(stream(), Addr::Unix(None), None).unwrap();
        registry.close(&first);
        registry.close(&first);
        registry.withdraw(&second);
        let expected = Totals { opened: 1, closed: 1, peak: 2, ..Totals::default() };
        assert_eq!(registry.totals(), expected);
        assert!(registry.wait_until_empty(Duration::ZERO));
    }

    #[test]
    fn the_books_stay_right_when_a_thread_dies_with_them_in_its_hands() {
        let registry = Arc::new(Registry::new(Arc::default()));
        let first = registry.open(stream(), Addr::Unix(None), None).unwrap();
        let same = Arc::clone(&registry);
        let dies = thread::spawn(move || {
            let _books = same.books.lock();
            panic::resume_unwind(Box::new("on purpose"));
        });
        dies.join().unwrap_err();
        assert!(registry.books.is_poisoned(), "the fault did not happen");
        registry.open(stream(), Addr::Unix(None), None).unwrap();
        registry.close(&first);
        registry.turn_away(true);
        let expected = Totals { opened: 2, closed: 1, refused: 1, peak: 2, ..Totals::default() };
        assert_eq!(registry.totals(), expected);
        assert!(!registry.wait_until_empty(Duration::from_millis(1)));
    }
}
