//! Chapter 7: a small pool of threads, and a channel without room.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
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
        ["server", ref options @ ..] => {
            let (address, limit) = address_and_limit(options);
            server(address, limit)
        }
        _ => usage(),
    }
}

fn address_and_limit<'a>(options: &[&'a str]) -> (&'a str, usize) {
    match *options {
        [] => ("127.0.0.1:8080", 4),
        [address] if address != "--limit" => (address, 4),
        ["--limit", limit] => ("127.0.0.1:8080", number(limit)),
        [address, "--limit", limit] | ["--limit", limit, address] => (address, number(limit)),
        _ => usage(),
    }
}

fn number(text: &str) -> usize {
    text.parse().ok().filter(|&number| number > 0).unwrap_or_else(|| usage())
}

fn usage() -> ! {
    eprintln!("usage: ch07_pool [server [ADDR] [--limit N]]");
    std::process::exit(2);
}

// ANCHOR: pool
/// Starts the workers, and returns the channel that they take clients from.
fn start_pool(workers: usize) -> Sender<TcpStream> {
    let (hand_off, clients) = bounded(0);
    for _ in 0..workers {
        let clients = clients.clone();
        thread::spawn(move || work(&clients));
    }
    hand_off
}

/// What a worker does all day.
fn work(clients: &Receiver<TcpStream>) {
    for stream in clients {
        if let Err(error) = answer(&stream) {
            info!(target: "server", "the client is gone: {error}");
        }
    }
}
// ANCHOR_END: pool

// ANCHOR: serve
/// Hands each client to a worker. Without a free worker, it waits; and whoever connects meanwhile waits in
/// the kernel.
fn serve(listener: &TcpListener, workers: usize) -> io::Result<()> {
    let hand_off = start_pool(workers);
    loop {
        let (stream, _peer) = listener.accept()?;
        info!(target: "server", "a client has connected");
        hand_off.send(stream).map_err(io::Error::other)?;
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

fn server(address: &str, workers: usize) -> io::Result<()> {
    narrate::aside();
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    serve(&listener, workers)
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client", "client-b"]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || serve(&listener, 1));
    info!(target: "server", "a pool of one worker");

    narrate::share_row(&["server", "client"]);
    let mut client = connect(address)?;
    info!(target: "client", "connected");
    greet("client", &mut client)?;

    narrate::share_row(&["server", "client-b"]);
    let mut client_b = connect(address)?;
    info!(target: "client-b", "connected");
    client_b.set_read_timeout(Some(Duration::from_millis(500)))?;
    let error = greet("client-b", &mut client_b).expect_err("the only worker is with the first client");
    info!(target: "client-b", "half a second later: {error}");

    info!(target: "client", "ending");
    drop(client);
    client_b.set_read_timeout(None)?;
    let answer = receive(&mut client_b)?;
    info!(target: "client-b", "received {answer}");
    Ok(())
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect(address)
}

fn greet(actor: &str, stream: &mut TcpStream) -> io::Result<()> {
    info!(target: actor, "sending 안녕하세요, 서버님!");
    stream.write_all("안녕하세요, 서버님!\n".as_bytes())?;
    let answer = receive(stream)?;
    info!(target: actor, "received {answer}");
    Ok(())
}

fn receive(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = [0; 100];
    let count = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned())
}
