//! Chapter 19: two threads that write to one socket.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

// ANCHOR: speak
/// For whoever has something to say: the thread that reads, and the one with the news.
fn speak(mut stream: &TcpStream, frame: &[u8]) -> io::Result<()> {
    stream.write_all(frame)
}
// ANCHOR_END: speak

const FRAME: usize = 1024 * 1024;

/// Whether one begins to speak before the other has come to the end of a frame.
fn hears_a_mixture(mut reader: TcpStream) -> bool {
    let mut piece = vec![0; 64 * 1024];
    let (mut speaker, mut length) = (None, 0);
    for _ in 0..100_000 {
        let count = reader.read(&mut piece).unwrap();
        for byte in &piece[..count] {
            if speaker != Some(*byte) {
                if length % FRAME != 0 {
                    return true;
                }
                (speaker, length) = (Some(*byte), 0);
            }
            length += 1;
        }
    }
    false
}

#[test]
fn the_bytes_of_two_long_frames_get_mixed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    thread::scope(|scope| {
        for byte in [b'a', b'b'] {
            let stream = &stream;
            scope.spawn(move || while speak(stream, &vec![byte; FRAME]).is_ok() {});
        }
        // When it has heard one, it hangs up, and the two end.
        assert!(hears_a_mixture(reader));
    });
}
