//! Chapter 2: a socket that is connected to nothing has nowhere to send.

use std::io::Write;

use socket2::{Domain, Socket, Type};

// ANCHOR: no_address
fn write_to_nobody() {
    let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.write_all(b"hello?").unwrap();
}
// ANCHOR_END: no_address

#[test]
fn there_is_no_other_end() {
    let panic = std::panic::catch_unwind(write_to_nobody).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(message.contains("BrokenPipe") || message.contains("NotConnected"), "{message}");
}
