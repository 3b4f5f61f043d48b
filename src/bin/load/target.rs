//! Where the connections go, where they come from, and how many of them this machine can hold.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use socket_steps::addr::{Addr, plain};
use socket2::{Domain, SockAddr, Socket, Type};

/// Descriptors that are not connections: the standard streams, the signals' pipe, and what is looked up in `/proc`.
const RESERVED_DESCRIPTORS: usize = 32;

/// A thread's own: its epoll and its timer.
const DESCRIPTORS_PER_THREAD: usize = 2;

/// So many addresses of 127.0.0.0/8 a churning run comes from. Whoever closes first keeps the pair of addresses
/// and ports for a minute (TIME_WAIT), and that is load: one address has some 28,000 ports, enough for 470
/// connections a second. A reset instead of a close would keep nothing, but no server is to be measured with resets.
const CHURN_SOURCES: usize = 64;

/// Where the connections go to, and come from.
pub(crate) struct Target {
    pub(crate) address: Addr,
    raw: SockAddr,
    domain: Domain,
    /// How many addresses of this machine they come from; with one, the kernel chooses.
    sources: usize,
}

impl Target {
    /// Connects for the first time: to the first of the name's addresses at which somebody listens.
    ///
    /// # Errors
    /// One line: nobody listens there, or the text is no address.
    pub(crate) fn find(text: &str, patience: Duration) -> Result<(Target, Socket), String> {
        let addresses = Addr::resolve(text).map_err(|error| plain(&error))?;
        let mut refusals = Vec::new();
        for address in addresses {
            let target = match Target::of(address) {
                Ok(target) => target,
                Err(error) => return Err(plain(&error)),
            };
            let socket = Socket::new(target.domain, Type::STREAM, None);
            match socket.and_then(|socket| socket.connect_timeout(&target.raw, patience).map(|()| socket)) {
                Ok(socket) => {
                    let prepared = target.prepare(&socket);
                    return prepared.map(|()| (target, socket)).map_err(|error| plain(&error));
                }
                Err(error) => refusals.push(format!("{}: {}", target.address, explain(&error))),
            }
        }
        Err(format!("cannot connect to {}", refusals.join("; ")))
    }

    fn of(address: Addr) -> io::Result<Target> {
        let wrong = |why: &str| io::Error::new(ErrorKind::InvalidInput, format!("{address}: {why}"));
        let (raw, domain) = match &address {
            Addr::Tcp(to) if to.port() == 0 => return Err(wrong("nobody listens on port 0")),
            Addr::Tcp(to) => (SockAddr::from(*to), Domain::for_address(*to)),
            Addr::Unix(path) => {
                let path = path.as_deref().ok_or_else(|| wrong("the path is missing"))?;
                let raw = SockAddr::unix(path).map_err(|_| wrong("a socket's path may have 107 bytes at most"))?;
                (raw, Domain::UNIX)
            }
        };
        Ok(Target { address, raw, domain, sources: 1 })
    }

    /// Makes room for so many connections, of which each may be opened again and again, in so many threads.
    ///
    /// # Errors
    /// One line: more than the machine's descriptors or ports, and how many it can hold.
    pub(crate) fn reserve(&mut self, connections: usize, threads: usize, is_churn: bool) -> Result<(), String> {
        let descriptors = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize);
        let room = descriptors.saturating_sub(RESERVED_DESCRIPTORS + DESCRIPTORS_PER_THREAD * threads);
        let too_many = |limit: String| Err(format!("--connections {connections} is too many: {limit}"));
        if connections > room {
            let limit = format!("the descriptor limit (ulimit -n) is {descriptors}, enough for {room}");
            return too_many(format!("{limit} beside --threads {threads}"));
        }
        let Addr::Tcp(to) = self.address else { return Ok(()) };
        let ports = ports();
        // Elsewhere, 127.0.0.1 is the only one of its kind.
        let is_many = |ip: Ipv4Addr| ip.is_loopback() && cfg!(target_os = "linux");
        self.sources = match to.ip() {
            // Half of them: others may use ports, too, and the last free one is found slowly.
            IpAddr::V4(ip) if is_many(ip) && is_churn => CHURN_SOURCES.max(connections.div_ceil(ports / 2)),
            IpAddr::V4(ip) if is_many(ip) => connections.div_ceil(ports / 2),
            _ if connections > ports => {
                let limit = "the ports for outgoing connections (sysctl net.ipv4.ip_local_port_range) are";
                return too_many(format!("{limit} {ports}"));
            }
            _ => 1,
        };
        Ok(())
    }

    /// How many connections a thread may be opening at once. A server's backlog may be short, and a client whose
    /// knock is lost in a full one knocks again only after a second. On this machine a few are as fast as many; over
    /// a network, each takes its time.
    pub(crate) fn at_once(&self) -> usize {
        match &self.address {
            Addr::Tcp(to) if !to.ip().is_loopback() => 64,
            _ => 4,
        }
    }

    /// Begins to connect; `nth` chooses the address to come from. Not connected yet when it returns, as a rule.
    ///
    /// # Errors
    /// [`WouldBlock`](ErrorKind::WouldBlock) when a path's backlog is full, and
    /// [`AddrNotAvailable`](ErrorKind::AddrNotAvailable) when no port is left: both pass.
    pub(crate) fn connect(&self, nth: usize) -> io::Result<Socket> {
        let socket = Socket::new(self.domain, Type::STREAM, None)?;
        self.prepare(&socket)?;
        if self.sources > 1 {
            choose_the_port_later(&socket)?;
            let source = u32::from(Ipv4Addr::LOCALHOST) + (nth % self.sources) as u32;
            socket.bind(&SocketAddr::from((Ipv4Addr::from(source), 0)).into())?;
        }
        match socket.connect(&self.raw) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Ok(socket),
            connected => connected.map(|()| socket),
        }
    }

    fn prepare(&self, socket: &Socket) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        match self.address {
            // The end of a large message must not wait for the acknowledgement of its beginning.
            Addr::Tcp(_) => socket.set_tcp_nodelay(true),
            Addr::Unix(_) => Ok(()),
        }
    }
}

/// The port is chosen when connecting, not when binding: it has to differ only from those with the same two
/// addresses.
#[cfg(target_os = "linux")]
fn choose_the_port_later(socket: &Socket) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
    Ok(setsockopt(socket, IpBindAddressNoPort, &true)?)
}

#[cfg(not(target_os = "linux"))]
fn choose_the_port_later(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// How many ports an address has for outgoing connections to the same place.
fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<usize>().ok());
    match (bounds.next(), bounds.next()) {
        (Some(first), Some(last)) if first < last => last - first + 1,
        // What IANA has set aside for it (RFC 6335, section 6).
        _ => 65_535 - 49_152 + 1,
    }
}

/// An error of connecting, in words.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => format!("{}; nobody listens there", plain(error)),
        ErrorKind::NotFound => format!("{}; there is no such path", plain(error)),
        ErrorKind::WouldBlock => "its backlog is full".to_owned(),
        _ => plain(error),
    }
}
