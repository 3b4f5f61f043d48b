//! Chapter 14: a client that can be trusted. It connects in time or not at all, tries again, and ends properly.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use log::info;
use socket_steps::backoff::Backoff;
use socket_steps::chapter::{Part, part};
use socket_steps::client::{Client, RetryPolicy};
use socket_steps::deadline::Timeouts;
use socket_steps::narrate;
use socket_steps::options::exit_with;
use socket_steps::server::{Config, Server};
use socket_steps::services;
use socket2::{Domain, Socket as RawSocket, Type};

const GREETING: &str = "안녕하세요, 서버님!";

fn main() -> io::Result<()> {
    match part("ch14_client [client [ADDR]]") {
        Part::Client(address) => client(&address).map_err(|error| exit_with(1, &format!("ch14_client: {error}"))),
        _ => scene(),
    }
}

// ANCHOR: connect
/// Connects to the first address that answers, within a deadline for all of them together.
fn connect(addresses: impl ToSocketAddrs, within: Duration) -> io::Result<TcpStream> {
    let began = Instant::now();
    let mut failure = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in addresses.to_socket_addrs()? {
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
// ANCHOR_END: connect

// ANCHOR: retry
/// Tries again, after a pause that doubles: a server that is starting is not helped by a thousand knocks.
fn connect_patiently(addresses: impl ToSocketAddrs + Copy, tries: u32) -> io::Result<TcpStream> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    for _ in 1..tries {
        match connect(addresses, Duration::from_secs(2)) {
            Ok(stream) => return Ok(stream),
            Err(_) => thread::sleep(backoff.after_failure()),
        }
    }
    connect(addresses, Duration::from_secs(2))
}
// ANCHOR_END: retry

// ANCHOR: converse
/// Says a line, ends our half, and hears everything that the server has to say to that.
fn converse(mut stream: TcpStream, line: &str) -> io::Result<String> {
    // A server that says nothing for so long has gone, or is stuck.
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    info!(target: "client", "sending {line}, and ending");
    stream.write_all(format!("{line}\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    info!(target: "client", "received {}, and the end", answer.trim_end());
    Ok(answer)
}
// ANCHOR_END: converse

/// The same, on the kit.
// ANCHOR: client
fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let retry = RetryPolicy { tries: 5, ..RetryPolicy::default() };
    let patience = Timeouts { idle: Some(Duration::from_secs(3)), ..Timeouts::default() };
    let client = Client::to(address).within(Duration::from_secs(2)).retry(retry).timeouts(patience);
    let mut socket = client.connect()?;
    info!(target: "client", "connected to {}", socket.peer());
    socket.write_all(format!("{GREETING}\n").as_bytes())?;
    socket.end()?;
    print!("{}", io::read_to_string(&mut socket)?);
    Ok(())
}
// ANCHOR_END: client

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client"]);
    two_addresses()?;
    nobody_answers()?;
    comes_late()
}

/// A server at one address, and a name that has another one, too, and has it first.
fn two_addresses() -> io::Result<()> {
    let server = Server::bind(["127.0.0.1:0"], Config::default())?;
    let (v4, stop) = (address_of(&server)?, server.handle());
    let serving = thread::spawn(|| server.serve(services::lines("서버 응답: ", 64 * 1024)));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, v4.port()));
    info!(target: "server", "listening on {v4}");

    let error = TcpStream::connect(v6).expect_err("nobody listens there");
    info!(target: "client", "{v6}: {error}");
    let stream = connect(&[v6, v4][..], Duration::from_secs(2))?;
    info!(target: "client", "connected to {}", stream.peer_addr()?);
    converse(stream, GREETING)?;
    stop.stop();
    serving.join().expect("serving does not panic");
    Ok(())
}

fn address_of(server: &Server) -> io::Result<SocketAddr> {
    server.local_addrs()[0].to_string().parse().map_err(io::Error::other)
}

/// A server whose backlog is full, and which does not accept: connecting to it hangs.
fn nobody_answers() -> io::Result<()> {
    let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket().expect("it was bound to an IPv4 address");
    info!(target: "server", "a backlog of 0, and nobody accepts");
    // ANCHOR: nobody_answers
    socket.listen(0)?;
    let at_most = Duration::from_millis(300);
    let mut waiting = Vec::new();
    let error = loop {
        match connect(address, at_most) {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
    };
    // ANCHOR_END: nobody_answers
    info!(target: "client", "connections: {}, then: {error}", waiting.len());
    Ok(())
}

/// A server that is not there yet.
fn comes_late() -> io::Result<()> {
    // A port that is bound, and that nobody listens on, refuses everyone; and nobody else can have it.
    let socket = RawSocket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = socket.local_addr()?.as_socket().expect("it was bound to an IPv4 address");
    let error = connect(address, Duration::from_secs(2)).expect_err("nobody listens there yet");
    info!(target: "client", "{error}");
    info!(target: "client", "trying up to ten times");
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(200)); // It reads its configuration, say.
        info!(target: "server", "listening at last");
        socket.listen(128)?;
        let (mut stream, _peer) = TcpListener::from(socket).accept()?;
        io::copy(&mut stream, &mut io::sink())?;
        stream.write_all("서버 응답: 이제 왔어요\n".as_bytes())
    });
    converse(connect_patiently(address, 10)?, "계세요?")?;
    Ok(())
}
