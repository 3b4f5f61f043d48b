//! The server: listeners, an accept loop, a pool of workers, and a stop that loses nothing.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::accept::Acceptor;
use crate::addr::Addr;
use crate::config::invalid;
use crate::farewell::{self, Farewell};
use crate::limits;
use crate::listener::Listener;
use crate::pool::Pool;
use crate::socket::Socket;
use crate::stats::{Event, Stats};
use crate::worker::Shared;

pub use crate::config::{Config, WhenFull};
pub use crate::handle::{Handle, Summary};

/// How long handlers may take to return once their connections have been cut. They only have to notice.
const AFTER_THE_CUT: Duration = Duration::from_millis(300);

/// How long the threads of the house may take to end when their work is done.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// A server that is bound: clients can connect, though nobody serves them yet.
///
/// ```
/// use socket_steps::server::{Config, Server};
/// use std::io::{Read, Write};
///
/// let server = Server::bind(["127.0.0.1:0"], Config::default())?;
/// let handle = server.handle();
/// let address = server.local_addrs()[0].to_string();
///
/// let serving = std::thread::spawn(move || {
///     server.serve(|mut socket| {
///         let mut greeting = String::new();
///         socket.read_to_string(&mut greeting)?; // to the client's end
///         socket.write_all(format!("you said {greeting}").as_bytes())
///     })
/// });
///
/// let mut client = std::net::TcpStream::connect(address)?;
/// client.write_all(b"hello")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(&client)?, "you said hello");
///
/// handle.stop();
/// let summary = serving.join().unwrap();
/// assert_eq!((summary.served, summary.stuck), (1, 0));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    config: Config,
    pool: Pool,
    farewell: Farewell,
    handle: Handle,
}

impl Server {
    /// Creates, binds and listens, on every address of every name, and starts the threads.
    ///
    /// An address is written as for [`Addr::resolve`]. Of a name with several addresses, those that this
    /// machine does not have are left out: `localhost` works without IPv6, too.
    ///
    /// # Errors
    /// When an address cannot be had, when the configuration asks for more than the machine can hold, or
    /// when a thread cannot be started. The message says which, and what to do about it.
    pub fn bind<A: AsRef<str>>(addresses: impl IntoIterator<Item = A>, config: Config) -> io::Result<Server> {
        Server::bind_observed(addresses, config, |_| {})
    }

    /// As [`bind`](Server::bind), and calls `observer` with every [`Event`], on the stats thread.
    ///
    /// # Errors
    /// As for `bind`.
    pub fn bind_observed<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        config: Config,
        observer: impl Fn(&Event) + Send + 'static,
    ) -> io::Result<Server> {
        config.check()?;
        let mut listeners = Vec::new();
        for address in addresses {
            listeners.extend(listen_on_every_address(address.as_ref())?);
        }
        listeners.iter().try_for_each(|listener| listener.set_nonblocking(true))?;
        if listeners.is_empty() {
            return Err(invalid("no address to listen on".to_owned()));
        }
        let pool = Pool::new(config.min_workers, config.max_connections)?;
        let addresses = listeners.iter().map(|listener| listener.local_addr().clone()).collect();
        let handle = Handle::new(addresses, pool.threads(), Stats::start_logging_at(config.log_level, observer)?)?;
        Ok(Server { listeners, config, pool, farewell: Farewell::start(limits::most_leaving())?, handle })
    }

    /// Where it listens, with the real ports.
    pub fn local_addrs(&self) -> &[Addr] {
        self.handle.local_addrs()
    }

    /// Something to stop it with and to ask it things, from any thread.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Accepts clients and gives each to `handler`, on a thread of its own, until it is
    /// [stopped](Handle::stop). Returns when everything has ended, or the drain deadline has passed.
    ///
    /// The handler is the conversation with one client, from top to bottom. It owns the socket; when it
    /// returns, however it returns, the connection is closed politely: what was written arrives. Its thread has a
    /// stack of half a mebibyte ([`pool::STACK`](crate::pool::STACK)).
    ///
    /// A stop is orderly. New clients, and those in the backlog, are told. Whoever is between two messages is
    /// ended at once; a message that has begun is finished. At the drain deadline the rest is cut.
    pub fn serve<H>(self, handler: H) -> Summary
    where
        H: Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
    {
        let Server { listeners, config, pool, farewell, handle } = self;
        let shared = Arc::new(Shared { handler, config, farewell, handle: handle.clone() });

        let mut acceptor = Acceptor::new(&listeners, &shared, &pool);
        let failure = acceptor.accept_until_stopped();
        let began = Instant::now();
        handle.stop.stop(); // Also after a failure: whoever is in a conversation ends it properly.
        let registry = &handle.registry;
        registry.connections().iter().for_each(|connection| connection.wake_if_idle());
        acceptor.turn_away_the_backlog();
        drop(listeners); // The ports are free.

        let drain = shared.config.drain;
        let open = registry.totals().now();
        if open > 0 {
            log::log!(shared.config.log_level, "stopping: {open} connections are open, and have {drain:?} to end");
        }
        if !registry.wait_until_empty(drain.saturating_sub(began.elapsed())) {
            let left = registry.connections();
            // A server that says nothing of its connections need not say this of them either.
            let level = shared.config.log_level;
            let level = if level > log::Level::Info { level } else { log::Level::Warn };
            log::log!(level, "the drain deadline has passed: cutting {} connections", left.len());
            left.iter().for_each(|connection| connection.cut());
            registry.wait_until_empty(AFTER_THE_CUT);
        }

        let stuck = registry.connections();
        for connection in &stuck {
            log::error!("#{} {}: its handler does not return", connection.id(), connection.peer());
        }
        // Handlers that have returned let go of their threads in a moment, however long that is on a busy
        // machine; with others among them, nobody can wait for all.
        let left = drain.saturating_sub(began.elapsed()).max(HOUSEKEEPING);
        pool.finish(if stuck.is_empty() { left } else { Duration::ZERO });
        shared.farewell.finish(left.min(farewell::PATIENCE + HOUSEKEEPING));
        // When the thread answers, it has dealt with every event before.
        handle.stats.tally();
        handle.summary(failure)
    }
}

fn listen_on_every_address(name: &str) -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let mut missing = None;
    for address in Addr::resolve(name)? {
        match Listener::bind(&address) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    match missing {
        Some(error) if listeners.is_empty() => Err(error),
        Some(error) => {
            log::info!("{error}");
            Ok(listeners)
        }
        None => Ok(listeners),
    }
}
