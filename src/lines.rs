//! Messages out of a stream of bytes: lines with a limit, and characters that arrive in pieces.
//!
//! TCP carries bytes, not messages. One `write` of the sender may arrive as three reads, three writes as
//! one read, and a cut may fall in the middle of a character. Nothing here touches a socket: bytes go in
//! from any [`Read`], whole lines come out.

use std::fmt;
use std::io::{self, Read};

/// How much a [`LineBuffer`] holds at first. Most connections send short lines, and ten thousand idle
/// ones should not hold ten thousand large buffers, so it starts small and grows when a read fills it.
const FIRST_SIZE: usize = 2 * 1024;

/// How much it reads at once at most, unless a line needs more. Larger reads gained nothing.
const READ_SIZE: usize = 64 * 1024;

/// Bytes on their way to becoming lines, at most `limit` of them a line.
///
/// A line ends with `\n`, which belongs to it; a `\r` before it is an ordinary byte of the line.
///
/// ```
/// use socket_steps::lines::LineBuffer;
///
/// let mut buffer = LineBuffer::new(1024);
/// buffer.read_from(&mut &b"two lines\nand a h"[..])?;
/// assert_eq!(buffer.next_line()?, Some(&b"two lines\n"[..]));
/// assert_eq!(buffer.next_line()?, None);
/// buffer.read_from(&mut &b"alf"[..])?;
/// assert_eq!(buffer.rest(), b"and a half");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Where the line that is being collected begins.
    start: usize,
    /// How far that line has been searched for its end, so that a client that sends one byte at a time
    /// does not make us look at the whole line each time.
    searched: usize,
    /// Where the bytes read so far end.
    end: usize,
    limit: usize,
}

/// A line that is longer than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// How many bytes a line may have, its newline not counted.
    pub limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too long: a line may have at most {} bytes", self.limit)
    }
}

impl std::error::Error for TooLong {}

impl From<TooLong> for io::Error {
    fn from(error: TooLong) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

impl LineBuffer {
    /// An empty buffer for lines of at most `limit` bytes, the newline not counted.
    pub fn new(limit: usize) -> LineBuffer {
        LineBuffer { bytes: vec![0; FIRST_SIZE], start: 0, searched: 0, end: 0, limit }
    }

    /// Reads once from `source` and returns how many bytes came; 0 is the end of the input.
    ///
    /// # Errors
    /// Whatever `source` says; the bytes that were there before stay.
    pub fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        let count = source.read(&mut self.bytes[self.end..])?;
        self.end += count;
        Ok(count)
    }

    /// The next whole line with its `\n`, if one has arrived.
    ///
    /// # Errors
    /// [`TooLong`] as soon as a line has more bytes than the limit, whether or not its end has come.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let newline = memchr::memchr(b'\n', &self.bytes[self.searched..self.end]);
        let length = match newline {
            Some(at) => self.searched + at - self.start,
            None => self.end - self.start,
        };
        if length > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        if newline.is_none() {
            self.searched = self.end;
            return Ok(None);
        }
        let line = self.start..self.start + length + 1;
        self.start = line.end;
        self.searched = line.end;
        Ok(Some(&self.bytes[line]))
    }

    /// What has arrived of a line whose end has not: at the end of the input, the last line.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Moves what is left of the line to the front, and grows if the last read filled everything.
    fn make_room(&mut self) {
        let was_filled = self.end == self.bytes.len();
        self.bytes.copy_within(self.start..self.end, 0);
        self.searched -= self.start;
        self.end -= self.start;
        self.start = 0;
        if was_filled {
            // One byte over the limit is enough to know that a line is too long.
            let most = READ_SIZE.max(self.limit.saturating_add(1));
            let size = self.bytes.len().saturating_mul(4).min(most);
            self.bytes.resize(size.max(self.end + 1), 0);
        }
    }
}

/// How many bytes at the end of `bytes` are the beginning of a UTF-8 character whose rest has not arrived.
///
/// Between 0 and 3. Bytes that can never become a character count as complete: they are invalid now and
/// stay so, and waiting would not mend them ([`error_len`](std::str::Utf8Error::error_len) tells the two
/// apart).
///
/// ```
/// use socket_steps::lines::incomplete_character;
///
/// let greeting = "안녕".as_bytes(); // two characters, three bytes each
/// assert_eq!(incomplete_character(&greeting[..6]), 0);
/// assert_eq!(incomplete_character(&greeting[..5]), 2);
/// assert_eq!(incomplete_character(&[b'a', 0xff]), 0); // no character begins with 0xff
/// ```
pub fn incomplete_character(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|&tail| {
            // Only a byte that begins a character can begin an incomplete one.
            let tail = &bytes[bytes.len() - tail..];
            matches!(std::str::from_utf8(tail), Err(e) if e.valid_up_to() == 0 && e.error_len().is_none())
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out its bytes in pieces of the given sizes, then one at a time.
    struct Pieces<'a>(&'a [u8], std::vec::IntoIter<usize>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let size = self.1.next().unwrap_or(1).clamp(1, buf.len()).min(self.0.len());
            buf[..size].copy_from_slice(&self.0[..size]);
            self.0 = &self.0[size..];
            Ok(size)
        }
    }

    fn lines_of(mut source: impl Read, limit: usize) -> Result<Vec<Vec<u8>>, TooLong> {
        let mut buffer = LineBuffer::new(limit);
        let mut lines = Vec::new();
        loop {
            while let Some(line) = buffer.next_line()? {
                lines.push(line.to_vec());
            }
            if buffer.read_from(&mut source).unwrap() == 0 {
                lines.push(buffer.rest().to_vec());
                return Ok(lines);
            }
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        assert_eq!(lines_of(&b"12345\n"[..], 5).unwrap()[0], b"12345\n");
        assert_eq!(lines_of(&b"123456\n"[..], 5), Err(TooLong { limit: 5 }));
        assert_eq!(lines_of(&b"123456"[..], 5), Err(TooLong { limit: 5 }));
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_its_limit_and_a_little() {
        let mut buffer = LineBuffer::new(100_000);
        let mut endless = io::repeat(b'x');
        while buffer.next_line().is_ok() {
            buffer.read_from(&mut endless).unwrap();
        }
        assert!(buffer.bytes.capacity() <= 200_000, "{}", buffer.bytes.capacity());
    }

    proptest! {
        #[test]
        fn lines_are_the_same_however_the_bytes_are_cut(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..5000),
            sizes in prop::collection::vec(1usize..3000, 0..50),
        ) {
            let lines = lines_of(Pieces(&bytes, sizes.into_iter()), 5000).unwrap();
            prop_assert_eq!(lines.concat(), bytes.clone());
            let expected: Vec<&[u8]> = bytes.split_inclusive(|&b| b == b'\n').collect();
            let whole = &lines[..lines.len() - usize::from(lines.last().unwrap().is_empty())];
            prop_assert_eq!(whole, expected);
        }

        #[test]
        fn a_text_cut_anywhere_lacks_exactly_the_character_that_was_cut(text in ".{1,20}", at in any::<prop::sample::Index>()) {
            let cut = at.index(text.len() + 1);
            let whole = (0..=cut).rev().find(|&i| text.is_char_boundary(i)).unwrap();
            prop_assert_eq!(incomplete_character(&text.as_bytes()[..cut]), cut - whole);
        }

        #[test]
        fn whatever_is_held_is_at_most_three_bytes_and_may_still_become_a_character(bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            let held = incomplete_character(&bytes);
            prop_assert!(held <= 3 && held <= bytes.len());
        }
    }
}
