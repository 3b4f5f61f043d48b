//! The two ends, with a socket and a clock. All the rest of `arq` has neither.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use log::{debug, info};

use super::link::Link;
use super::packet::{HEADER, MAX_DATA};
use super::peers::{Counts, Limits, Peers};
use super::sender::{Options, Sender, State, Tally};

/// One byte more than the longest packet, so that a longer datagram does not look like one.
const BUFFER: usize = HEADER + MAX_DATA + 1;

/// The clock of `SO_RCVTIMEO` is no finer, and zero would mean for ever.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// A server that takes whole messages.
///
/// ```
/// use socket_steps::arq::endpoint::{Server, send};
/// use socket_steps::arq::link::{Faults, Link};
/// use socket_steps::arq::sender::Options;
/// use std::time::Duration;
///
/// let mut server = Server::bind("127.0.0.1:0", Default::default())?;
/// let address = server.local_addr()?;
/// let client = std::thread::spawn(move || {
///     let bad = || Link::new(Faults { damaged: 20, ..Faults::default() }, 5);
///     send(address, "안녕하세요, 서버님!".into(), Options::default(), bad(), bad())
/// });
/// let (_from, message) = server.receive(Duration::from_secs(10))?.expect("a message in ten seconds");
/// assert_eq!(message, "안녕하세요, 서버님!".as_bytes());
/// # // The acknowledgement may be lost; somebody has to be there to send it again.
/// # while !client.is_finished() { server.receive(Duration::from_millis(50))?; }
/// # client.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    socket: UdpSocket,
    peers: Peers,
    begun: Instant,
}

impl Server {
    /// Takes a place. Nobody has to be accepted: a datagram arrives at a port, or does not.
    ///
    /// # Errors
    /// When the address is taken, or not ours.
    pub fn bind(address: impl ToSocketAddrs, limits: Limits) -> io::Result<Server> {
        Ok(Server { socket: UdpSocket::bind(address)?, peers: Peers::new(limits), begun: Instant::now() })
    }

    /// Where it can be reached.
    ///
    /// # Errors
    /// Those of `getsockname(2)`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// What has become of all datagrams so far.
    pub fn counts(&self) -> Counts {
        self.peers.counts()
    }

    /// Waits for the next whole message. `None` if there is none for so long. Call it again soon: while it does not
    /// run, nothing is acknowledged.
    ///
    /// # Errors
    /// When the socket is of no use any more. What a single peer may cause is none.
    pub fn receive(&mut self, patience: Duration) -> io::Result<Option<(SocketAddr, Vec<u8>)>> {
        let called = Instant::now();
        let mut bytes = [0; BUFFER];
        loop {
            let rest = patience.saturating_sub(called.elapsed());
            if rest.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(rest.max(SHORTEST_WAIT)))?;
            let received = self.socket.recv_from(&mut bytes);
            let now = self.begun.elapsed();
            let (count, from) = match received {
                Ok(received) => received,
                Err(error) if is_harmless(&error) => {
                    self.peers.forget(now);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let reaction = self.peers.receive(now, from, &bytes[..count]);
            debug!(target: "server", "{from}: {:?}", reaction.news);
            if let Some(answer) = reaction.answer {
                // What cannot be sent is as good as lost, and whoever waits for it asks again.
                let _ = self.socket.send_to(&answer.encode(), from);
            }
            if let Some(message) = reaction.message {
                return Ok(Some((from, message)));
            }
        }
    }
}

/// Sends a message, through a link that is as bad as `there`, while the acknowledgements come back through `back`;
/// and waits until all of it has been acknowledged. A message that is longer than the server allows never is.
///
/// # Errors
/// `TimedOut` when nothing new was acknowledged for as long as the options say; and those of the socket, but not that
/// nobody listens there now: somebody may, when the packet is sent again.
pub fn send(
    server: SocketAddr,
    message: Vec<u8>,
    options: Options,
    mut there: Link,
    mut back: Link,
) -> io::Result<Tally> {
    let socket = connect(server)?;
    let begun = Instant::now();
    let mut sender = Sender::new(message, random_number(), options);
    let mut bytes = [0; BUFFER];
    loop {
        let now = begun.elapsed();
        while let Some(datagram) = back.receive(now) {
            let _ = sender.receive(now, &datagram); // What is no packet is counted.
        }
        while let Some((packet, why)) = sender.next_packet(now) {
            let fate = there.send(now, &packet.encode());
            debug!(target: "client", "{:?} {}: {why:?}, {fate:?}", packet.kind, packet.number);
        }
        while let Some(datagram) = there.receive(now) {
            unless_harmless(socket.send(&datagram))?;
        }
        match sender.state() {
            State::Sending => {}
            State::Delivered => return Ok(sender.tally()),
            State::GaveUp => return Err(gave_up(server, options.patience)),
        }
        let wakes_at = [sender.wakes_at(), there.next_arrival(), back.next_arrival()].into_iter().flatten().min();
        let rest = wakes_at.map(|at| at.saturating_sub(now).max(SHORTEST_WAIT));
        socket.set_read_timeout(rest)?;
        if let Some(count) = unless_harmless(socket.recv(&mut bytes))? {
            back.send(begun.elapsed(), &bytes[..count]);
        }
    }
}

/// A socket that is connected hears of nobody but its peer; and the kernel tells it when nobody listens there.
fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket)
}

/// Where to begin to count: nobody else should know it.
fn random_number() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(()) as u32
}

fn gave_up(server: SocketAddr, patience: Duration) -> io::Error {
    let why = format!("{server} has acknowledged nothing new for {} s", patience.as_secs_f32());
    io::Error::new(ErrorKind::TimedOut, why)
}

/// What passes: a wait that is over, a signal, a full queue, and what ICMP reports of an earlier packet. (The first
/// that is reported is that nobody listens: `Connection refused`, of a protocol that has no connections.)
fn is_harmless(error: &io::Error) -> bool {
    use ErrorKind::{
        ConnectionRefused, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable, TimedOut, WouldBlock,
    };
    const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();
    let kinds =
        [WouldBlock, TimedOut, Interrupted, ConnectionRefused, HostUnreachable, NetworkUnreachable, NetworkDown];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(ENOBUFS)
}

fn unless_harmless<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_harmless(&error) => {
            if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) {
                info!(target: "client", "going on: {error}");
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
