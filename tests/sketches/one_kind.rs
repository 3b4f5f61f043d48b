//! Chapter 11: one kind of error is three different things to a server that accepts.

use std::io::{Error, ErrorKind};

use rustix::io::Errno;

#[test]
fn an_error_of_a_client_of_the_machine_and_of_the_listener_have_the_same_kind() {
    let kind = |errno: Errno| Error::from(errno).kind();
    let client = kind(Errno::PROTO);
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::BADF, Errno::NOTSOCK] {
        assert_eq!(kind(errno), client, "{errno:?}");
    }
    // It cannot even be named: it is a kind of its own that std keeps to itself.
    assert_eq!(format!("{client:?}"), "Uncategorized");
    assert_ne!(client, ErrorKind::Other);
    assert_eq!(kind(Errno::CONNABORTED), ErrorKind::ConnectionAborted);
    assert_eq!(kind(Errno::INVAL), ErrorKind::InvalidInput);
}
