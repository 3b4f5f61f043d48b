//! The server: listeners, an accept loop, a pool of workers, and a stop that loses nothing.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::accept::Acceptor;
use crate::addr::Addr;
use crate::connection::Connection;
use crate::deadline::Timeouts;
use crate::farewell::{self, Farewell};
use crate::limits;
use crate::listener::Listener;
use crate::pool::{Permit, Pool};
use crate::shutdown::{Registry, StopHandle};
use crate::socket::Socket;
use crate::stats::{CloseReason, ConnectionInfo, Event, Snapshot, Stats};

/// How long handlers may take to return once their connections have been cut. They only have to notice.
const AFTER_THE_CUT: Duration = Duration::from_millis(300);

/// How long the threads of the house may take to end when their work is done.
const HOUSEKEEPING: Duration = Duration::from_millis(200);

/// What a full server does with one more client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenFull {
    /// Tells it so, and closes: it can go elsewhere, or come back.
    #[default]
    Refuse,
    /// Leaves it in the kernel's backlog until there is a place.
    Wait,
}

/// How a server behaves. Every field has a default that is right for most.
///
/// ```
/// use socket_steps::server::{Config, WhenFull};
///
/// let small = Config { max_connections: 8, when_full: WhenFull::Wait, ..Config::default() };
/// assert_eq!(small.min_workers, 4);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Threads kept ready. 4; never more than `max_connections`.
    pub min_workers: usize,
    /// Connections at most, and so threads at most. 512.
    pub max_connections: usize,
    /// What happens to one client more. It is refused.
    pub when_full: WhenFull,
    /// Connections from one address at most. No limit.
    pub per_source: Option<usize>,
    /// The deadlines of every connection.
    pub timeouts: Timeouts,
    /// How long connections may take to end after a stop. 5 s.
    pub drain: Duration,
    /// Send small answers at once (`TCP_NODELAY`). Yes.
    pub no_delay: bool,
    /// After how long a silence the kernel asks whether the client is still there. Not at all: the idle
    /// deadline finds out as well.
    pub keep_alive: Option<Duration>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            min_workers: 4,
            max_connections: 512,
            when_full: WhenFull::default(),
            per_source: None,
            timeouts: Timeouts::default(),
            drain: Duration::from_secs(5),
            no_delay: true,
            keep_alive: None,
        }
    }
}

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
        let stop = StopHandle::new()?;
        let handle = Handle {
            addresses: listeners.iter().map(|listener| listener.local_addr().clone()).collect(),
            started: Instant::now(),
            threads: pool.threads(),
            registry: Arc::new(Registry::new(Arc::clone(stop.flag()))),
            stats: Stats::start(observer)?,
            stop,
        };
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
    /// returns, however it returns, the connection is closed politely: what was written arrives.
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
            log::info!("stopping: {open} connections are open, and have {drain:?} to end");
        }
        if !registry.wait_until_empty(drain.saturating_sub(began.elapsed())) {
            let left = registry.connections();
            log::warn!("the drain deadline has passed: cutting {} connections", left.len());
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

impl Config {
    /// Refuses what the machine cannot hold: better now than with the last client that fits.
    fn check(&self) -> io::Result<()> {
        let most = limits::tightest();
        match self.max_connections {
            0 => Err(invalid("max_connections is 0: a server for nobody".to_owned())),
            wanted if wanted > most.connections => Err(invalid(format!("max_connections is {wanted}, but {most}"))),
            _ => Ok(()),
        }
    }
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
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

/// What the accept thread and the workers share.
pub(crate) struct Shared<H> {
    handler: H,
    pub(crate) config: Config,
    pub(crate) farewell: Farewell,
    pub(crate) handle: Handle,
}

impl<H: Fn(Socket) -> io::Result<()>> Shared<H> {
    /// The whole life of a connection, on a worker's thread.
    pub(crate) fn serve(&self, connection: Arc<Connection>, permit: Permit) {
        let stats = &self.handle.stats;
        stats.report(Event::Connected { id: connection.id(), peer: connection.peer().clone() });
        // A client that has gone again already makes this fail; its handler will see that soon enough.
        let _ = connection.stream().set_tcp_options(self.config.no_delay, self.config.keep_alive);
        let socket = Socket::on(Arc::clone(&connection), self.config.timeouts);
        let result = panic::catch_unwind(AssertUnwindSafe(|| (self.handler)(socket)));
        let reason = CloseReason::of(&result, &connection);
        if let Ok(Err(error)) = &result {
            log::debug!("#{}: {error}", connection.id());
        }

        // The order matters: a client that sees its end and comes back at once finds the books right and
        // its place free.
        self.handle.registry.close(&connection);
        drop(permit);
        stats.report(Event::Disconnected {
            id: connection.id(),
            reason,
            age: connection.age(),
            bytes_in: connection.bytes_in(),
            bytes_out: connection.bytes_out(),
        });
        self.close(connection, reason);
    }

    fn close(&self, connection: Arc<Connection>, reason: CloseReason) {
        let stream = connection.stream();
        match reason {
            // Half an answer must not look like a whole one, and the kernel need not keep it for minutes.
            _ if connection.has_half_an_answer() => drop(stream.reset_on_close()),
            // There is nothing left to say, or nobody to say it to.
            CloseReason::Finished | CloseReason::Reset | CloseReason::Aborted | CloseReason::Cut => {}
            _ if connection.was_woken() => self.farewell.leave_unheard_to_it(Arc::clone(stream)),
            _ => self.farewell.leave_to_it(Arc::clone(stream)),
        }
        // Dropping the last reference closes the descriptor. A handler that has put its socket aside has
        // another one; the connection ends all the same. (Whoever looks at the connection at this moment, for a
        // snapshot, has one too, but soon lets go of it.)
        if !connection.is_released() {
            connection.cut();
        }
    }
}

/// To stop a server with, and to ask it what it is doing. Clones are for the same server.
#[derive(Clone, Debug)]
pub struct Handle {
    addresses: Arc<[Addr]>,
    started: Instant,
    threads: Arc<AtomicUsize>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) stats: Stats,
    pub(crate) stop: StopHandle,
}

impl Handle {
    /// Begins an orderly stop; [`serve`](Server::serve) returns when it is complete. Again, it changes
    /// nothing.
    pub fn stop(&self) {
        self.stop.stop();
    }

    /// Where the server listens, or has listened.
    pub fn local_addrs(&self) -> &[Addr] {
        &self.addresses
    }

    /// Everything there is to know at this moment.
    pub fn snapshot(&self) -> Snapshot {
        let totals = self.registry.totals();
        Snapshot {
            uptime: self.started.elapsed(),
            now: totals.now(),
            peak: totals.peak,
            accepted: totals.accepted(),
            served: totals.opened,
            refused: totals.refused,
            failed: totals.failed,
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            threads: self.threads.load(Ordering::Relaxed),
            ended: self.stats.tally().unwrap_or_default().ended,
            events_dropped: self.stats.dropped(),
            connections: self.registry.connections().iter().map(|one| ConnectionInfo::from(&**one)).collect(),
        }
    }

    fn summary(&self, failure: Option<io::Error>) -> Summary {
        let totals = self.registry.totals();
        Summary {
            accepted: totals.accepted(),
            served: totals.opened,
            refused: totals.refused,
            failed: totals.failed,
            opened: totals.opened,
            closed: totals.closed,
            stuck: totals.now(),
            bytes_in: totals.bytes_in,
            bytes_out: totals.bytes_out,
            failure,
        }
    }
}

/// The accounts of a server that has ended. Printed, they are one line, in which both equations hold.
#[derive(Debug)]
pub struct Summary {
    /// Connections that accept has given: `served + refused + failed`.
    pub accepted: u64,
    /// Given to a handler.
    pub served: u64,
    /// Turned away with a text.
    pub refused: u64,
    /// Neither was possible.
    pub failed: u64,
    /// The same as `served`: `closed + stuck`.
    pub opened: u64,
    /// Connections whose handler has returned.
    pub closed: u64,
    /// Connections whose handler has not returned.
    pub stuck: u64,
    /// Bytes that handlers have read.
    pub bytes_in: u64,
    /// Bytes that handlers have written.
    pub bytes_out: u64,
    /// Why accepting ended, if it was not a stop.
    pub failure: Option<io::Error>,
}

impl Summary {
    /// Whether it ended because it was stopped, and every handler has returned.
    pub fn is_clean(&self) -> bool {
        self.stuck == 0 && self.failure.is_none()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { accepted, served, refused, failed, opened, closed, stuck, bytes_in, bytes_out, .. } = self;
        write!(f, "accepted {accepted} = served {served} + refused {refused} + failed {failed}; ")?;
        write!(f, "opened {opened} = closed {closed} + stuck {stuck}; in {bytes_in} bytes, out {bytes_out} bytes")
    }
}
