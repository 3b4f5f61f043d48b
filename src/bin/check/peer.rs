//! How much of what we sent is still unread at the other end, if that is on this machine.
//!
//! The kernel is asked about that one socket (`sock_diag`, as `ss` does): the tables in `/proc` would list all
//! connections of the machine, which may be thousands.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

/// The kernel answers at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_millis(500);

/// The other end of a connection of ours.
#[derive(Debug)]
pub(crate) struct Peer {
    kernel: OwnedFd,
    question: Vec<u8>,
}

impl Peer {
    /// `ours` and `theirs` as our socket sees them; the other end sees them the other way round.
    pub(crate) fn of(ours: SocketAddr, theirs: SocketAddr) -> Option<Peer> {
        let kernel = socket(AddressFamily::NETLINK, SocketType::DGRAM, Some(netlink::SOCK_DIAG)).ok()?;
        Some(Peer { kernel, question: question(theirs, ours) })
    }

    /// How many bytes it has received and not read. `None` when the kernel does not know that socket.
    pub(crate) fn unread(&self) -> Option<u64> {
        self.ask().map(|(unread, _)| unread)
    }

    /// Whether the server has accepted the connection: until then it is the kernel's alone.
    pub(crate) fn is_accepted(&self) -> Option<bool> {
        self.ask().map(|(_, inode)| inode != 0)
    }

    fn ask(&self) -> Option<(u64, u32)> {
        send(&self.kernel, &self.question, SendFlags::empty()).ok()?;
        let mut watched = [PollFd::new(&self.kernel, PollFlags::IN)];
        let patience = Timespec { tv_sec: 0, tv_nsec: PATIENCE.as_nanos() as i64 };
        poll(&mut watched, Some(&patience)).ok().filter(|ready| *ready > 0)?;
        let mut answer = [0_u8; 512];
        let (count, _) = recv(&self.kernel, &mut answer[..], RecvFlags::empty()).ok()?;
        fields_of(&answer[..count])
    }
}

/// `SOCK_DIAG_BY_FAMILY`: the type of the question, and of its answer.
const BY_FAMILY: u16 = 20;
const REQUEST: u16 = 1;
const TCP: u8 = 6;

/// A `nlmsghdr` and an `inet_diag_req_v2`, see sock_diag(7).
fn question(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let mut question = Vec::with_capacity(72);
    question.extend_from_slice(&72_u32.to_ne_bytes());
    question.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    question.extend_from_slice(&REQUEST.to_ne_bytes());
    question.extend_from_slice(&[0; 8]); // No number, no sender.
    question.extend_from_slice(&[family.as_raw() as u8, TCP, 0, 0]);
    question.extend_from_slice(&u32::MAX.to_ne_bytes()); // In whatever state it is.
    question.extend_from_slice(&local.port().to_be_bytes());
    question.extend_from_slice(&remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        let mut sixteen = [0; 16];
        match address {
            IpAddr::V4(ip) => sixteen[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => sixteen.copy_from_slice(&ip.octets()),
        }
        question.extend_from_slice(&sixteen);
    }
    question.extend_from_slice(&[0; 4]); // Whatever the interface.
    question.extend_from_slice(&[0xff; 8]); // No cookie.
    question
}

/// The `idiag_rqueue` and the `idiag_inode` of an `inet_diag_msg`.
fn fields_of(answer: &[u8]) -> Option<(u64, u32)> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    if kind == BY_FAMILY { Some((u64::from(number(72)?), number(84)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_the_other_end_has_not_read_is_known() {
        for listens_on in ["127.0.0.1:0", "[::]:0"] {
            let listener = TcpListener::bind(listens_on).unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let peer = Peer::of(client.local_addr().unwrap(), client.peer_addr().unwrap()).unwrap();
            assert_eq!(peer.is_accepted(), Some(false), "{listens_on}");
            let (mut server, _) = listener.accept().unwrap();
            assert_eq!(peer.is_accepted(), Some(true), "{listens_on}");
            assert_eq!(peer.unread(), Some(0), "{listens_on}");
            client.write_all(b"seven b").unwrap();
            server.peek(&mut [0]).unwrap();
            assert_eq!(peer.unread(), Some(7), "{listens_on}");
            server.read_exact(&mut [0; 7]).unwrap();
            assert_eq!(peer.unread(), Some(0), "{listens_on}");
        }
    }

    #[test]
    fn of_a_socket_elsewhere_nothing_is_known() {
        let elsewhere = "192.0.2.1:80".parse().unwrap();
        assert_eq!(Peer::of("192.0.2.2:9".parse().unwrap(), elsewhere).unwrap().unread(), None);
    }
}
