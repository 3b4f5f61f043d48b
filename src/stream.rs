//! Streams: a connected socket as the kernel gives it, TCP or Unix, one type for both.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, Socket as RawSocket, TcpKeepalive, Type};

use crate::addr::Addr;

/// A connection that is gone is an error to whoever writes, not a signal. (Where the flag is not known, it is an error
/// because Rust's programs ignore that signal.)
#[cfg(target_os = "linux")]
const NO_SIGNAL: SendFlags = SendFlags::NOSIGNAL;
#[cfg(not(target_os = "linux"))]
const NO_SIGNAL: SendFlags = SendFlags::empty();

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
    /// counts in whole seconds, from 1 to 32,767, and gets the next that is no shorter. It asks ten times, a
    /// second apart, as Node does; without an answer, a read fails with
    /// [`TimedOut`](io::ErrorKind::TimedOut). (Left to Linux, that would take eleven minutes: nine times, 75
    /// seconds apart.)
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
                let asking = TcpKeepalive::new().with_time(idle).with_interval(Duration::from_secs(1)).with_retries(10);
                SockRef::from(stream).set_tcp_keepalive(&asking)?;
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

    /// When what was written has gone unacknowledged for so long, the kernel gives the connection up, and a read fails
    /// with [`TimedOut`](io::ErrorKind::TimedOut) (`TCP_USER_TIMEOUT`, RFC 5482). Left to itself, Linux tries for a
    /// quarter of an hour. Does nothing on a path, whose other end cannot vanish, nor elsewhere than on Linux.
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub(crate) fn give_up_unacknowledged_after(&self, limit: Duration) -> io::Result<()> {
        match self {
            // In milliseconds; zero would be the kernel's own idea of it.
            #[cfg(target_os = "linux")]
            Stream::Tcp(stream) => {
                SockRef::from(stream).set_tcp_user_timeout(Some(limit.max(Duration::from_millis(1))))
            }
            _ => Ok(()),
        }
    }

    /// Writes what the kernel has room for now, and waits for nothing.
    ///
    /// # Errors
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when there is no room at all; else as a blocking write.
    pub(crate) fn write_at_once(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, NO_SIGNAL | SendFlags::DONTWAIT)?)
    }

    /// How many bytes have arrived and can be read without waiting (`FIONREAD`).
    ///
    /// # Errors
    /// When the kernel refuses, which it does not do for an open socket.
    pub fn bytes_waiting(&self) -> io::Result<usize> {
        Ok(rustix::io::ioctl_fionread(self)? as usize)
    }
}

// Not through the standard library, which calls the C library's `recv` and `send`: those look, each time, whether somebody
// cancels the thread, and that costs 2 % of a message, and 4 % with a hundred busy connections.
impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, buffer, RecvFlags::empty())?.0)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self, bytes, NO_SIGNAL)?)
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
