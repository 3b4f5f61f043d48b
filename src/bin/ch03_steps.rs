//! Chapter 3: the steps of a connection, one system call at a time, and what the kernel says after each.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};

use log::info;
use socket_steps::chapter;
use socket_steps::narrate;
use socket2::{Domain, Socket, Type};

const GREETING: &str = "안녕하세요, 서버님!";
const ANSWER: &str = "서버 응답: 안녕하세요, 서버님!";

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
            eprintln!("usage: ch03_steps [server [ADDR] | client [ADDR]]");
            std::process::exit(2);
        }
    }
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client"]);
    every_step_in_order()?;
    steps_out_of_order()?;
    a_connect_that_nobody_answers()
}

fn every_step_in_order() -> io::Result<()> {
    let listener = listen_on("127.0.0.1:0")?;
    let address = address_of(&listener)?;
    let mut client = connect_to(address)?;

    info!(target: "server", "accept");
    let (mut connection, _peer) = listener.accept()?;
    info!(target: "server", "  {}", state_of(&connection)?);

    let mut bytes = [0; 100];
    info!(target: "client", "send: {GREETING}");
    client.write_all(GREETING.as_bytes())?;
    let count = connection.read(&mut bytes)?;
    info!(target: "server", "receive: {count} bytes");

    info!(target: "server", "send: {ANSWER}");
    connection.write_all(ANSWER.as_bytes())?;
    let count = client.read(&mut bytes)?;
    info!(target: "client", "receive: {count} bytes");

    // ANCHOR: end
    info!(target: "client", "shutdown: I have said everything");
    client.shutdown(Shutdown::Write)?;
    let count = connection.read(&mut bytes)?;
    info!(target: "server", "receive: {count} bytes, which is the end");
    narrate::share_row(&["server", "client"]);
    info!(target: "server", "  {}", state_of(&connection)?);
    info!(target: "client", "  {}", state_of(&client)?);

    info!(target: "server", "close");
    drop(connection);
    let count = client.read(&mut bytes)?;
    info!(target: "client", "receive: {count} bytes, which is the end");
    let ours = address_of(&client)?;
    drop(client);
    info!(target: "client", "close");
    info!(target: "client", "  {}", state_between(ours, Some(address)));
    Ok(())
}
// ANCHOR_END: end

// ANCHOR: listen_on
/// Steps 1 and 2 of a server: create; bind and listen.
fn listen_on(address: &str) -> io::Result<Socket> {
    let address = parse(address)?;
    info!(target: "server", "socket");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;

    info!(target: "server", "bind to {address}");
    socket.set_reuse_address(true)?; // Exercise 2 takes this line out.
    socket.bind(&address.into())?;
    info!(target: "server", "  {}", state_of(&socket)?);

    info!(target: "server", "listen");
    socket.listen(128)?;
    info!(target: "server", "  {}", state_of(&socket)?);
    Ok(socket)
}
// ANCHOR_END: listen_on

// ANCHOR: connect_to
/// Steps 1 and 3 of a client: create; connect.
fn connect_to(address: SocketAddr) -> io::Result<Socket> {
    info!(target: "client", "socket");
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;

    info!(target: "client", "connect to {address}");
    socket.connect(&address.into())?;
    info!(target: "client", "  {}", state_of(&socket)?);
    Ok(socket)
}
// ANCHOR_END: connect_to

fn steps_out_of_order() -> io::Result<()> {
    let new_socket = || Socket::new(Domain::IPV4, Type::STREAM, None);
    let here: SocketAddr = ([127, 0, 0, 1], 0).into();

    // ANCHOR: out_of_order
    let server = new_socket()?;
    server.bind(&here.into())?;
    info!(target: "server", "accept, without listen");
    let error = server.accept().expect_err("it does not listen");
    info!(target: "server", "  {error}");
    // ANCHOR_END: out_of_order

    let client = new_socket()?;
    let address = address_of(&server)?;
    info!(target: "client", "connect, before the server listens");
    let error = client.connect(&address.into()).expect_err("nobody listens");
    info!(target: "client", "  {error}");

    let mut client = new_socket()?;
    info!(target: "client", "send, without connect");
    let error = client.write_all(b"hello?").expect_err("there is no other side");
    info!(target: "client", "  {error}");
    Ok(())
}

fn a_connect_that_nobody_answers() -> io::Result<()> {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(0)?; // Linux keeps room for one more than we say: one.
    let address = address_of(&listener)?;
    let first = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    first.connect(&address.into())?;

    // ANCHOR: unanswered
    let second = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    second.set_nonblocking(true)?; // Do not wait for the answer.
    info!(target: "client", "connect to a server whose backlog is full");
    let error = second.connect(&address.into()).expect_err("the answer is not there yet");
    info!(target: "client", "  {error}");
    info!(target: "client", "  {}", state_between(address_of(&second)?, Some(address)));
    // ANCHOR_END: unanswered
    Ok(())
}

/// The server's steps alone, for one client after another.
fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let listener = listen_on(address)?;
    println!("listening on {}", address_of(&listener)?);
    loop {
        let (mut connection, _peer) = listener.accept()?;
        let mut bytes = [0; 100];
        let count = connection.read(&mut bytes)?;
        info!(target: "server", "receive: {count} bytes");
        connection.write_all(ANSWER.as_bytes())?;
        info!(target: "server", "close");
    }
}

/// The client's steps alone.
fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let mut socket = connect_to(parse(address)?)?;
    info!(target: "client", "send: {GREETING}");
    socket.write_all(GREETING.as_bytes())?;
    let mut bytes = [0; 100];
    let count = socket.read(&mut bytes)?;
    println!("{}", String::from_utf8_lossy(&bytes[..count]));
    info!(target: "client", "close");
    Ok(())
}

fn parse(address: &str) -> io::Result<SocketAddr> {
    address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

fn address_of(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// The state of a socket, by its own address and the other side's.
fn state_of(socket: &Socket) -> io::Result<&'static str> {
    let peer = socket.peer_addr().ok().and_then(|peer| peer.as_socket());
    Ok(state_between(address_of(socket)?, peer))
}

// ANCHOR: state
/// Looks a connection up in the kernel's own table: proc(5), /proc/net/tcp.
///
/// In a line of it everything is hexadecimal: `0: 0100007F:1F90 00000000:0000 0A …` is a socket at
/// 127.0.0.1:8080 without another side, in state 10, which is LISTEN.
fn state_between(ours: SocketAddr, theirs: Option<SocketAddr>) -> &'static str {
    let Ok(table) = fs::read_to_string("/proc/net/tcp") else {
        return "(this system does not show its table)";
    };
    let wanted = [in_hexadecimal(Some(ours)), in_hexadecimal(theirs)];
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[1..3] == wanted {
            return match fields[3] {
                "01" => "ESTABLISHED",
                "02" => "SYN_SENT",
                "04" | "05" => "FIN_WAIT",
                "06" => "TIME_WAIT",
                "08" => "CLOSE_WAIT",
                "0A" => "LISTEN",
                _ => "in a state that this chapter does not meet",
            };
        }
    }
    "not in the table"
}
// ANCHOR_END: state

fn in_hexadecimal(address: Option<SocketAddr>) -> String {
    match address {
        Some(SocketAddr::V4(address)) => {
            let ip = u32::from_ne_bytes(address.ip().octets());
            format!("{ip:08X}:{:04X}", address.port())
        }
        _ => "00000000:0000".to_owned(),
    }
}
