//! Chapter 16: datagrams. They keep their edges, need no connection, and may never come.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use log::info;
use socket_steps::arq::link::{Faults, Link};
use socket_steps::chapter;
use socket_steps::narrate;
use socket_steps::options::exit_with;
use socket_steps::output::harmless;

const PREFIX: &str = "서버 응답: ";
const GREETING: &str = "안녕하세요, 서버님!";
const NUMBERS: [&str; 5] = ["하나", "둘", "셋", "넷", "다섯"];

/// What a datagram over IPv4 can carry: 65,535 bytes with its two headers, which have 20 and 8.
const LARGEST: usize = 65_507;

/// How long the client waits for an answer. It may have been lost; nobody will ever say so.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> io::Result<()> {
    let words = chapter::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => scene(),
        ["server"] => server("127.0.0.1:8080"),
        ["server", address] => server(address),
        ["client"] => client("127.0.0.1:8080"),
        ["client", address] if !address.starts_with('-') => client(address),
        ["client", "--bad-link", seed] => client_behind_a_bad_link("127.0.0.1:8080", number(seed)),
        ["client", address, "--bad-link", seed] | ["client", "--bad-link", seed, address] => {
            client_behind_a_bad_link(address, number(seed))
        }
        _ => usage(),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| usage())
}

fn usage() -> ! {
    eprintln!("usage: ch16_udp [server [HOST:PORT] | client [HOST:PORT] [--bad-link SEED]]");
    std::process::exit(2);
}

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let socket = UdpSocket::bind(address).unwrap_or_else(|error| give_up(address, &error));
    println!("listening on {}", socket.local_addr()?);
    serve(&socket)
}

// ANCHOR: serve
/// One socket and one thread, for everybody.
fn serve(socket: &UdpSocket) -> ! {
    loop {
        if let Err(error) = answer(socket) {
            info!(target: "server", "going on: {error}");
        }
    }
}

/// Answers one datagram with one datagram.
fn answer(socket: &UdpSocket) -> io::Result<()> {
    let mut datagram = [0; LARGEST];
    let (count, client) = socket.recv_from(&mut datagram)?;
    let question = &datagram[..count];
    info!(target: "server", "{client} says {}", shown(question));
    socket.send_to(&[PREFIX.as_bytes(), question].concat(), client)?;
    Ok(())
}
// ANCHOR_END: serve

/// What came, for people: others may have sent it.
fn shown(datagram: &[u8]) -> String {
    let text = String::from_utf8_lossy(datagram);
    if text.len() > 100 { format!("{} bytes", datagram.len()) } else { harmless(&text, &[]) }
}

fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let socket = connect(address);
    // ANCHOR: client
    info!(target: "client", "sending {GREETING}");
    socket.send(GREETING.as_bytes())?;
    match receive(&socket) {
        Ok(answer) => println!("{answer}"),
        Err(error) => exit_with(1, &format!("ch16_udp: no answer: {error}")),
    }
    // ANCHOR_END: client
    Ok(())
}

/// A socket for this server. Nothing is sent: the kernel only remembers the address.
fn connect(address: &str) -> UdpSocket {
    let connected = || {
        // ANCHOR: connect
        let server = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        // ANCHOR_END: connect
        Ok(socket)
    };
    connected().unwrap_or_else(|error| give_up(address, &error))
}

fn give_up(address: &str, error: &io::Error) -> ! {
    exit_with(2, &format!("ch16_udp: {address}: {error}"))
}

fn receive(socket: &UdpSocket) -> io::Result<String> {
    let mut datagram = [0; LARGEST];
    let count = socket.recv(&mut datagram)?;
    Ok(shown(&datagram[..count]))
}

/// Counts to five, through a link that is bad by order.
fn client_behind_a_bad_link(address: &str, seed: u64) -> io::Result<()> {
    narrate::aside();
    let socket = connect(address);
    // ANCHOR: bad_link
    let mut link = bad_link(seed);
    for (second, number) in (0..).zip(NUMBERS) {
        info!(target: "client", "sending {number}");
        link.send(Duration::from_secs(second), number.as_bytes());
    }
    // The link has a clock of its own: we need not wait for it.
    while let Some(arrival) = link.next_arrival() {
        let datagram = link.receive(arrival).unwrap_or_default();
        socket.send(&datagram)?;
    }
    // ANCHOR_END: bad_link
    while let Ok(answer) = receive(&socket) {
        println!("{answer}");
    }
    Ok(())
}

/// One of five is lost, one of five comes twice, and one of five is up to two seconds late.
fn bad_link(seed: u64) -> Link {
    let late_by = Duration::from_secs(2);
    Link::new(Faults { lost: 20, doubled: 20, late: 20, late_by, ..Faults::default() }, seed)
}

fn scene() -> io::Result<()> {
    narrate::scene(&["client", "link", "server"]);
    let server = UdpSocket::bind("127.0.0.1:0")?;
    let client = connect(&server.local_addr()?.to_string());
    edges(&client, &server)?;
    a_buffer_that_is_too_small(&client, &server)?;
    a_datagram_that_is_too_large(&client, &server)?;
    nobody_there()?;
    numbers_through_a_bad_link(&client, &server)
}

fn edges(client: &UdpSocket, server: &UdpSocket) -> io::Result<()> {
    for number in ["하나", "둘", "셋", ""] {
        info!(target: "client", "send {} bytes {number}", number.len());
        client.send(number.as_bytes())?;
    }
    let mut room = [0; 100];
    for _ in 0..4 {
        let count = server.recv(&mut room)?;
        info!(target: "server", "receive {count} bytes {}", shown(&room[..count]));
    }
    Ok(())
}

fn a_buffer_that_is_too_small(client: &UdpSocket, server: &UdpSocket) -> io::Result<()> {
    for word in ["안녕하세요", "서버님"] {
        info!(target: "client", "send {} bytes {word}", word.len());
        client.send(word.as_bytes())?;
        let mut room = [0; 9];
        let count = server.recv(&mut room)?;
        info!(target: "server", "receive {count} bytes {}", shown(&room[..count]));
    }
    Ok(())
}

fn a_datagram_that_is_too_large(client: &UdpSocket, server: &UdpSocket) -> io::Result<()> {
    let bytes = [b'x'; LARGEST + 1];
    let error = client.send(&bytes).expect_err("more than fits");
    info!(target: "client", "send {} bytes: {error}", bytes.len());
    let sent = client.send(&bytes[..LARGEST])?;
    info!(target: "client", "send {sent} bytes");
    info!(target: "server", "receive {}", receive(server)?);
    Ok(())
}

fn nobody_there() -> io::Result<()> {
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
    let client = connect(&nobody.to_string());
    info!(target: "client", "connect to nobody: no error");
    let sent = client.send("여보세요?".as_bytes())?;
    info!(target: "client", "send {sent} bytes: no error");
    let error = receive(&client).expect_err("nobody answers");
    info!(target: "client", "receive: {error}");
    Ok(())
}

fn numbers_through_a_bad_link(client: &UdpSocket, server: &UdpSocket) -> io::Result<()> {
    let mut link = bad_link(17);
    let deliver = |link: &mut Link, now: Duration| {
        while let Some(datagram) = link.receive(now) {
            client.send(&datagram)?;
            info!(target: "server", "received {}", receive(server)?);
        }
        Ok::<(), io::Error>(())
    };
    for (second, number) in (0..).zip(NUMBERS) {
        info!(target: "client", "sending {number}");
        let now = Duration::from_secs(second);
        let fate = link.send(now, number.as_bytes());
        for (is_so, what) in [(fate.lost, "lost"), (fate.doubled, "doubled"), (fate.late, "late")] {
            if is_so {
                info!(target: "link", "{number} is {what}");
            }
        }
        deliver(&mut link, now)?;
    }
    deliver(&mut link, Duration::MAX)
}
