//! Chapter 1: a socket is a file.
//!
//! One function writes a greeting and one reads it. First they are given a file, then a socket.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use log::info;
use socket_steps::narrate;

const GREETING: &str = "안녕하세요, 서버님!";

fn main() -> io::Result<()> {
    if std::env::args().len() > 1 {
        eprintln!("usage: ch01_file (it takes no arguments)");
        std::process::exit(2);
    }
    narrate::scene(&["file", "socket"]);
    with_a_file()?;
    with_a_socket()
}

// ANCHOR: functions
/// Writes the greeting. It does not know into what.
fn greet(actor: &str, to: &mut File) -> io::Result<()> {
    info!(target: actor, "write: {GREETING}");
    to.write_all(GREETING.as_bytes())
}

/// Reads a greeting. It does not know from what.
fn read_greeting(actor: &str, from: &mut File) -> io::Result<()> {
    let mut bytes = [0; 100];
    let count = from.read(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    info!(target: actor, "read: {text} ({count} bytes)");
    Ok(())
}
// ANCHOR_END: functions

// ANCHOR: file
fn with_a_file() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("ch01_file-{}", std::process::id()));
    let mut writer = File::create_new(&path)?;
    let mut reader = File::open(&path)?;
    fs::remove_file(&path)?; // It is gone when both are closed.
    introduce("file", &writer);

    greet("file", &mut writer)?;
    read_greeting("file", &mut reader)?;
    // ANCHOR_END: file

    // ANCHOR: file_again
    reader.rewind()?;
    info!(target: "file", "rewound to the beginning");
    read_greeting("file", &mut reader)?;
    read_greeting("file", &mut reader)
}
// ANCHOR_END: file_again

// ANCHOR: socket
fn with_a_socket() -> io::Result<()> {
    let (one_end, other_end) = UnixStream::pair()?;
    let mut writer = File::from(OwnedFd::from(one_end));
    let mut reader = File::from(OwnedFd::from(other_end));
    introduce("socket", &writer);

    greet("socket", &mut writer)?;
    read_greeting("socket", &mut reader)?;
    // ANCHOR_END: socket

    // ANCHOR: socket_again
    let error = reader.rewind().expect_err("what was read from a socket is gone");
    info!(target: "socket", "rewind: {error}");
    info!(target: "socket", "the writing end is closed");
    drop(writer);
    read_greeting("socket", &mut reader)
}
// ANCHOR_END: socket_again

// ANCHOR: introduce
/// Tells what the kernel has behind this number. (Linux shows it as a link.)
fn introduce(actor: &str, file: &File) {
    let number = file.as_raw_fd();
    let behind = match fs::read_link(format!("/proc/self/fd/{number}")) {
        Ok(link) => link.display().to_string(),
        Err(_) => "something this system does not show".to_owned(),
    };
    info!(target: actor, "descriptor {number}: {behind}");
}
// ANCHOR_END: introduce
