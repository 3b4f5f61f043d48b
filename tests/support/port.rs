//! Ports at which nobody answers, in one way or another.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket as RawSocket, Type};

use super::wait_until;

/// A port of this machine that is kept from everyone else. Until it listens, connecting to it is refused.
pub struct Port {
    socket: RawSocket,
    pub address: SocketAddr,
    /// Whoever fills the backlog.
    held: Vec<TcpStream>,
}

impl Port {
    fn at(address: SocketAddr) -> Option<Port> {
        let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.bind(&address.into()).ok()?;
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Some(Port { socket, address, held: Vec::new() })
    }

    pub fn any() -> Port {
        Port::at("127.0.0.1:0".parse().unwrap()).unwrap()
    }

    /// The same port of both of localhost's addresses.
    pub fn both() -> [Port; 2] {
        wait_until("a port that is free twice", || {
            let v6 = Port::at("[::1]:0".parse().unwrap()).unwrap();
            let v4 = Port::at(SocketAddr::from(([127, 0, 0, 1], v6.address.port())))?;
            Some([v6, v4])
        })
    }

    pub fn refuses(self) -> Port {
        let error = TcpStream::connect(self.address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "it does not refuse");
        self
    }

    pub fn listens(self) -> Port {
        self.socket.listen(100).unwrap();
        self
    }

    /// Answers nobody: a listener whose backlog is full lets those who knock wait.
    pub fn hangs(mut self) -> Port {
        self.socket.listen(0).unwrap();
        while let Ok(client) = TcpStream::connect_timeout(&self.address, Duration::from_millis(100)) {
            self.held.push(client);
            assert!(self.held.len() < 10, "it does not hang");
        }
        self
    }

    /// Waits until somebody is connecting to it without an answer: the kernel's state SYN_SENT.
    pub fn wait_for_a_knock(&self) {
        let remote = format!(":{:04X} 02 ", self.address.port());
        let table = || std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        wait_until("somebody is connecting", || table().contains(&remote).then_some(()));
    }
}
