//! Connecting: with a deadline, to whichever address of a name answers first, again after a failure.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use socket2::{Socket as RawSocket, Type};

use crate::addr::{Addr, plain};
use crate::backoff::Backoff;
use crate::deadline::Timeouts;
use crate::shutdown::StopHandle;
use crate::socket::Socket;
use crate::stream::Stream;
use crate::wake::timespec;

/// How long one address is tried alone before the next one joins in (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// How long until a path whose backlog is full is tried again.
const WHILE_FULL: Duration = Duration::from_millis(10);

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
/// use socket_steps::addr::Addr;
/// use socket_steps::listener::Listener;
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
    /// it, and so on; a failure lets the next one in at once, and the first to answer wins. (`localhost` is
    /// `::1` first, which a server that listens on IPv4 alone refuses at once.)
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
            let failed = match Addr::resolve(&self.address).and_then(|addresses| self.race(addresses)) {
                Ok((stream, peer)) => return Ok(Socket::new(stream, peer, self.timeouts)),
                Err(error) => error,
            };
            // A mistake in the address does not mend itself.
            if tries_left == 0 || matches!(failed.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Interrupted) {
                return Err(failed);
            }
            let pause = backoff.after_failure();
            log::info!("{failed}; trying again in {pause:?}");
            self.wait(&[], pause)?;
        }
    }

    /// One try: a race of all addresses, in which each joins when the one before has failed, or has had its
    /// head start.
    fn race(&self, addresses: Vec<Addr>) -> io::Result<(Stream, Addr)> {
        let began = Instant::now();
        let mut next_start = Duration::ZERO;
        let mut waiting = VecDeque::from(addresses);
        let mut racing: Vec<(RawSocket, Addr)> = Vec::new();
        let mut failures: Vec<(Addr, io::Error)> = Vec::new();
        loop {
            let now = began.elapsed();
            if now >= self.within {
                let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.within));
                let unanswered = racing.into_iter().map(|(_, address)| address).chain(waiting);
                failures.extend(unanswered.map(|address| (address, late())));
                return Err(self.all_failed(&failures));
            }
            if now >= next_start
                && let Some(address) = waiting.pop_front()
            {
                match start(&address) {
                    Ok(socket) => {
                        racing.push((socket, address));
                        next_start = now + HEAD_START;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        waiting.push_front(address);
                        next_start = now + WHILE_FULL;
                    }
                    Err(error) => failures.push((address, error)),
                }
                continue;
            }
            if racing.is_empty() && waiting.is_empty() {
                return Err(self.all_failed(&failures));
            }
            let next_event = if waiting.is_empty() { self.within } else { self.within.min(next_start) };
            let mut decided = self.wait(&racing, next_event - now)?.into_iter();
            for (socket, address) in racing.extract_if(.., |_| decided.next() == Some(true)) {
                match outcome(&socket) {
                    Ok(()) => {
                        let stream = Stream::from_raw(socket, &address);
                        // A client that writes twice in a row waits for nobody's acknowledgement.
                        stream.set_tcp_options(true, None)?;
                        return Ok((stream, address));
                    }
                    Err(error) => {
                        failures.push((address, error));
                        next_start = Duration::ZERO;
                    }
                }
            }
        }
    }

    /// Waits until one of the sockets has connected or failed, at most for `patience`, and says of each
    /// whether it has.
    fn wait(&self, racing: &[(RawSocket, Addr)], patience: Duration) -> io::Result<Vec<bool>> {
        // A socket that is connecting becomes writable when that has been decided: connect(2), EINPROGRESS.
        let mut watched: Vec<_> = racing.iter().map(|(socket, _)| PollFd::new(socket, PollFlags::OUT)).collect();
        if let Some(stop) = &self.stop {
            // Nobody takes the wake-up out of the pipe: whoever else waits for this stop needs it too.
            watched.push(PollFd::new(&**stop.waker(), PollFlags::IN));
        }
        match poll(&mut watched, Some(&timespec(patience))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.give_up_if_stopped()?;
        Ok(watched[..racing.len()].iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn give_up_if_stopped(&self) -> io::Result<()> {
        match &self.stop {
            Some(stop) if stop.is_stopping() => {
                Err(io::Error::new(io::ErrorKind::Interrupted, "stopped while connecting"))
            }
            _ => Ok(()),
        }
    }

    /// One error, of the kind of the last: each address and what it said, or the reason alone where the
    /// address is what the person typed.
    fn all_failed(&self, failures: &[(Addr, io::Error)]) -> io::Error {
        let kind = failures.last().map_or(io::ErrorKind::NotFound, |(_, error)| error.kind());
        let each = failures.iter().map(|(address, error)| match address.to_string() {
            address if address == self.address => plain(error),
            address => format!("{address}: {}", plain(error)),
        });
        let each: Vec<String> = each.collect();
        io::Error::new(kind, format!("cannot connect to {}: {}", self.address, each.join("; ")))
    }
}

/// Begins to connect, without waiting for the end of it.
///
/// # Errors
/// [`WouldBlock`](io::ErrorKind::WouldBlock) when the server's backlog is full, on a path: there the kernel
/// does not wait in our place.
fn start(address: &Addr) -> io::Result<RawSocket> {
    let raw = address.to_raw()?;
    let socket = RawSocket::new(address.domain(), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&raw) {
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(explained(error, address)),
        _ => Ok(socket),
    }
}

/// "Invalid argument" is what Linux says of an address that is of use only together with an interface, and also
/// when a route leads nowhere: a mistake that trying again does not mend, and one that it may.
fn explained(error: io::Error, address: &Addr) -> io::Error {
    match address {
        Addr::Tcp(tcp) if Errno::from_io_error(&error) == Some(Errno::INVAL) => match tcp {
            SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
                let why = "it is an address of many networks; say on which interface, as in [fe80::1%eth0]:8080";
                io::Error::new(io::ErrorKind::InvalidInput, why)
            }
            _ => io::Error::new(io::ErrorKind::HostUnreachable, "a route of this machine discards what goes there"),
        },
        _ => error,
    }
}

/// What has become of a connect that has been decided. A connected socket waits from now on.
fn outcome(socket: &RawSocket) -> io::Result<()> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    if is_connected_to_itself(socket) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    socket.set_nonblocking(false)
}

/// Whether a socket talks to itself, and nobody listens at its address.
///
/// A connecting socket is given a free port. When the port that it connects to is free too, and one of those
/// that are given, then after some ten thousand tries it is given just that one, and TCP lets two ends that
/// connect to each other at once be connected, even if they are the same.
fn is_connected_to_itself(socket: &RawSocket) -> bool {
    matches!((socket.local_addr(), socket.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// An address that answers nobody: its backlog is full, and stays so as long as this is held.
    fn hanging() -> (Addr, RawSocket, Vec<TcpStream>) {
        let listener = RawSocket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&address("127.0.0.1:0").into()).unwrap();
        listener.listen(0).unwrap();
        let at = listener.local_addr().unwrap().as_socket().unwrap();
        let fill = || TcpStream::connect_timeout(&at, Duration::from_millis(100)).ok();
        let held: Vec<_> = std::iter::from_fn(fill).take(10).collect();
        assert!(held.len() < 10, "it does not hang");
        (Addr::Tcp(at), listener, held)
    }

    #[test]
    fn many_failures_cost_no_time_and_one_that_hangs_costs_its_head_start_alone() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        // All of 127.0.0.0/8 is this machine, but the server is not at these.
        let nobody = (2..22).map(|last| Addr::Tcp(SocketAddr::from(([127, 0, 0, last], port))));
        let (hangs, _listener, _held) = hanging();
        let addresses = nobody.chain([hangs, Addr::Tcp(server.local_addr().unwrap())]).collect();
        let began = Instant::now();
        let (_, peer) = Client::to("").race(addresses).unwrap();
        let took = began.elapsed();
        assert_eq!(peer, Addr::Tcp(server.local_addr().unwrap()));
        assert!(took >= HEAD_START, "nothing hung: {took:?}");
        assert!(took < 10 * HEAD_START, "the next one was held up: {took:?}");
    }

    #[test]
    fn a_socket_that_has_met_itself_is_connected_to_nobody() {
        let socket = RawSocket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&address("127.0.0.1:0").into()).unwrap();
        socket.connect(&socket.local_addr().unwrap()).unwrap(); // The fault: it succeeds.
        assert_eq!(outcome(&socket).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
