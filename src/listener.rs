//! Listeners, streams and addresses: TCP or a path in the file system, one type for both.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, SockAddr, SockRef, Socket as RawSocket, Type};

use crate::socket_file::SocketFile;

/// How many connections the kernel holds for us until `accept` takes them.
///
/// The standard library asks for 128. When the accept thread stalls for 200 ms while 1,000 clients
/// connect, 871 of them then wait over a second, for their SYN is dropped and sent again; with 4096, none.
/// The kernel lowers it to `net.core.somaxconn`, 4096 on today's Linux.
pub(crate) const BACKLOG: i32 = 4096;

/// The address of one end of a connection: what the kernel knows, not what a person typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A path, or nothing: the client's end of a Unix socket usually has no name.
    Unix(Option<PathBuf>),
}

impl Addr {
    /// Turns what a person typed into addresses: `HOST:PORT` into every address of that name,
    /// `unix:PATH` into that path.
    ///
    /// `localhost` is always both loopback addresses, `::1` and `127.0.0.1`, whatever the machine's hosts
    /// file says (RFC 6761, section 6.3). Other names are looked up, which may take as long as the
    /// machine's resolver likes.
    ///
    /// # Errors
    /// Says what is wrong with the text and what would be right, or that the name has no address.
    ///
    /// ```
    /// use socket_steps::listener::Addr;
    ///
    /// let both = Addr::resolve("localhost:8080")?;
    /// assert_eq!(both.len(), 2);
    /// assert!(Addr::resolve("8080").unwrap_err().to_string().contains("localhost:8080"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn resolve(text: &str) -> io::Result<Vec<Addr>> {
        let wrong = |what: &str| {
            let right = "write HOST:PORT, such as localhost:8080 or [::1]:8080, or unix:PATH";
            io::Error::new(io::ErrorKind::InvalidInput, format!("'{text}' is not an address: {what}; {right}"))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(wrong("the path is missing")),
                _ => Ok(vec![Addr::Unix(Some(path.into()))]),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let number = port.parse().ok().filter(|_| !port.starts_with('+'));
        let port: u16 = number.ok_or_else(|| wrong("the port is a number from 0 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bare {
            None if host.is_empty() => return Err(wrong("the host is missing")),
            None if host.contains(':') => return Err(wrong("an IPv6 address stands in brackets")),
            Some(bare) if !bare.contains(':') => return Err(wrong("only an IPv6 address stands in brackets")),
            _ => {}
        }
        if host.eq_ignore_ascii_case("localhost") {
            let loopbacks = [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])];
            return Ok(loopbacks.map(|ip| Addr::Tcp(SocketAddr::new(ip, port))).to_vec());
        }
        let found = (bare.unwrap_or(host), port).to_socket_addrs().map_err(|error| {
            io::Error::new(error.kind(), format!("'{text}': no address is known for {host}: {error}"))
        })?;
        let mut addresses: Vec<Addr> = Vec::new();
        for address in found.map(Addr::Tcp) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// The IP address, for an address that has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Addr::Tcp(address) => Some(address.ip()),
            Addr::Unix(_) => None,
        }
    }

    /// The address as the kernel's calls want it.
    ///
    /// # Errors
    /// When a path is too long for a socket address, 107 bytes on Linux, or has a zero byte, at which the
    /// kernel would cut it in silence.
    pub(crate) fn to_raw(&self) -> io::Result<SockAddr> {
        match self {
            Addr::Tcp(address) => Ok((*address).into()),
            Addr::Unix(path) => {
                let path = path.as_deref().unwrap_or_else(|| std::path::Path::new(""));
                let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
                if path.as_os_str().as_bytes().contains(&0) {
                    return Err(wrong("the path has a zero byte in it".to_owned()));
                }
                SockAddr::unix(path).map_err(|_| {
                    let length = path.as_os_str().len();
                    wrong(format!("the path has {length} bytes; a socket's path may have 107 at most"))
                })
            }
        }
    }

    pub(crate) fn domain(&self) -> Domain {
        match self {
            Addr::Tcp(address) => Domain::for_address(*address),
            Addr::Unix(_) => Domain::UNIX,
        }
    }

    /// A dual-stack listener sees IPv4 clients as `::ffff:127.0.0.1`. People, logs and limits should see
    /// the address that the client has.
    fn canonical(address: SocketAddr) -> Addr {
        match address.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => Addr::Tcp(SocketAddr::new(v4, address.port())),
            IpAddr::V6(_) => Addr::Tcp(address), // Whole: a link-local one says by which interface, too.
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(address) => address.fmt(f),
            Addr::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            Addr::Unix(None) => f.write_str("unix"),
        }
    }
}

/// A socket that listens.
///
/// ```
/// use socket_steps::listener::{Addr, Listener, Stream};
/// use std::io::{Read, Write};
///
/// let listener = Listener::bind(&Addr::resolve("127.0.0.1:0")?[0])?;
/// let client = Stream::connect(listener.local_addr())?;
/// let (stream, _peer) = listener.accept()?;
/// (&client).write_all(b"hello")?;
/// drop(client);
/// assert_eq!(std::io::read_to_string(&stream)?, "hello");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener {
    kind: Kind,
    local: Addr,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    /// When the listener is dropped, first the file is removed, then the socket is closed.
    Unix(#[allow(dead_code, reason = "held for its drop")] SocketFile, UnixListener),
}

impl Listener {
    /// Creates a socket, binds it to the address, and listens, with a backlog of 4096.
    ///
    /// On a path, the socket file has mode 0600 from the moment that it can be connected to. A stale file,
    /// left by a server that was killed, is replaced; a living server's file never is, nor is anything
    /// that is not a socket, and a symbolic link is not followed.
    ///
    /// # Errors
    /// When the address cannot be had; the message names it, and what to do about it.
    pub fn bind(address: &Addr) -> io::Result<Listener> {
        Listener::try_bind(address).map_err(|error| {
            let kind = match Errno::from_io_error(&error) {
                // A kernel without IPv6 has none of its addresses; std has no name for what it says.
                Some(Errno::AFNOSUPPORT) => io::ErrorKind::AddrNotAvailable,
                _ => error.kind(),
            };
            let remedy = match kind {
                io::ErrorKind::AddrInUse => "; another program listens there: end it, or choose another address",
                io::ErrorKind::AddrNotAvailable => "; it is not an address of this machine",
                io::ErrorKind::PermissionDenied => "; choose a port from 1024 up, or a folder that you may write to",
                io::ErrorKind::NotFound => "; the folder does not exist",
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => "; choose another path",
                _ => "",
            };
            io::Error::new(kind, format!("cannot listen on {address}: {}{remedy}", plain(&error)))
        })
    }

    fn try_bind(address: &Addr) -> io::Result<Listener> {
        let raw = address.to_raw()?;
        let socket = RawSocket::new(address.domain(), Type::STREAM, None)?;
        match address {
            Addr::Tcp(_) => {
                // Without it, a port that was in use stays taken for a minute after a restart: the last
                // connections wait in TIME_WAIT. It does not allow two listeners on one port.
                socket.set_reuse_address(true)?;
                socket.bind(&raw)?;
                socket.listen(BACKLOG)?;
                let listener = TcpListener::from(socket);
                let local = Addr::Tcp(listener.local_addr()?);
                Ok(Listener { kind: Kind::Tcp(listener), local })
            }
            Addr::Unix(path) => {
                let path = path.as_deref().unwrap_or_else(|| std::path::Path::new(""));
                let file = SocketFile::bind(&socket, path, BACKLOG)?;
                Ok(Listener { kind: Kind::Unix(file, UnixListener::from(socket)), local: address.clone() })
            }
        }
    }

    /// Where it listens: with the real port, where port 0 was asked for.
    pub fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// Takes the next connection out of the backlog, and waits for one unless told otherwise.
    ///
    /// Returns the client's address with it, because a client that has already gone again has none that
    /// could be asked for later.
    ///
    /// # Errors
    /// Whatever the kernel says: about this client, about the machine, or about the listener. The accept
    /// loop of [`Server`](crate::server::Server) tells them apart.
    pub fn accept(&self) -> io::Result<(Stream, Addr)> {
        let (stream, peer) = match &self.kind {
            Kind::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                (Stream::Tcp(stream), Addr::canonical(peer))
            }
            Kind::Unix(_, listener) => {
                let (stream, peer) = listener.accept()?;
                (Stream::Unix(stream), Addr::Unix(peer.as_pathname().map(PathBuf::from)))
            }
        };
        // On Linux a connection does not inherit this from its listener; elsewhere it does.
        #[cfg(not(target_os = "linux"))]
        stream.set_nonblocking(false)?;
        Ok((stream, peer))
    }

    /// Makes `accept` return at once, with [`WouldBlock`](io::ErrorKind::WouldBlock) when nobody is there.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.kind {
            Kind::Tcp(listener) => listener.set_nonblocking(nonblocking),
            Kind::Unix(_, listener) => listener.set_nonblocking(nonblocking),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Tcp(listener) => listener.as_fd(),
            Kind::Unix(_, listener) => listener.as_fd(),
        }
    }
}

/// A connected socket, as the kernel gives it: nothing but bytes, no deadlines yet.
///
/// `&Stream` reads and writes, so that two threads can share one descriptor through an `Arc`.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a path in the file system.
    Unix(UnixStream),
}

impl Stream {
    /// Connects to one address, and waits for that as long as the kernel likes: about two minutes.
    /// [`Client`](crate::client::Client) has a deadline, and tries several addresses.
    ///
    /// # Errors
    /// When nobody listens there, or nobody answers.
    pub fn connect(address: &Addr) -> io::Result<Stream> {
        let raw = address.to_raw()?;
        let socket = RawSocket::new(address.domain(), Type::STREAM, None)?;
        socket.connect(&raw)?;
        Ok(Stream::from_raw(socket, address))
    }

    pub(crate) fn from_raw(socket: RawSocket, address: &Addr) -> Stream {
        match address {
            Addr::Tcp(_) => Stream::Tcp(socket.into()),
            Addr::Unix(_) => Stream::Unix(socket.into()),
        }
    }

    /// Ends one direction or both, for every thread that shares this stream. `Write` sends a FIN after
    /// all that has been written; `Read` wakes whoever is blocked in a read.
    ///
    /// # Errors
    /// [`NotConnected`](io::ErrorKind::NotConnected) when the other side has reset the connection.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(how),
            Stream::Unix(stream) => stream.shutdown(how),
        }
    }

    /// How long one read may block; `None` is for ever. Not a deadline: it begins again with every read.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for zero, which the kernel would take to mean for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// How long one write may block; `None` is for ever.
    ///
    /// # Errors
    /// As for [`set_read_timeout`](Stream::set_read_timeout).
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Makes reads and writes return at once, with [`WouldBlock`](io::ErrorKind::WouldBlock) when there is
    /// nothing to do.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Stream::Unix(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Sets what TCP alone has; does nothing on a path. Without Nagle's algorithm (`no_delay`) a small
    /// answer does not wait for the acknowledgement of the one before. `keep_alive` is how long a silent
    /// connection is left alone before the kernel asks whether the other side is still there; the kernel
    /// counts in whole seconds, from 1 to 32,767, and gets the next that is no shorter.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn set_tcp_options(&self, no_delay: bool, keep_alive: Option<Duration>) -> io::Result<()> {
        if let Stream::Tcp(stream) = self {
            if no_delay {
                stream.set_nodelay(true)?;
            }
            if let Some(idle) = keep_alive {
                // Out of its range, the kernel would refuse, and leave it at two hours.
                let idle = Duration::from_secs(idle.as_secs_f64().ceil().clamp(1.0, 32_767.0) as u64);
                SockRef::from(stream).set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(idle))?;
            }
        }
        Ok(())
    }

    /// Makes the close, when it comes, a reset: what is not sent yet is thrown away, and the other side
    /// sees `Connection reset by peer` instead of an end. TCP only.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn reset_on_close(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Stream::Unix(_) => Ok(()),
        }
    }

    /// From now on a `poll` finds room for more output only when the kernel has sent everything that was
    /// written (`TCP_NOTSENT_LOWAT`); until now, when its buffer had some room again. On a path nothing is
    /// ever unsent.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub(crate) fn report_room_when_all_is_sent(&self) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Stream::Tcp(stream) => SockRef::from(stream).set_tcp_notsent_lowat(1),
            _ => Ok(()),
        }
    }

    /// How many bytes have arrived and can be read without waiting (`FIONREAD`).
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn bytes_waiting(&self) -> io::Result<usize> {
        Ok(rustix::io::ioctl_fionread(self)? as usize)
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(buffer),
            Stream::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).write(bytes),
            Stream::Unix(stream) => (&*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // Nothing is held back on this side of the kernel.
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// An error's message without the ` (os error 98)` that std adds: whom the number would help, the words tell
/// as much.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_in_ipv6s_clothes_is_undressed_and_nothing_else_is_changed() {
        let canonical = |text: &str| Addr::canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:5"), "192.0.2.1:5");
        for same in ["192.0.2.1:5", "[2001:db8::1]:5", "[fe80::1%2]:5", "[::1]:5"] {
            assert_eq!(canonical(same), same);
        }
    }
}
