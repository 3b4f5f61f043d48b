//! Chapter 10: what `read` and `write` return when the other side has ended. The page has a table of it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use socket2::SockRef;

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    (server, client)
}

fn wait_for(server: &TcpStream, what: PollFlags) {
    let timeout = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
    assert_eq!(poll(&mut [PollFd::new(server, what)], Some(&timeout)).unwrap(), 1, "it did not happen");
}

fn kind(result: io::Result<usize>) -> Result<usize, ErrorKind> {
    result.map_err(|error| error.kind())
}

#[test]
fn after_a_fin_reads_return_zero_and_the_other_half_goes_on() {
    let (mut server, mut client) = pair();
    client.shutdown(Shutdown::Write).unwrap();
    for _ in 0..2 {
        assert_eq!(kind(server.read(&mut [0])), Ok(0));
    }
    server.write_all(b"x").unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 1);
}

#[test]
fn a_close_looks_like_an_end_and_the_second_write_is_a_broken_pipe() {
    let (mut server, client) = pair();
    drop(client);
    assert_eq!(kind(server.read(&mut [0])), Ok(0));
    assert_eq!(kind(server.write(b"x")), Ok(1), "the kernel takes it: nobody has told it yet");
    wait_for(&server, PollFlags::ERR);
    assert_eq!(kind(server.write(b"x")), Err(ErrorKind::BrokenPipe));
}

#[test]
fn a_reset_is_reported_once_whoever_asks_first() {
    let (mut server, client) = pair();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for(&server, PollFlags::ERR);
    assert_eq!(kind(server.read(&mut [0])), Err(ErrorKind::ConnectionReset));
    assert_eq!(kind(server.read(&mut [0])), Ok(0));
    assert_eq!(kind(server.write(b"x")), Err(ErrorKind::BrokenPipe));

    let (mut server, client) = pair();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_for(&server, PollFlags::ERR);
    assert_eq!(kind(server.write(b"x")), Err(ErrorKind::ConnectionReset));
    assert_eq!(kind(server.write(b"x")), Err(ErrorKind::BrokenPipe));
}
