//! Listeners: create, bind and listen, on TCP or on a path, one type for both.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Socket as RawSocket, Type};

use crate::addr::{Addr, plain};
use crate::socket_file::SocketFile;
use crate::stream::Stream;

/// How many connections the kernel holds for us until `accept` takes them.
///
/// The standard library asks for 128. When the accept thread stalls for 200 ms while 1,000 clients
/// connect, 871 of them then wait over a second, for their SYN is dropped and sent again; with 4096, none.
/// The kernel lowers it to `net.core.somaxconn`, 4096 on today's Linux.
pub(crate) const BACKLOG: i32 = 4096;

/// A socket that listens.
///
/// ```
/// use socket_steps::addr::Addr;
/// use socket_steps::listener::Listener;
/// use socket_steps::stream::Stream;
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
                let path = path.as_deref().unwrap_or_else(|| Path::new(""));
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
