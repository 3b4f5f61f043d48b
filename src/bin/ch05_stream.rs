//! Chapter 5: a stream carries bytes, not messages. So: lines, with a limit.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use log::info;
use socket_steps::chapter;
use socket_steps::narrate;

const PREFIX: &str = "서버 응답: ";

/// How many bytes a line may have, its newline not counted.
const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let words = chapter::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => scene(),
        ["server"] => server("127.0.0.1:8080"),
        ["server", address] => server(address),
        ["client"] => client("127.0.0.1:8080"),
        ["client", address] => client(address),
        _ => {
            eprintln!("usage: ch05_stream [server [ADDR] | client [ADDR]]");
            std::process::exit(2);
        }
    }
}

// ANCHOR: line_buffer
/// Bytes on their way to becoming lines.
struct LineBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl LineBuffer {
    fn new(limit: usize) -> LineBuffer {
        LineBuffer { bytes: Vec::new(), limit }
    }

    /// Reads one piece, whatever its size; 0 is the end.
    fn read_from(&mut self, source: &mut impl Read) -> io::Result<usize> {
        let mut piece = [0; 1024];
        let count = source.read(&mut piece)?;
        self.bytes.extend_from_slice(&piece[..count]);
        Ok(count)
    }
    // ANCHOR_END: line_buffer

    // ANCHOR: next_line
    /// Takes the first line out, if all of it has come. Its newline belongs to it.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        let newline = self.bytes.iter().position(|&byte| byte == b'\n');
        let length = newline.unwrap_or(self.bytes.len());
        if length > self.limit {
            return Err(TooLong { limit: self.limit });
        }
        Ok(newline.map(|at| self.bytes.drain(..=at).collect()))
    }
}
// ANCHOR_END: next_line

/// A line that is longer than its limit.
#[derive(Debug)]
struct TooLong {
    limit: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too long: a line may have at most {} bytes", self.limit)
    }
}

// ANCHOR: answer
/// Answers each line, until the client ends.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = LineBuffer::new(LIMIT);
    loop {
        match buffer.next_line() {
            Ok(Some(line)) => stream.write_all(&[PREFIX.as_bytes(), &line].concat())?,
            Err(too_long) => return stream.write_all(format!("{too_long}\n").as_bytes()),
            Ok(None) => {
                if buffer.read_from(&mut stream)? == 0 {
                    break;
                }
            }
        }
    }
    // The end of the input is the end of the last line, too.
    if !buffer.bytes.is_empty() {
        stream.write_all(&[PREFIX.as_bytes(), &buffer.bytes].concat())?;
    }
    Ok(())
}
// ANCHOR_END: answer

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _peer) = listener.accept()?;
        info!(target: "server", "a client has connected");
        match answer(stream) {
            Ok(()) => info!(target: "server", "the client has ended"),
            Err(error) => info!(target: "server", "the client is gone: {error}"),
        }
    }
}

fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let mut stream = TcpStream::connect(address)?;
    info!(target: "client", "sending one line in two pieces");
    let line = "안녕하세요, 서버님!\n".as_bytes();
    stream.write_all(&line[..4])?;
    stream.write_all(&line[4..])?;

    let mut buffer = LineBuffer::new(LIMIT);
    while buffer.read_from(&mut stream)? > 0 {
        if let Ok(Some(line)) = buffer.next_line() {
            print!("{}", String::from_utf8_lossy(&line));
            return stream.shutdown(Shutdown::Both);
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn scene() -> io::Result<()> {
    narrate::scene(&["client", "server"]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _peer) = listener.accept()?;

    three_writes_one_read(&mut client, &mut server)?;
    one_write_three_reads(&mut client, &mut server)?;
    lines_however_they_are_cut(&mut client, &mut server)?;
    a_line_without_end(&mut client, &mut server)
}

fn three_writes_one_read(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    for word in ["하나", "둘", "셋"] {
        info!(target: "client", "write {word}");
        client.write_all(word.as_bytes())?;
    }
    read_piece(server, 100)
}

fn one_write_three_reads(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    info!(target: "client", "write 하나");
    client.write_all("하나".as_bytes())?;
    read_piece(server, 2)?;
    read_piece(server, 2)?;
    read_piece(server, 2)
}

fn read_piece(server: &mut TcpStream, size: usize) -> io::Result<()> {
    let mut bytes = vec![0; size];
    let count = server.read(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    info!(target: "server", "read {count} bytes: {text}");
    Ok(())
}

fn lines_however_they_are_cut(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let mut buffer = LineBuffer::new(LIMIT);
    let text = "하나\n둘\n".as_bytes();
    for piece in [&text[..4], &text[4..9], &text[9..]] {
        info!(target: "client", "write {} bytes", piece.len());
        client.write_all(piece)?;
        let count = buffer.read_from(server)?;
        info!(target: "server", "read {count} bytes");
        while let Ok(Some(line)) = buffer.next_line() {
            let line = String::from_utf8_lossy(&line);
            info!(target: "server", "a line: {}", line.trim_end());
        }
    }
    Ok(())
}

fn a_line_without_end(client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let mut buffer = LineBuffer::new(1000);
    info!(target: "client", "write, and write, and never a newline");
    let too_long = loop {
        client.write_all(&[b'x'; 100])?;
        buffer.read_from(server)?;
        if let Err(too_long) = buffer.next_line() {
            break too_long;
        }
    };
    info!(target: "server", "{too_long}");
    Ok(())
}
