//! Chapter 1, exercise 1: both ends of a socket can be read and written.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

// ANCHOR: both_ways
fn both_ways(one_end: &mut File, other_end: &mut File) -> io::Result<()> {
    greet("one end", one_end)?;
    read_greeting("other end", other_end)?;
    greet("other end", other_end)?;
    read_greeting("one end", one_end)
}
// ANCHOR_END: both_ways

fn greet(_actor: &str, to: &mut File) -> io::Result<()> {
    to.write_all(b"hello")
}

fn read_greeting(_actor: &str, from: &mut File) -> io::Result<()> {
    let mut bytes = [0; 5];
    from.read_exact(&mut bytes)?;
    assert_eq!(&bytes, b"hello");
    Ok(())
}

#[test]
fn it_works_with_a_socket_and_not_with_a_file() {
    let (one, other) = UnixStream::pair().unwrap();
    both_ways(&mut File::from(OwnedFd::from(one)), &mut File::from(OwnedFd::from(other))).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("greeting");
    let mut writer = File::create_new(&path).unwrap();
    let mut reader = File::open(&path).unwrap();
    // EBADF: the reader was opened for reading only.
    assert_eq!(both_ways(&mut writer, &mut reader).unwrap_err().raw_os_error(), Some(9));
    assert_eq!(writer.read(&mut [0; 5]).unwrap(), 0, "the writer may read, but stands at the end");
}
