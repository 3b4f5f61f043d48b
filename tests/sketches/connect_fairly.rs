//! Chapter 14, exercise 1: an address that hangs leaves something for the others.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

fn connect(addresses: &[SocketAddr], within: Duration) -> io::Result<TcpStream> {
    let began = Instant::now();
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for (at, address) in addresses.iter().enumerate() {
        // ANCHOR: share
        let not_tried_yet = (addresses.len() - at) as u32;
        let left = within.saturating_sub(began.elapsed()) / not_tried_yet;
        // ANCHOR_END: share
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

#[test]
fn the_second_address_has_a_turn_although_the_first_one_hangs() {
    let hangs = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    hangs.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    hangs.listen(0).unwrap();
    let nobody_accepts = hangs.local_addr().unwrap().as_socket().unwrap();
    let fill = || TcpStream::connect_timeout(&nobody_accepts, Duration::from_millis(100)).ok();
    let held: Vec<TcpStream> = std::iter::from_fn(fill).take(10).collect();
    assert!(held.len() < 10, "it does not hang");

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = server.local_addr().unwrap();
    let stream = connect(&[nobody_accepts, there], Duration::from_secs(2)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), there);
    let error = connect(&[nobody_accepts], Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
}
