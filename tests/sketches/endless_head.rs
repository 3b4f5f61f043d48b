//! Chapter 18: a head that is read to its end, wherever that is.

use std::io::{self, BufRead, BufReader, Read};

// ANCHOR: endless_head
/// Reads the lines of a head, up to the empty one.
fn read_head(stream: impl Read) -> io::Result<Vec<String>> {
    BufReader::new(stream).lines().take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).collect()
}
// ANCHOR_END: endless_head

/// Counts what is taken from it.
struct Counted<'a, R>(R, &'a mut usize);

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        *self.1 += count;
        Ok(count)
    }
}

#[test]
fn it_keeps_whatever_comes() {
    let right = &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..];
    assert_eq!(read_head(right).unwrap(), ["GET / HTTP/1.1", "Host: localhost"]);
    // Fifty megabytes stand for no end at all.
    let endless = io::repeat(b'x').take(50_000_000);
    let mut taken = 0;
    let kept = read_head(Counted(endless, &mut taken)).unwrap();
    assert_eq!(taken, 50_000_000, "it does not stop by itself");
    assert_eq!(kept[0].len(), 50_000_000, "and it keeps all of it in memory");
}
