//! Chapter 3, exercise 1: a server that listens without a bind.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

#[test]
fn the_kernel_gives_it_an_address() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let address = |socket: &Socket| -> SocketAddr { socket.local_addr().unwrap().as_socket().unwrap() };
    assert_eq!(address(&listener).port(), 0, "it has an address before it listens");
    listener.listen(128).unwrap();
    assert_eq!(address(&listener).ip(), Ipv4Addr::UNSPECIFIED);
    assert_ne!(address(&listener).port(), 0);

    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.connect(&address(&listener).into()).unwrap();
    assert_eq!(address(&client).ip(), Ipv4Addr::LOCALHOST);
    assert_ne!(address(&client).port(), 0, "connect binds a client");
}
