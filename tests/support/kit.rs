//! Servers of the kit with handlers of a test's own, inside the test's process.

use std::io;
use std::net::SocketAddr;
use std::thread::{self, JoinHandle};

use socket_steps::listener::Addr;
use socket_steps::server::{Config, Handle, Server, Summary};
use socket_steps::socket::Socket;
use socket_steps::stats::CloseReason;

use super::{Client, wait_until};

/// A server in this process, on a port of its own. Stopped when dropped.
pub struct Kit {
    handle: Handle,
    serving: Option<JoinHandle<Summary>>,
}

impl Kit {
    pub fn serve<H>(config: Config, handler: H) -> Kit
    where
        H: Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
    {
        Kit::on(Server::bind(["127.0.0.1:0"], config).unwrap(), handler)
    }

    /// Serves with a server that is bound already.
    pub fn on<H>(server: Server, handler: H) -> Kit
    where
        H: Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
    {
        let handle = server.handle();
        Kit { handle, serving: Some(thread::spawn(move || server.serve(handler))) }
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    pub fn address(&self) -> &Addr {
        &self.handle.local_addrs()[0]
    }

    pub fn socket_addr(&self) -> SocketAddr {
        self.address().to_string().parse().unwrap()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.socket_addr())
    }

    /// How many connections have ended for this reason.
    pub fn ended(&self, reason: CloseReason) -> u64 {
        self.handle.snapshot().ended.get(&reason).copied().unwrap_or_default()
    }

    /// Waits until so many have ended for this reason.
    pub fn wait_for_end(&self, reason: CloseReason, count: u64) {
        wait_until(&format!("{count} ended ({reason})"), || (self.ended(reason) == count).then_some(()));
    }

    /// Stops it, and waits for its end. Both equations of its accounts must hold.
    pub fn stop(mut self) -> Summary {
        self.handle.stop();
        self.join()
    }

    fn join(&mut self) -> Summary {
        let serving = self.serving.take().unwrap();
        wait_until("the server ends", || serving.is_finished().then_some(()));
        let summary = serving.join().unwrap();
        assert_eq!(summary.accepted, summary.served + summary.refused + summary.failed, "{summary}");
        assert_eq!((summary.opened, summary.opened), (summary.served, summary.closed + summary.stuck), "{summary}");
        summary
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        self.handle.stop();
        if !thread::panicking() && self.serving.is_some() {
            self.join();
        }
    }
}
