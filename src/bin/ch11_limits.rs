//! Chapter 11: what a server does when it is full, and when its machine is.

use std::fs::File;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use log::info;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket_steps::addr::Addr;
use socket_steps::chapter::{Actor, Part, give_up, part};
use socket_steps::connection::Connection;
use socket_steps::deadline::Timeouts;
use socket_steps::farewell::say_goodbye;
use socket_steps::narrate;
use socket_steps::pool::{Permit, Pool};
use socket_steps::services;
use socket_steps::socket::Socket;
use socket_steps::stats::{CloseReason, Event, Stats};
use socket_steps::stream::Stream;

const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    match part("ch11_limits [server [ADDR] [--limit N] [--idle D] [--message D]]") {
        Part::Server(options) => {
            narrate::aside();
            let listener = TcpListener::bind(&options.address).map_err(give_up)?;
            println!("listening on {}", listener.local_addr()?);
            let timeouts = Timeouts { idle: Some(options.idle), message: Some(options.message), ..Timeouts::default() };
            Server::new(options.limit, timeouts)?.serve(&listener)
        }
        _ => scene(),
    }
}

/// What the thread that accepts needs.
struct Server {
    pool: Pool,
    timeouts: Timeouts,
    stats: Stats,
    /// Clients that were refused. One thread says goodbye to them, so that nobody else has to wait for it.
    refused: Sender<Stream>,
    /// A descriptor to give up when there are no others.
    spare: Option<File>,
    /// How long to wait when not even that helps.
    pause: Duration,
    last_id: u64,
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Server {
    fn new(limit: usize, timeouts: Timeouts) -> io::Result<Server> {
        let (refused, leaving) = bounded::<Stream>(64);
        thread::spawn(move || {
            for stream in leaving {
                let _ = say_goodbye(&stream); // It may have left already.
            }
        });
        let (pool, stats) = (Pool::new(limit, limit)?, Stats::start(|_| {})?);
        let spare = File::open("/dev/null").ok();
        Ok(Server { pool, timeouts, stats, refused, spare, pause: FIRST_PAUSE, last_id: 0 })
    }
}

impl Server {
    // ANCHOR: serve
    /// Accepts clients, whatever accept says.
    fn serve(mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    self.pause = FIRST_PAUSE;
                    self.welcome(stream, peer)?;
                }
                Err(error) => match Errno::from_io_error(&error) {
                    // The machine has run out of something, for now.
                    Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                        self.make_do(listener)?;
                    }
                    // The listener is no listener. That will not get better.
                    Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => return Err(error),
                    // This one client has gone, or its network. The next one may be fine.
                    _ => info!(target: "server", "a client was lost: {error}"),
                },
            }
        }
    }
    // ANCHOR_END: serve

    // ANCHOR: make_do
    /// Gives the spare descriptor up, accepts one client with it, tells it, and hangs up: then there is a
    /// spare one again. If not even that works, only time can help.
    fn make_do(&mut self, listener: &TcpListener) -> io::Result<()> {
        drop(self.spare.take());
        match listener.accept() {
            Ok((mut stream, peer)) => {
                self.pause = FIRST_PAUSE;
                self.spare = File::open("/dev/null").ok();
                if self.spare.is_some() {
                    return self.welcome(stream, peer); // While we waited for it, others have left.
                }
                info!(target: "server", "no descriptors are left: telling a client");
                let _ = stream.write_all("busy: no descriptors are left, try again later\n".as_bytes());
                drop(stream);
            }
            Err(error) => {
                info!(target: "server", "next try in {:?}: {error}", self.pause);
                thread::sleep(self.pause);
                self.pause = LONGEST_PAUSE.min(self.pause * 2);
            }
        }
        self.spare = File::open("/dev/null").ok();
        Ok(())
    }
    // ANCHOR_END: make_do

    /// Gives a client to a worker, or tells it that there is no place.
    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let (stream, peer) = (Stream::Tcp(stream), Addr::Tcp(peer));
        // ANCHOR: refuse
        let Some(place) = self.pool.places().take() else {
            let text = "busy: all places are taken, try again later";
            let _ = (&stream).write_all(format!("{text}\n").as_bytes());
            self.stats.report(Event::Refused { peer, text: text.to_owned() });
            // If the queue is full, the stream comes back, and is closed at once.
            let _ = self.refused.try_send(stream);
            return Ok(());
        };
        // ANCHOR_END: refuse
        self.last_id += 1;
        let nobody_stops_it = Arc::default();
        let connection = Arc::new(Connection::new(self.last_id, stream, peer, nobody_stops_it));
        let (timeouts, stats) = (self.timeouts, self.stats.clone());
        self.pool.run(Box::new(move || serve_one(&connection, place, timeouts, &stats))).map_err(|failed| failed.error)
    }
}

/// Chapter 10's.
fn serve_one(connection: &Arc<Connection>, place: Permit, timeouts: Timeouts, stats: &Stats) {
    let (id, peer) = (connection.id(), connection.peer().clone());
    stats.report(Event::Connected { id, peer });
    let answer = services::lines(PREFIX, LIMIT);
    let socket = Socket::on(Arc::clone(connection), timeouts);
    let result = panic::catch_unwind(AssertUnwindSafe(|| answer(socket)));
    let reason = CloseReason::of(&result, connection);
    let (age, bytes_in, bytes_out) = (connection.age(), connection.bytes_in(), connection.bytes_out());
    stats.report(Event::Disconnected { id, reason, age, bytes_in, bytes_out });
    drop(place);
    if !matches!(reason, CloseReason::Finished | CloseReason::Reset | CloseReason::BrokenPipe) {
        let _ = say_goodbye(connection.stream());
    }
}

// ANCHOR: go_on
static FAILURES: AtomicU64 = AtomicU64::new(0);

/// The tempting way to accept a client: when it fails, try again.
fn go_on(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept() {
            Ok(client) => return client,
            Err(_) => drop(FAILURES.fetch_add(1, Ordering::Relaxed)),
        }
    }
}
// ANCHOR_END: go_on

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client", "client-b"]);
    tries_again()?;
    tells_the_client()?;
    no_place()
}

fn tries_again() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // The kernel connects it, whether or not anybody accepts.
    let mut client = Actor::connect("client", listener.local_addr()?)?;
    let limit = leave_no_descriptors()?;
    info!(target: "server", "no descriptors are left; when accept fails, trying again");
    let server = thread::spawn(move || {
        let (stream, peer) = go_on(&listener);
        services::lines(PREFIX, LIMIT)(Socket::new(Stream::Tcp(stream), Addr::Tcp(peer), Timeouts::default()))
    });
    while FAILURES.load(Ordering::Relaxed) < 10_000 {
        thread::sleep(Duration::from_millis(1));
    }
    info!(target: "server", "10,000 tries have failed, without a pause");
    setrlimit(Resource::Nofile, limit)?;
    info!(target: "server", "there are descriptors again");
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    drop(client);
    // Its descriptors must not become free while there are to be none.
    server.join().expect("it does not panic")
}

fn tells_the_client() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut client = Actor::connect("client", address)?;
    let server = Server::new(4, Timeouts::default())?;
    let limit = leave_no_descriptors()?;
    info!(target: "server", "no descriptors are left but the spare one");
    thread::spawn(move || server.serve(&listener));
    client.hear()?;
    client.hear()?;
    setrlimit(Resource::Nofile, limit)?;
    info!(target: "server", "there are descriptors again");
    let mut client_b = Actor::connect("client-b", address)?;
    client_b.say("안녕하세요, 서버님!")?;
    client_b.hear()?;
    Ok(())
}

fn no_place() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = Server::new(1, Timeouts::default())?;
    info!(target: "server", "one place");
    thread::spawn(move || server.serve(&listener));
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    let mut client_b = Actor::connect("client-b", address)?;
    client_b.hear()?;
    client_b.hear()?;
    client.say("안녕히 계세요")?;
    client.hear().map(drop)
}

/// Lowers this process's limit to what it uses already; returns what it was.
fn leave_no_descriptors() -> io::Result<Rlimit> {
    let before = getrlimit(Resource::Nofile);
    let lowest_free = File::open("/dev/null")?.as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), ..before })?;
    Ok(before)
}
