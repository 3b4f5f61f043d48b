//! What is judged: an address, and how to connect to it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::peer::Peer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

/// How long the name of a host may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(5);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address as it is written: `HOST:PORT`, `unix:PATH` or `ws://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
    WebSocket { host: String, port: u16, path: UrlPath },
}

/// What a WebSocket is asked for: the path of its address, and perhaps a query behind it (RFC 6455, section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlPath(String);

impl std::str::FromStr for UrlPath {
    type Err = String;

    fn from_str(text: &str) -> Result<UrlPath, String> {
        if !text.starts_with('/') {
            return Err("a path begins with a slash, such as /chat".to_owned());
        }
        let wrong = text.chars().find(|character| !character.is_ascii_graphic() || *character == '#');
        match wrong
            .map(|wrong| (wrong, wrong.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()))
        {
            None => Ok(UrlPath(text.to_owned())),
            Some((wrong, code)) => Err(format!("{wrong:?} cannot be in a path as it is; write {code}")),
        }
    }
}

impl fmt::Display for UrlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for Written {
    type Err = String;

    fn from_str(text: &str) -> Result<Written, String> {
        if let Some(rest) = text.strip_prefix("ws://") {
            return websocket(rest);
        }
        if text.starts_with("wss://") {
            return Err("check does not speak TLS; judge the server without it, at ws://HOST:PORT/PATH".to_owned());
        }
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(format!("the path is missing; {RIGHT}"));
            }
            return Ok(Written::Unix(path.into()));
        }
        let (host, port) = host_and_port(text)?;
        Ok(Written::Tcp { host, port })
    }
}

const RIGHT: &str = "write HOST:PORT, such as 127.0.0.1:8080, or unix:PATH, or ws://HOST:PORT/PATH";

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("the port is missing; {RIGHT}"))?;
    if host.is_empty() || host.contains(['/', '@']) {
        return Err(format!("not an address; {RIGHT}"));
    }
    let port = port.parse().map_err(|_| format!("{port:?} is not a port; {RIGHT}"))?;
    if port == 0 {
        return Err("port 0 is for listening; use the port that the server shows".to_owned());
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), port))
}

/// What stands behind `ws://`. Without a path, it is the root.
fn websocket(text: &str) -> Result<Written, String> {
    let (place, path) = text.split_at(text.find(['/', '?', '#']).unwrap_or(text.len()));
    let (host, port) = host_and_port(place)?;
    let path = if path.is_empty() { "/" } else { path };
    Ok(Written::WebSocket { host, port, path: path.parse()? })
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Unix(path) => write!(f, "unix:{}", path.display()),
            Written::WebSocket { path, .. } => write!(f, "ws://{}{path}", self.authority()),
            Written::Tcp { .. } => f.write_str(&self.authority()),
        }
    }
}

impl Written {
    /// Host and port, as a request's `Host` has them; nothing on a path.
    pub(crate) fn authority(&self) -> String {
        match self {
            Written::Unix(_) => String::new(),
            Written::Tcp { host, port } | Written::WebSocket { host, port, .. } if host.contains(':') => {
                format!("[{host}]:{port}")
            }
            Written::Tcp { host, port } | Written::WebSocket { host, port, .. } => format!("{host}:{port}"),
        }
    }

    /// What everybody may ask: a server that cannot bear a client without a word shall not meet one before its stage.
    fn first_words(&self) -> String {
        match self {
            Written::WebSocket { path, .. } => format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority()),
            _ => "?\n".to_owned(),
        }
    }

    /// Every address that it stands for. One that means "all of this machine" is replaced by this machine's own.
    fn addresses(&self) -> io::Result<Vec<Address>> {
        let (host, port) = match self {
            Written::Unix(path) => return Ok(vec![Address::Unix(path.clone())]),
            Written::Tcp { host, port } | Written::WebSocket { host, port, .. } => (host.clone(), *port),
        };
        // The look-up is the system's, and knows no deadline: so it has a thread, which may be left behind.
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>);
            let _ = sender.send(found);
        });
        let found = receiver.recv_timeout(LOOK_UP).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let near = |mut address: SocketAddr| {
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            Address::Tcp(address)
        };
        Ok(found.into_iter().map(near).collect())
    }

    /// The first of its addresses that somebody listens on.
    pub(crate) fn find_listener(&self, patience: Duration) -> io::Result<Address> {
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.addresses()? {
            match Stream::connect(&address, patience, None) {
                Ok(stream) => {
                    stream.knock(&self.first_words());
                    return Ok(address);
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The address that a server has just said it listens on: believed, unless there is a choice.
    pub(crate) fn believe(&self, patience: Duration) -> io::Result<Address> {
        match &self.addresses()?[..] {
            [address] => Ok(address.clone()),
            _ => self.find_listener(patience),
        }
    }
}

/// One connection. Nothing about it blocks.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Connects within `patience`. A small `window` makes a client that cannot take much at once.
    pub(crate) fn connect(address: &Address, patience: Duration, window: Option<usize>) -> io::Result<Stream> {
        let (domain, socket_address) = match address {
            Address::Tcp(tcp) => (Domain::for_address(*tcp), SockAddr::from(*tcp)),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if let Some(window) = window {
            socket.set_recv_buffer_size(window)?;
            if matches!(address, Address::Tcp(_)) {
                // Inside one machine segments are so large that the kernel would buffer megabytes for a slow reader.
                socket.set_tcp_mss(1400)?;
            }
        }
        match address {
            Address::Tcp(_) => {
                socket.connect_timeout(&socket_address, patience)?;
                socket.set_tcp_nodelay(true)?;
            }
            Address::Unix(_) => connect_unix(&socket, &socket_address, patience)?,
        }
        socket.set_nonblocking(true)?;
        Ok(match address {
            Address::Tcp(_) => Stream::Tcp(socket.into()),
            Address::Unix(_) => Stream::Unix(socket.into()),
        })
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// Closes with a reset. A Unix connection knows none; there it is an end.
    pub(crate) fn reset(self) {
        if let Stream::Tcp(stream) = &self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }

    /// Says something, and waits a moment for any answer.
    fn knock(&self, words: &str) {
        let mut stream = self;
        if stream.write_all(words.as_bytes()).is_ok() {
            let mut watched = [PollFd::new(self, PollFlags::IN)];
            let _ = poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 200_000_000 }));
            let _ = stream.read(&mut [0; 4096]);
            let _ = self.shutdown();
        }
    }

    /// The other end, if the kernel can be asked about it.
    pub(crate) fn peer(&self) -> Option<Peer> {
        match self {
            Stream::Tcp(stream) => Peer::of(stream.local_addr().ok()?, stream.peer_addr().ok()?),
            Stream::Unix(_) => None,
        }
    }
}

/// A Unix socket with a full backlog says at once that it would have to wait.
fn connect_unix(socket: &Socket, address: &SockAddr, patience: Duration) -> io::Result<()> {
    let began = Instant::now();
    socket.set_nonblocking(true)?;
    loop {
        match socket.connect(address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && began.elapsed() < patience => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&*stream).read(bytes),
            Stream::Unix(stream) => (&*stream).read(bytes),
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
        Ok(())
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
