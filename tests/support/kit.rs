//! Servers of the kit with handlers of a test's own: inside the test's process, or, where the process itself
//! is looked at, in a child that is this test program once more.

use std::io;
use std::net::SocketAddr;
use std::process::{Command, exit};
use std::thread::{self, JoinHandle};

use socket_steps::addr::Addr;
use socket_steps::connection::State;
use socket_steps::server::{Config, Handle, Server, Summary};
use socket_steps::services;
use socket_steps::socket::Socket;
use socket_steps::stats::{CloseReason, ConnectionInfo, Event, Snapshot};

use super::{Client, PREFIX, wait_until};

/// A whole conversation with `lines`, to the clean end.
pub fn comes_and_goes(mut client: Client) {
    client.say_hello();
    assert!(client.end().rest().is_empty());
}

/// How many have ended, for whatever reason.
pub fn ended(snapshot: &Snapshot) -> u64 {
    snapshot.ended.values().sum()
}

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

    /// Serves lines, and tells this observer who comes and goes.
    pub fn observed(config: Config, observer: impl Fn(&Event) + Send + 'static) -> Kit {
        let server = Server::bind_observed(["127.0.0.1:0"], config, observer);
        Kit::on(server.unwrap(), services::lines(PREFIX, 1000))
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

    /// The only connection, as it is now; waits until there is one.
    pub fn connection(&self) -> ConnectionInfo {
        let one = || <[ConnectionInfo; 1]>::try_from(self.handle.snapshot().connections).ok();
        let [one] = wait_until("there is one connection", one);
        one
    }

    /// Waits until the only connection's handler has read this many bytes, has dealt with them, and waits
    /// for more.
    pub fn wait_until_read(&self, bytes: u64) {
        wait_until("the server reads", || (self.connection().bytes_in >= bytes).then_some(()));
        self.wait_until_idle();
    }

    /// Waits until the only connection's handler waits for its client.
    pub fn wait_until_idle(&self) {
        wait_until("the handler waits", || (self.connection().state == State::Idle).then_some(()));
    }

    /// Waits until no handler runs.
    pub fn wait_until_empty(&self) {
        wait_until("the handlers return", || (self.handle.snapshot().now == 0).then_some(()));
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

/// The environment variable that tells a child which test's server it is.
const ROLE: &str = "PLAYS_THE_SERVER_OF";

impl super::Server {
    /// Starts this test program once more, where the test of this name finds that it
    /// [is to serve](is_to_serve).
    pub fn of_test(test: &str) -> super::Server {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, test);
        super::Server::from_talkative_command(&mut command)
    }
}

/// Whether this process is the child that plays the server of this test.
pub fn is_to_serve(test: &str) -> bool {
    std::env::var_os(ROLE).is_some_and(|role| role == test)
}

/// In the child: behaves as the finished server does, with this handler, and does not return.
pub fn serve<H>(config: Config, handler: H) -> !
where
    H: Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
{
    env_logger::Builder::new().filter_level(log::LevelFilter::Info).init();
    let server = Server::bind(["127.0.0.1:0"], config).unwrap();
    let handle = server.handle();
    ctrlc::set_handler(move || handle.stop()).unwrap();
    // The test harness has begun a line of its own.
    println!("\nlistening on {}", server.local_addrs()[0]);
    let summary = server.serve(handler);
    println!("{summary}");
    exit(i32::from(!summary.is_clean()));
}
