//! Chapter 2: an address is a number of 32 bits, and a port is one of 16.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};

use log::info;
use socket_steps::narrate;
use socket2::{Domain, Socket, Type};

fn main() -> io::Result<()> {
    if std::env::args().len() > 1 {
        eprintln!("usage: ch02_address (it takes no arguments)");
        std::process::exit(2);
    }
    narrate::scene(&["address"]);
    a_socket_alone()?;
    an_address_is_a_number();
    a_name_has_addresses()?;
    a_port_is_a_door()?;
    taken_and_empty()
}

// ANCHOR: alone
fn a_socket_alone() -> io::Result<()> {
    info!(target: "address", "a socket alone: writing into it");
    let mut socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let error = socket.write_all(b"hello?").expect_err("there is no other end");
    info!(target: "address", "write: {error}");
    Ok(())
}
// ANCHOR_END: alone

// ANCHOR: number
fn an_address_is_a_number() {
    let ip = Ipv4Addr::new(127, 0, 0, 1);
    let [a, b, c, d] = ip.octets();
    info!(target: "address", "{ip} is four octets: {a:08b} {b:08b} {c:08b} {d:08b}");
    info!(target: "address", "and one number of 32 bits: {}", u32::from(ip));

    let address = SocketAddr::new(IpAddr::V4(ip), 8080);
    info!(target: "address", "with a port it is a socket address: {address}");
    // ANCHOR_END: number

    // ANCHOR: ipv6
    let ip = Ipv6Addr::LOCALHOST;
    info!(target: "address", "IPv6 has 128 bits: {ip} is {:032x}", u128::from(ip));
    let address = SocketAddr::new(IpAddr::V6(ip), 8080);
    info!(target: "address", "with a port it needs brackets: {address}");
}
// ANCHOR_END: ipv6

// ANCHOR: name
fn a_name_has_addresses() -> io::Result<()> {
    // A name may have several addresses. We take the first with four octets.
    let addresses = "localhost:8080".to_socket_addrs()?;
    for address in addresses.filter(SocketAddr::is_ipv4).take(1) {
        info!(target: "address", "the name localhost:8080 leads to {address}");
    }
    Ok(())
}
// ANCHOR_END: name

// ANCHOR: free
fn a_port_is_a_door() -> io::Result<()> {
    info!(target: "address", "asking for port 0: whichever is free");
    let first = TcpListener::bind("127.0.0.1:0")?;
    let address = first.local_addr()?;
    info!(target: "address", "the kernel gave us {address}");
    // ANCHOR_END: free

    // ANCHOR: both_ends
    let client = TcpStream::connect(address)?;
    let (ours, theirs) = (client.local_addr()?, client.peer_addr()?);
    info!(target: "address", "a client has connected: from {ours} to {theirs}");
    // ANCHOR_END: both_ends

    // ANCHOR: taken
    info!(target: "address", "asking for that same port again");
    let error = TcpListener::bind(address).expect_err("the port is taken");
    info!(target: "address", "bind: {error}");
    // ANCHOR_END: taken

    // ANCHOR: nobody
    info!(target: "address", "closing the listener, then connecting to where it was");
    drop(first);
    let error = TcpStream::connect(address).expect_err("nobody listens there");
    info!(target: "address", "connect: {error}");
    Ok(())
}
// ANCHOR_END: nobody

// ANCHOR: bound
fn taken_and_empty() -> io::Result<()> {
    let first = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    first.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    info!(target: "address", "a socket is bound to {address}, and nothing more");
    let error = TcpListener::bind(address).expect_err("the port is taken");
    info!(target: "address", "another bind to it: {error}");
    let error = TcpStream::connect(address).expect_err("nobody can be reached there");
    info!(target: "address", "a connect to it: {error}");
    Ok(())
}
// ANCHOR_END: bound
