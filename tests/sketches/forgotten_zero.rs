//! Chapter 4, exercise 2: a server that does not look for the end.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Stops the wrong loop, which would not stop by itself.
const ENOUGH: usize = 100_000;

// ANCHOR: forgotten_zero
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes)?;
        let data = &bytes[..count];
        stream.write_all(&["서버 응답: ".as_bytes(), data].concat())?;
        // ANCHOR_END: forgotten_zero
        if rounds() > ENOUGH {
            return Err(io::Error::other("it spins"));
        }
    }
}

fn rounds() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static ROUNDS: AtomicUsize = AtomicUsize::new(0);
    ROUNDS.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn it_answers_nothing_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let (stream, _) = listener.accept().unwrap();
    // Somebody takes the answers, or the loop would wait for room instead of spinning.
    let reader = std::thread::spawn(move || io::copy(&mut client, &mut io::sink()));
    assert_eq!(answer(stream).unwrap_err().to_string(), "it spins");
    assert!(reader.join().unwrap().unwrap() > 0, "it answers, though nobody has asked");
}
