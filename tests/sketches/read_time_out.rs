//! Chapter 8: a time-out for each read, which a client that drips never meets; and what the kernel makes of
//! some durations.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::lines::LineBuffer;

const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

// ANCHOR: answer
fn answer(mut stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    let mut buffer = LineBuffer::new(LIMIT);
    // ANCHOR_END: answer
    loop {
        match buffer.next_line() {
            Ok(Some(line)) => stream.write_all(&[PREFIX.as_bytes(), line].concat())?,
            Err(too_long) => return stream.write_all(format!("{too_long}\n").as_bytes()),
            Ok(None) => {
                if buffer.read_from(&mut stream)? == 0 {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// A client, and how its conversation ends, and after how long.
fn served(patience: Duration) -> (TcpStream, thread::JoinHandle<(io::Result<()>, Duration)>) {
    let (client, stream) = connected();
    let serving = thread::spawn(move || {
        let began = Instant::now();
        (answer(&stream, patience), began.elapsed())
    });
    (client, serving)
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn it_lets_a_silent_client_go() {
    let patience = Duration::from_millis(100);
    let (_client, serving) = served(patience);
    let (result, elapsed) = serving.join().unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock, "and not TimedOut");
    assert!(elapsed >= patience, "{elapsed:?}");
}

#[test]
fn a_drip_outlasts_it_for_as_long_as_it_likes() {
    let patience = Duration::from_secs(1);
    let (mut client, serving) = served(patience);
    client.set_nodelay(true).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let began = Instant::now();
    while began.elapsed() < patience * 2 {
        client.write_all(b"x").unwrap();
        // The pause between two letters: a read that must not end early.
        assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it was let go");
    }
    client.write_all(b"\n").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut prefix = vec![0; PREFIX.len()];
    client.read_exact(&mut prefix).unwrap();
    assert_eq!(prefix, PREFIX.as_bytes(), "it was answered in the end");
    drop(client);
    serving.join().unwrap().0.ok(); // It had unread bytes, so its end is a reset, or not.
}

#[test]
fn zero_is_refused_and_the_longest_duration_means_for_ever() {
    let (_client, stream) = connected();
    assert_eq!(stream.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    stream.set_read_timeout(Some(Duration::MAX)).unwrap();
    assert_eq!(stream.read_timeout().unwrap(), None);
    assert_eq!(Instant::now().checked_add(Duration::MAX), None, "and a point in time so far off does not exist");
}

#[test]
fn a_time_out_for_each_write_is_no_deadline_for_all_of_them() {
    let patience = Duration::from_millis(300);
    let (client, mut stream) = connected();
    stream.set_write_timeout(Some(patience)).unwrap();
    // More than all buffers on the way can hold.
    let answer = vec![b'x'; 32 << 20];
    let reading = thread::spawn(move || {
        let mut bytes = vec![0; 256 * 1024];
        while (&client).read(&mut bytes).unwrap() > 0 {
            thread::sleep(Duration::from_millis(20)); // It is slow: that is the fault.
        }
    });
    let began = Instant::now();
    stream.write_all(&answer).unwrap();
    let elapsed = began.elapsed();
    drop(stream);
    reading.join().unwrap();
    assert!(elapsed > patience * 3, "it was not slow: {elapsed:?}");
}
