//! The kit's server on a thread of this process, for what only a handler sees.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use socket_steps::listener::Addr;
use socket_steps::server::{Config, Handle, Server, Summary};
use socket_steps::socket::Socket;
use socket_steps::stats::CloseReason;

use super::{Client, wait_until};

/// A server that is serving. Stopped when dropped.
pub struct Kit {
    pub handle: Handle,
    serving: Option<JoinHandle<Summary>>,
}

impl Kit {
    /// Serves on a free port of 127.0.0.1.
    pub fn serve(handler: impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static) -> Kit {
        Kit::configured(Config::default(), handler)
    }

    pub fn configured(config: Config, handler: impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static) -> Kit {
        Kit::on(Server::bind(["127.0.0.1:0"], config).unwrap(), handler)
    }

    /// Serves with a server that is bound already.
    pub fn on(server: Server, handler: impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static) -> Kit {
        let handle = server.handle();
        Kit { handle, serving: Some(std::thread::spawn(|| server.serve(handler))) }
    }

    pub fn address(&self) -> &Addr {
        &self.handle.local_addrs()[0]
    }

    pub fn socket_addr(&self) -> SocketAddr {
        self.address().to_string().parse().unwrap()
    }

    /// A connected client, with a bound on reads and writes.
    pub fn client(&self) -> Client {
        Client::connect(self.socket_addr())
    }

    /// How many connections have ended for this reason.
    pub fn ended(&self, reason: CloseReason) -> u64 {
        self.handle.snapshot().ended.get(&reason).copied().unwrap_or(0)
    }

    /// Waits until so many have ended for this reason.
    pub fn wait_for_end(&self, reason: CloseReason, count: u64) {
        wait_until(&format!("{count} ended ({reason})"), || (self.ended(reason) == count).then_some(()));
    }

    /// Stops it and waits for that.
    pub fn stop(mut self) -> Summary {
        self.handle.stop();
        self.wait()
    }

    /// Waits until it has stopped. Both equations of its accounts must hold.
    pub fn wait(&mut self) -> Summary {
        let serving = self.serving.take().unwrap();
        wait_until("the server stops", || serving.is_finished().then_some(()));
        let summary = serving.join().unwrap();
        assert_eq!(summary.accepted, summary.served + summary.refused + summary.failed, "{summary}");
        assert_eq!((summary.opened, summary.opened), (summary.served, summary.closed + summary.stuck), "{summary}");
        summary
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
