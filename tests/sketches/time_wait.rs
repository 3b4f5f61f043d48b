//! Chapter 3, exercise 2: the end of a conversation keeps the address for a while.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

/// Chapter 3's `listen_on`, as it is and without the line that the exercise takes out.
fn listen_on(address: SocketAddr, reuse: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if reuse {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(128)?;
    Ok(socket)
}

/// One conversation that the server ends first; then the server ends, too. Returns where it was.
fn a_server_that_is_over(reuse: bool) -> SocketAddr {
    // Not the address from which others on this machine connect: one of their ports might be ours.
    let listener = listen_on(([127, 0, 0, 6], 0).into(), reuse).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    drop(listener.accept().unwrap());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    address
}

#[test]
fn without_the_line_the_port_is_taken_although_nobody_is_there() {
    let address = a_server_that_is_over(false);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(listen_on(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    // The page says so: the old connection should have had the line, too.
    assert_eq!(listen_on(address, true).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn with_the_line_the_port_can_be_had_again_at_once() {
    let address = a_server_that_is_over(true);
    listen_on(address, true).unwrap();
    // The old connection is still in the way of whoever does not ask.
    assert_eq!(listen_on(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}
