//! Chapter 6: a thread for each connection, and two for a conversation in both directions at once.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use log::info;
use socket_steps::chapter;
use socket_steps::lines::LineBuffer;
use socket_steps::narrate;

const PREFIX: &str = "서버 응답: ";
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
            eprintln!("usage: ch06_threads [server [ADDR] | client [ADDR]]");
            std::process::exit(2);
        }
    }
}

// ANCHOR: serve
/// Gives each client a thread, and is back at accept at once.
fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _peer) = listener.accept()?;
        info!(target: "server", "a client has connected");
        thread::spawn(move || {
            if let Err(error) = answer(&stream) {
                info!(target: "server", "the client is gone: {error}");
            }
        });
    }
}
// ANCHOR_END: serve

/// Answers each line, until the client ends.
fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = LineBuffer::new(LIMIT);
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
    if !buffer.rest().is_empty() {
        stream.write_all(&[PREFIX.as_bytes(), buffer.rest()].concat())?;
    }
    Ok(())
}

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    serve(&listener)
}

// ANCHOR: client
/// What you type goes out, what comes is shown: each in a thread of its own.
fn client(address: &str) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    let sending = stream.try_clone()?;
    thread::spawn(move || send_what_is_typed(sending));
    io::copy(&mut &stream, &mut io::stdout())?;
    Ok(())
}

fn send_what_is_typed(mut stream: TcpStream) -> io::Result<()> {
    io::copy(&mut io::stdin(), &mut stream)?;
    stream.shutdown(Shutdown::Write) // Ctrl-D: we have said everything, and go on reading.
}
// ANCHOR_END: client

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client", "client-b"]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || serve(&listener));
    two_clients(address)?;
    taking_turns(address)?;
    both_at_once(address)
}

fn two_clients(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]);
    let _silent = TcpStream::connect(address)?;
    info!(target: "client", "connected, and silent");

    narrate::share_row(&["server", "client-b"]);
    let mut client_b = TcpStream::connect(address)?;
    info!(target: "client-b", "connected");
    info!(target: "client-b", "sending 안녕하세요, 서버님!");
    client_b.write_all("안녕하세요, 서버님!\n".as_bytes())?;
    let mut bytes = [0; 100];
    let count = client_b.read(&mut bytes)?;
    let answer = String::from_utf8_lossy(&bytes[..count]);
    info!(target: "client-b", "received {}", answer.trim_end());
    Ok(())
}

// ANCHOR: taking_turns
/// First all of the question, then all of the answer.
fn taking_turns(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]);
    let mut stream = TcpStream::connect(address)?;
    info!(target: "client", "connected, to send 64 MiB before it reads");
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let error = stream.write_all(&lines(64)).expect_err("nobody takes the answers");
    info!(target: "client", "it cannot go on sending: {error}");

    stream.shutdown(Shutdown::Write)?;
    io::copy(&mut stream, &mut io::sink())?;
    info!(target: "client", "it has read what was waiting, and the server has gone on");
    Ok(())
}
// ANCHOR_END: taking_turns

// ANCHOR: both_at_once
/// One thread sends while another reads.
fn both_at_once(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client-b"]);
    let mut stream = TcpStream::connect(address)?;
    info!(target: "client-b", "connected, to send and read at once");
    let mut sending = stream.try_clone()?;
    thread::spawn(move || {
        sending.write_all(&lines(64))?;
        sending.shutdown(Shutdown::Write)
    });
    let count = io::copy(&mut stream, &mut io::sink())?;
    info!(target: "client-b", "received all of it: {} MiB and the prefixes", count >> 20);
    Ok(())
}

/// This many MiB, in lines of 64 KiB.
fn lines(mebibytes: usize) -> Vec<u8> {
    let mut line = vec![b'x'; LIMIT - 1];
    line.push(b'\n');
    line.repeat(mebibytes << 4)
}
// ANCHOR_END: both_at_once
