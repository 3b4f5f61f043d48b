//! Chapter 10: two ways to close that do not save the answer, for a client that has sent more than was read.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

// ANCHOR: tempting
/// "From now on I shall neither write nor read."
fn shut_both(stream: TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
    drop(stream);
}

/// "By then the answer will have arrived."
fn wait_a_little(stream: TcpStream) {
    thread::sleep(Duration::from_millis(200));
    drop(stream);
}
// ANCHOR_END: tempting

/// More than a client's kernel takes before the client reads, and less than the server's kernel takes.
const ANSWER: usize = 1024 * 1024;

/// The server answers what it has not read to the end, and closes; then the client reads. Returns how much of
/// the answer it got, and how that ended.
fn read_after(close: fn(TcpStream)) -> (usize, io::Result<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(&[b'x'; 1000]).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.read_exact(&mut [0]).unwrap();
    server.write_all(&vec![b'y'; ANSWER]).unwrap();
    close(server);
    let mut answer = Vec::new();
    let result = client.read_to_end(&mut answer);
    (answer.len(), result)
}

fn destroys_the_answer(close: fn(TcpStream)) {
    let (received, result) = read_after(close);
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(received < ANSWER, "all of the answer has arrived");
}

#[test]
fn shutting_both_halves_does_not_save_the_answer() {
    destroys_the_answer(shut_both);
}

#[test]
fn waiting_a_little_does_not_save_the_answer() {
    destroys_the_answer(wait_a_little);
}
