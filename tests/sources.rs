//! With IPv6, one customer has more addresses than there could ever be connections: a network of 64 bits.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

#[path = "faults/machines.rs"]
#[allow(dead_code, reason = "one machine is enough here, and no cable")]
mod machines;
mod support;

use std::net::{Ipv6Addr, SocketAddr};

use machines::Machine;
use socket2::{Domain, Socket, Type};
use support::needs::skip;
use support::{Client, Server};

/// Two addresses of one customer, and one of another, from the addresses for documentation (RFC 3849).
const CUSTOMER: [&str; 2] = ["2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"];
const ANOTHER: &str = "2001:db8:0:2::1";

/// A machine that has all of these addresses; or why there is none.
fn machine() -> Result<Machine, String> {
    let machine = Machine::new()?;
    machine.ip("link set lo up")?;
    for address in CUSTOMER.into_iter().chain([ANOTHER]) {
        machine.ip(&format!("address add {address}/128 dev lo"))?;
    }
    Ok(machine)
}

/// A client of one of these addresses.
fn client_from(source: &str, server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    let source: Ipv6Addr = source.parse().unwrap();
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect_timeout(&server.socket_addr().into(), support::BOUND).unwrap();
    socket.set_read_timeout(Some(support::BOUND)).unwrap();
    Client(socket.into())
}

#[test]
fn a_network_of_64_bits_has_as_many_places_as_one_address() {
    let machine = match machine() {
        Ok(machine) => machine,
        Err(why) => return skip("namespaces", why),
    };
    machine.run(|| {
        let server = Server::listening_on("[::1]:0", &["--service", "lines", "--per-source", "1"]);
        let mut first = client_from(CUSTOMER[0], &server);
        first.say_hello();
        let connected = server.wait_for_log("#1 ");
        assert!(connected.contains(CUSTOMER[0]), "not its address: {connected}");
        let told = client_from(CUSTOMER[1], &server).rest_as_text();
        assert!(told.starts_with("busy: your address has as many connections"), "{told}");
        client_from(ANOTHER, &server).say_hello();
        // When the place is given back, any address of the network may have it.
        assert!(first.end().rest().is_empty());
        client_from(CUSTOMER[1], &server).say_hello();
        let accounts = server.stop().accounts;
        assert_eq!((accounts.of("served"), accounts.of("refused")), (3, 1));
    });
}
