//! What the finished server can do with a connection: `reply`, `echo`, `lines`, `chat`.
//!
//! Each service is a handler for [`Server::serve`](crate::server::Server::serve): a conversation with one
//! client, from top to bottom, for as long as it lasts.

use std::io::{self, Read, Write};

use crate::lines::{LineBuffer, TooLong, incomplete_character};
use crate::outbox::Outbox;
use crate::room::{self, Presence, Room};
use crate::socket::{OnStop, Socket};

/// A piece's buffer at first. Ten thousand idle connections should not hold ten thousand large ones.
const FIRST_PIECE: usize = 2 * 1024;

/// A piece at most: smaller ones halve the throughput of a stream, larger ones gain nothing.
const LARGEST_PIECE: usize = 64 * 1024;

/// Answers every piece, as it arrives, with `prefix` and the piece.
///
/// A piece is whatever one read returns: TCP does not say where the client's messages end. But no character
/// is torn apart: when a piece ends in the middle of one, its first bytes are held until the rest has come.
/// They are flushed, the prefix first, when the input ends, when they have been held for the message
/// deadline, or when the server stops. Bytes that are not UTF-8 pass unchanged.
pub fn reply(prefix: &str) -> impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static {
    let prefix = prefix.as_bytes().to_vec();
    move |socket| reply_to(socket, &prefix)
}

fn reply_to(mut socket: Socket, prefix: &[u8]) -> io::Result<()> {
    // The prefix stands before the piece for good, so that an answer is one slice, and one system call.
    let start = prefix.len();
    let mut buffer = Buffer::EMPTY;
    buffer.begin_with(prefix);
    let mut held = 0;
    loop {
        let bytes = buffer.bytes();
        let read = socket.read(&mut bytes[start + held..]);
        let count = match &read {
            Ok(count) => *count,
            Err(_) => 0,
        };
        if count == 0 {
            let flushed = if held > 0 { socket.write_all(&bytes[..start + held]) } else { Ok(()) };
            // After a reset the flush fails too, but that is not why the connection has ended.
            return read.and(flushed);
        }
        let end = start + held + count;
        held = incomplete_character(&bytes[start..end]);
        let complete = end - held;
        if complete > start {
            socket.write_all(&bytes[..complete])?;
            socket.end_message();
            bytes.copy_within(complete..end, start);
        }
        if held > 0 {
            socket.begin_message(OnStop::Interrupt);
        }
        buffer.grow(end);
    }
}

/// Sends every piece back as it came (RFC 862), and holds nothing.
pub fn echo(mut socket: Socket) -> io::Result<()> {
    let mut buffer = Buffer::EMPTY;
    loop {
        let bytes = buffer.bytes();
        let count = socket.read(bytes)?;
        if count == 0 {
            return Ok(());
        }
        socket.write_all(&bytes[..count])?;
        buffer.grow(count);
    }
}

/// A buffer for pieces. It is small at first, and then on the stack, of which a thread that waits has some at hand
/// anyway: with a hundred busy connections, another page for each costs 2 % of a message.
// In this order, what is looked at for each piece lies beside the piece's first bytes.
#[repr(C)]
struct Buffer {
    /// How much of it stands before every piece.
    start: usize,
    /// In place of the small one, when it was too small.
    large: Vec<u8>,
    small: [u8; FIRST_PIECE],
}

impl Buffer {
    const EMPTY: Buffer = Buffer { start: 0, large: Vec::new(), small: [0; FIRST_PIECE] };

    /// Puts in what stands before every piece.
    fn begin_with(&mut self, prefix: &[u8]) {
        self.start = prefix.len();
        if prefix.len() > FIRST_PIECE / 2 {
            self.large.resize(prefix.len() + FIRST_PIECE, 0);
        }
        self.bytes()[..prefix.len()].copy_from_slice(prefix);
    }

    fn bytes(&mut self) -> &mut [u8] {
        if self.large.is_empty() { &mut self.small } else { &mut self.large }
    }

    /// A read that filled the buffer means that more was there: the next one may take more.
    fn grow(&mut self, filled: usize) {
        if filled == self.bytes().len() {
            self.enlarge(filled);
        }
    }

    #[cold]
    fn enlarge(&mut self, filled: usize) {
        let most = self.start + LARGEST_PIECE;
        if filled < most {
            if self.large.is_empty() {
                self.large.extend_from_slice(&self.small);
            }
            self.large.resize(most.min(filled * 4), 0);
        }
    }
}

/// Answers every line with `prefix` and the line, its `\n` included; at the end of the input, also a last
/// line without one.
///
/// A line over `limit` bytes (the newline not counted) is answered `too long: …`, and the connection ends. A
/// line that has begun has to be complete within the message deadline.
pub fn lines(prefix: &str, limit: usize) -> impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static {
    let prefix = prefix.as_bytes().to_vec();
    move |socket| lines_to(socket, &prefix, limit)
}

fn lines_to(mut socket: Socket, prefix: &[u8], limit: usize) -> io::Result<()> {
    let mut buffer = LineBuffer::new(limit);
    // Lines that arrive together are answered together: one system call for many short ones.
    let mut answer = Vec::new();
    // The server is stopping, and the line in hand is the last one that is answered.
    let mut is_last = false;
    loop {
        let mut answered = false;
        let too_long = loop {
            match buffer.next_line() {
                Ok(Some(line)) => {
                    answered = true;
                    // Room for most answers at once: one that grows with every line leaves blocks of every size
                    // behind, and the C library keeps some of each size for each thread, megabytes in all.
                    answer.reserve(FIRST_PIECE);
                    answer.extend_from_slice(prefix);
                    answer.extend_from_slice(line);
                    if answer.len() >= LARGEST_PIECE {
                        socket.write_all(&answer)?;
                        answer.clear();
                    }
                }
                Ok(None) => break None,
                Err(too_long) => break Some(too_long),
            }
        };
        if let Some(too_long) = too_long {
            answer.extend_from_slice(format!("{too_long}\n").as_bytes());
            socket.write_all(&answer)?;
            return Err(too_long.into());
        }
        if answered {
            socket.write_all(&answer)?;
            answer.clear();
            socket.end_message();
            if is_last {
                return Ok(());
            }
        }
        // What had arrived by the stop may end in the middle of a line. That line is in flight: it is finished.
        is_last = socket.is_after_last_call();
        if !buffer.rest().is_empty() {
            socket.begin_message(OnStop::Finish);
        }
        if buffer.read_from(&mut socket)? == 0 {
            let rest = buffer.rest();
            if !rest.is_empty() {
                socket.write_all(&[prefix, rest].concat())?;
            }
            return Ok(());
        }
    }
}

/// Says every line to everyone else in `room`; at the end of the input, also a last line without a newline.
///
/// A client hears the others while it is silent, so a second thread writes to it. One that does not read what
/// the others say is ended, and nobody waits for it. Lines are bounded, in length and in time, as for [`lines`].
pub fn chat(room: Room, limit: usize) -> impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static {
    move |mut socket| {
        let outbox = Outbox::new(&socket, limit);
        let writing = match outbox.start(&socket, None) {
            Ok(writing) => writing,
            Err(error) => {
                socket.write_all(b"busy: no thread could be started, try again later\n")?;
                return Err(error);
            }
        };
        let presence = room.enter(&outbox, room::as_line);
        let heard = chat_with(&mut socket, &presence, limit);
        // What the others have said until now still reaches it.
        drop(presence);
        if let Err(error) = &heard
            && let Some(too_long) = error.get_ref().and_then(|inner| inner.downcast_ref::<TooLong>())
        {
            let _ = outbox.push_own(room::as_line(too_long.to_string().as_bytes()).into());
        }
        writing.finish(heard)
    }
}

fn chat_with(socket: &mut Socket, presence: &Presence, limit: usize) -> io::Result<()> {
    let mut buffer = LineBuffer::new(limit);
    let mut is_last = false;
    loop {
        let mut said = false;
        while let Some(line) = buffer.next_line()? {
            presence.say(&line[..line.len() - 1]);
            said = true;
        }
        if said {
            socket.end_message();
            if is_last {
                return Ok(());
            }
        }
        // As for `lines`: one that is in flight at the stop is finished.
        is_last = socket.is_after_last_call();
        if !buffer.rest().is_empty() {
            socket.begin_message(OnStop::Finish);
        }
        if buffer.read_from(socket)? == 0 {
            let rest = buffer.rest();
            if !rest.is_empty() {
                presence.say(rest);
            }
            return Ok(());
        }
    }
}
