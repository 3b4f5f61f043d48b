//! Chapter 4: a server that answers, and a client that asks.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use log::info;
use socket_steps::chapter;
use socket_steps::narrate;

const GREETING: &str = "안녕하세요, 서버님!";

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
            eprintln!("usage: ch04_reply [server [ADDR] | client [ADDR]]");
            std::process::exit(2);
        }
    }
}

// ANCHOR: accept
/// Serves one client after another, for ever.
fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _peer) = listener.accept()?;
        info!(target: "server", "a client has connected");
        if let Err(error) = answer(stream) {
            info!(target: "server", "the client is gone: {error}");
        }
    }
}
// ANCHOR_END: accept

// ANCHOR: answer
/// Answers whatever comes, until the client ends.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            info!(target: "server", "the client has ended");
            return Ok(());
        }
        let data = &bytes[..count];
        info!(target: "server", "received {}", String::from_utf8_lossy(data).trim_end());
        stream.write_all(&["서버 응답: ".as_bytes(), data].concat())?;
    }
}
// ANCHOR_END: answer

// ANCHOR: server
fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    serve(&listener)
}
// ANCHOR_END: server

// ANCHOR: client
fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let mut stream = TcpStream::connect(address)?;
    info!(target: "client", "connected");
    greet("client", &mut stream)?;
    let answer = receive(&mut stream)?;
    println!("{answer}");
    end("client", &mut stream)
}

fn greet(actor: &str, stream: &mut TcpStream) -> io::Result<()> {
    info!(target: actor, "sending {GREETING}");
    stream.write_all(GREETING.as_bytes())
}

fn receive(stream: &mut TcpStream) -> io::Result<String> {
    let mut bytes = [0; 1024];
    let count = stream.read(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..count]).into_owned())
}

/// Ends our half, and waits for the server to end its own.
fn end(actor: &str, stream: &mut TcpStream) -> io::Result<()> {
    info!(target: actor, "ending");
    stream.shutdown(Shutdown::Write)?;
    let count = stream.read(&mut [0; 1])?;
    assert_eq!(count, 0, "the server has more to say");
    Ok(())
}
// ANCHOR_END: client

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client", "client-b"]);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || serve(&listener));
    one_client(address)?;
    two_clients(address)
}

fn one_client(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]); // The server's accept and our connect return at the same time.
    let mut client = TcpStream::connect(address)?;
    info!(target: "client", "connected");

    greet("client", &mut client)?;
    let answer = receive(&mut client)?;
    info!(target: "client", "received {answer}");
    end("client", &mut client)
}

fn two_clients(address: SocketAddr) -> io::Result<()> {
    narrate::share_row(&["server", "client"]);
    let mut client = TcpStream::connect(address)?;
    info!(target: "client", "connected, and silent");

    let mut client_b = TcpStream::connect(address)?;
    info!(target: "client-b", "connected");
    greet("client-b", &mut client_b)?;
    client_b.set_read_timeout(Some(Duration::from_millis(500)))?;
    let error = receive(&mut client_b).expect_err("the server is busy with the first client");
    info!(target: "client-b", "half a second later: {error}");

    end("client", &mut client)?;
    client_b.set_read_timeout(None)?;
    let answer = receive(&mut client_b)?;
    info!(target: "client-b", "received {answer}");
    end("client-b", &mut client_b)
}
