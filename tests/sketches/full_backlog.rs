//! Chapter 11: `connect` succeeds without `accept`, until the backlog is full.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use socket2::{Domain, SockRef, Socket, Type};

// ANCHOR: connect_to_nobody
/// Connects to a listener that never accepts, until that takes more than half a second; returns the clients.
fn connect_to_nobody(address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            Ok(client) => clients.push(client),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(clients),
            Err(error) => return Err(error),
        }
    }
}
// ANCHOR_END: connect_to_nobody

#[test]
fn the_kernel_connects_as_many_as_the_backlog_holds_and_then_leaves_them_waiting() {
    // Not the address that others on this machine use: their connections are none of ours.
    let listener = TcpListener::bind("127.0.0.11:0").unwrap();
    SockRef::from(&listener).listen(4).unwrap();
    let address = listener.local_addr().unwrap();
    // Linux lets one more in than it was told.
    assert_eq!(connect_to_nobody(address).unwrap().len(), 5);

    // Nobody is refused: who tries again is connected when there is room, and a kernel tries again for a second.
    listener.accept().unwrap();
    TcpStream::connect_timeout(&address, Duration::from_secs(60)).unwrap();
}

#[test]
fn a_client_that_found_it_full_is_a_second_late() {
    let listener = TcpListener::bind("127.0.0.12:0").unwrap();
    SockRef::from(&listener).listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = connect_to_nobody(address).unwrap();
    assert_eq!(waiting.len(), 2);
    // Its first try finds the backlog full before this connect returns.
    let late = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    late.set_nonblocking(true).unwrap();
    let began = Instant::now();
    assert_eq!(late.connect(&address.into()).unwrap_err().raw_os_error(), Some(Errno::INPROGRESS.raw_os_error()));
    listener.accept().unwrap();
    let timeout = Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(&late, PollFlags::OUT)], Some(&timeout)).unwrap(), 1);
    assert!(late.peer_addr().is_ok(), "it is not connected");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "it did not have to try again: {took:?}");
}
