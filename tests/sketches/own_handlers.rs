//! Chapter 13, exercise 1: handlers of one's own, on the kit.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use socket_steps::server::{Config, Server};
use socket_steps::socket::Socket;

// ANCHOR: upper
/// Sends everything back in capital letters.
fn upper(mut socket: Socket) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = socket.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        bytes[..count].make_ascii_uppercase();
        socket.write_all(&bytes[..count])?;
    }
}
// ANCHOR_END: upper

// ANCHOR: visitor
static VISITORS: AtomicU64 = AtomicU64::new(0);

/// Tells each client which one it is.
fn visitor(mut socket: Socket) -> io::Result<()> {
    let number = VISITORS.fetch_add(1, Ordering::SeqCst) + 1;
    writeln!(socket, "{number}번째 손님, 안녕하세요!")
}
// ANCHOR_END: visitor

fn with<H>(handler: H, clients: impl FnOnce(&str))
where
    H: Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
{
    let server = Server::bind(["127.0.0.1:0"], Config::default()).unwrap();
    let (address, handle) = (server.local_addrs()[0].to_string(), server.handle());
    let serving = thread::spawn(|| server.serve(handler));
    clients(&address);
    handle.stop();
    assert!(serving.join().unwrap().is_clean());
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

#[test]
fn what_is_small_comes_back_large_and_korean_as_it_is() {
    with(upper, |address| {
        let mut client = connect(address);
        client.write_all("hello 안녕\n".as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(&client).read_line(&mut line).unwrap();
        assert_eq!(line, "HELLO 안녕\n");
    });
}

#[test]
fn each_visitor_has_a_number_of_its_own() {
    with(visitor, |address| {
        for number in 1..=3 {
            let line = io::read_to_string(connect(address)).unwrap();
            assert_eq!(line, format!("{number}번째 손님, 안녕하세요!\n"));
        }
    });
}
