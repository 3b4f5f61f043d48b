//! Connecting: with a deadline, to whichever address of a name answers first, again after a failure.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use socket2::{Socket as RawSocket, Type};

use crate::backoff::Backoff;
use crate::farewell::timespec;
use crate::listener::{Addr, Stream, plain};
use crate::shutdown::StopHandle;
use crate::socket::{Socket, Timeouts};

/// How long one address is tried alone before the next one joins in (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How often, and how far apart, a failed connect is tried again. What is tried again is connecting only: a
/// message that may have arrived is nobody's to repeat but the caller's.
///
/// ```
/// use socket_steps::client::RetryPolicy;
/// use socket_steps::backoff::Backoff;
/// use std::time::Duration;
///
/// let patient = RetryPolicy {
///     tries: 10,
///     backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)),
/// };
/// # let _ = patient;
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// How often to try, the first time included; 0 counts as 1.
    pub tries: u32,
    /// How long to wait in between.
    pub backoff: Backoff,
}

impl Default for RetryPolicy {
    /// Once.
    fn default() -> RetryPolicy {
        RetryPolicy { tries: 1, backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(5)) }
    }
}

/// How to connect to a server.
///
/// ```
/// use socket_steps::client::Client;
/// use socket_steps::listener::{Addr, Listener};
/// use std::time::Duration;
///
/// let listener = Listener::bind(&Addr::resolve("127.0.0.1:0")?[0])?;
/// let address = listener.local_addr().to_string();
/// let socket = Client::to(&address).within(Duration::from_secs(2)).connect()?;
/// assert_eq!(socket.peer(), listener.local_addr());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    within: Duration,
    timeouts: Timeouts,
    retry: RetryPolicy,
    stop: Option<StopHandle>,
}

impl Client {
    /// A client of the server at this address, written as for [`Addr::resolve`]. It tries once, for ten
    /// seconds, and its socket has the default [`Timeouts`].
    pub fn to(address: &str) -> Client {
        let (timeouts, retry) = (Timeouts::default(), RetryPolicy::default());
        Client { address: address.to_owned(), within: Duration::from_secs(10), timeouts, retry, stop: None }
    }

    /// How long one try may take, over all addresses of the name. Looking the name up is not counted: the
    /// resolver cannot be interrupted.
    pub fn within(mut self, limit: Duration) -> Client {
        self.within = limit;
        self
    }

    /// The deadlines of the connection, once there is one.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Client {
        self.timeouts = timeouts;
        self
    }

    /// What to do when a try fails.
    pub fn retry(mut self, policy: RetryPolicy) -> Client {
        self.retry = policy;
        self
    }

    /// Gives up at once when this is stopped: before connecting, during it, and between two tries.
    pub fn stop_with(mut self, stop: StopHandle) -> Client {
        self.stop = Some(stop);
        self
    }

    /// Connects. Of a name with several addresses, the first is tried alone for 250 ms, then the next joins
    /// it, and so on; the first to answer wins. (`localhost` is `::1` first, and a server that listens on
    /// IPv4 alone refuses that at once: the next one is then tried without waiting.)
    ///
    /// # Errors
    /// When the last try has failed, with what every address said; `TimedOut` at the deadline, `Interrupted`
    /// when stopped.
    pub fn connect(&self) -> io::Result<Socket> {
        let mut backoff = self.retry.backoff.clone();
        let mut tries_left = self.retry.tries.max(1);
        loop {
            tries_left -= 1;
            self.give_up_if_stopped()?;
            let failed = match Addr::resolve(&self.address).and_then(|addresses| self.try_once(addresses)) {
                Ok((stream, peer)) => return Ok(Socket::new(stream, peer, self.timeouts)),
                Err(error) => error,
            };
            // A mistake in the address does not mend itself.
            if tries_left == 0 || matches!(failed.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Interrupted) {
                return Err(failed);
            }
            let pause = backoff.after_failure();
            log::info!("{failed}; trying again in {pause:?}");
            self.pause(pause);
        }
    }

    /// One race of all addresses.
    fn try_once(&self, addresses: Vec<Addr>) -> io::Result<(Stream, Addr)> {
        let began = Instant::now();
        let mut waiting = VecDeque::from(addresses);
        let mut racing: Vec<(RawSocket, Addr)> = Vec::new();
        let mut failures = Failures::default();
        loop {
            // The next one starts when the last has had its head start, or when all before have failed.
            let next_start = HEAD_START * (failures.0.len() + racing.len()) as u32;
            if racing.is_empty() || began.elapsed() >= next_start {
                match waiting.pop_front().map(|address| (start(&address), address)) {
                    Some((Ok(socket), address)) => racing.push((socket, address)),
                    Some((Err(error), address)) => failures.add(address, &error),
                    None if racing.is_empty() => return Err(failures.into_error(&self.address)),
                    None => {}
                }
                if racing.is_empty() {
                    continue;
                }
            }
            let left = self.within.saturating_sub(began.elapsed());
            if left.is_zero() {
                let late = io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.within));
                racing.drain(..).for_each(|(_, address)| failures.add(address, &late));
                waiting.drain(..).for_each(|address| failures.add(address, &late));
                return Err(failures.into_error(&self.address));
            }
            let patience = if waiting.is_empty() { left } else { left.min(HEAD_START) };
            let decided = self.wait_for_any(&racing, patience)?;
            // From the back, so that the numbers before stay right.
            for index in decided.into_iter().rev() {
                let (socket, address) = racing.remove(index);
                match socket.take_error().and_then(|error| error.map_or(Ok(()), Err)) {
                    Ok(()) => {
                        socket.set_nonblocking(false)?;
                        return Ok((Stream::from_raw(socket, &address), address));
                    }
                    Err(error) => failures.add(address, &error),
                }
            }
        }
    }

    /// Which of the sockets have connected or failed, after waiting for it.
    fn wait_for_any(&self, racing: &[(RawSocket, Addr)], patience: Duration) -> io::Result<Vec<usize>> {
        // A socket that is connecting becomes writable when that has been decided: connect(2), EINPROGRESS.
        let mut watched: Vec<_> = racing.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::OUT)).collect();
        if let Some(stop) = &self.stop {
            watched.push(PollFd::new(&**stop.waker(), PollFlags::IN));
        }
        match poll(&mut watched, Some(&timespec(patience))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.give_up_if_stopped()?;
        Ok((0..racing.len()).filter(|&index| !watched[index].revents().is_empty()).collect())
    }

    fn pause(&self, pause: Duration) {
        match &self.stop {
            // Nobody takes the wake-up out of the pipe: whoever else waits for this stop needs it too.
            Some(stop) => drop(poll(&mut [PollFd::new(&**stop.waker(), PollFlags::IN)], Some(&timespec(pause)))),
            None => std::thread::sleep(pause),
        }
    }

    fn give_up_if_stopped(&self) -> io::Result<()> {
        match &self.stop {
            Some(stop) if stop.is_stopping() => {
                Err(io::Error::new(io::ErrorKind::Interrupted, "stopped while connecting"))
            }
            _ => Ok(()),
        }
    }
}

/// Begins to connect, without waiting for the end of it.
fn start(address: &Addr) -> io::Result<RawSocket> {
    let raw = address.to_raw()?;
    let socket = RawSocket::new(address.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&raw) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
        _ => Ok(socket),
    }
}

/// What every address that was tried has said.
#[derive(Default)]
struct Failures(Vec<(Addr, io::ErrorKind, String)>);

impl Failures {
    fn add(&mut self, address: Addr, error: &io::Error) {
        self.0.push((address, error.kind(), plain(error)));
    }

    /// Each address and what it said; the reason alone where the address is what the person typed.
    fn about(&self, name: &str) -> String {
        let each = self.0.iter().map(|(address, _, why)| match address.to_string() {
            address if address == name => why.clone(),
            address => format!("{address}: {why}"),
        });
        each.collect::<Vec<_>>().join("; ")
    }

    /// One error, of the kind of the last, that names them all.
    fn into_error(self, name: &str) -> io::Error {
        let kind = self.0.last().map_or(io::ErrorKind::NotFound, |(_, kind, _)| *kind);
        io::Error::new(kind, format!("cannot connect to {name}: {}", self.about(name)))
    }
}
