//! Chapter 12, exercise 2: shutting the reading half wakes a reader, and keeps nothing out.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[test]
fn a_woken_read_returns_0_and_what_arrives_later_is_still_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = Arc::new(listener.accept().unwrap().0);
    let (tell, woken) = channel();
    let reader = Arc::clone(&server);
    thread::spawn(move || tell.send((&*reader).read(&mut [0; 100]).unwrap()).unwrap());
    assert!(woken.recv_timeout(Duration::from_millis(100)).is_err(), "it does not wait");
    // ANCHOR: late
    server.shutdown(Shutdown::Read).unwrap();
    assert_eq!(woken.recv_timeout(Duration::from_secs(60)), Ok(0)); // What the blocked read returned.

    client.write_all(b"late").unwrap();
    let mut bytes = [0; 100];
    let count = (&*server).read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"late");
    // ANCHOR_END: late
}
