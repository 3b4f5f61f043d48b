//! Chapter 1, exercise 2: a read waits as long as the other end is open.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn a_read_does_not_return_0_before_the_other_end_has_closed() {
    let (writer, mut reader) = UnixStream::pair().unwrap();
    reader.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}
