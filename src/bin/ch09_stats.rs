//! Chapter 9: one thread keeps the books, and all others tell it what happens.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use log::info;
use socket_steps::addr::Addr;
use socket_steps::chapter::{Actor, Part, give_up, part};
use socket_steps::connection::Connection;
use socket_steps::deadline::{Deadline, Timeouts};
use socket_steps::narrate;
use socket_steps::pool::{Permit, Pool};
use socket_steps::services;
use socket_steps::socket::Socket;
use socket_steps::stream::Stream;

const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    match part("ch09_stats [server [ADDR] [--limit N] [--idle D] [--message D]]") {
        Part::Server(options) => {
            narrate::aside();
            let listener = TcpListener::bind(&options.address).map_err(give_up)?;
            println!("listening on {}", listener.local_addr()?);
            let timeouts = Timeouts { idle: Some(options.idle), message: Some(options.message), ..Timeouts::default() };
            let (stats, answer) = (Stats::start(), services::lines(PREFIX, LIMIT));
            serve(&listener, options.limit, timeouts, move |socket, place| report(socket, place, &stats, &answer))
        }
        _ => scene(),
    }
}

// ANCHOR: event
/// What the stats thread is told, and asked.
enum Event {
    Connected { id: u64, peer: Addr },
    Disconnected { id: u64, reason: &'static str, age: Duration },
    HowMany(Sender<Tally>),
}

/// What it knows.
#[derive(Clone, Default)]
struct Tally {
    now: u64,
    peak: u64,
    ended: BTreeMap<&'static str, u64>,
}
// ANCHOR_END: event

// ANCHOR: keep_tally
/// The stats thread. It alone holds the numbers, so nobody has to lock anything.
fn keep_tally(events: &Receiver<Event>) {
    let mut tally = Tally::default();
    for event in events {
        match event {
            Event::Connected { id, peer } => {
                tally.now += 1;
                tally.peak = tally.peak.max(tally.now);
                info!(target: "stats", "#{id} {peer}: {} here", tally.now);
            }
            Event::Disconnected { id, reason, age } => {
                tally.now = tally.now.saturating_sub(1);
                *tally.ended.entry(reason).or_default() += 1;
                info!(target: "stats", "#{id} {reason} after {} s: {} here", age.as_secs(), tally.now);
            }
            Event::HowMany(answer) => drop(answer.send(tally.clone())),
        }
    }
}
// ANCHOR_END: keep_tally

/// The entrance to the stats thread. Each thread has a clone of it.
#[derive(Clone)]
struct Stats {
    events: Sender<Event>,
    dropped: Arc<AtomicU64>,
}

impl Stats {
    fn start() -> Stats {
        let (events, told) = bounded(4096);
        thread::spawn(move || keep_tally(&told));
        Stats { events, dropped: Arc::default() }
    }

    // ANCHOR: stats
    /// Never waits. What does not fit is not counted, but that is counted.
    fn report(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
    // ANCHOR_END: stats

    /// What Node calls `getConnections`, and more.
    fn tally(&self) -> Option<Tally> {
        let (answer, answers) = bounded(1);
        self.report(Event::HowMany(answer));
        answers.recv_timeout(Duration::from_secs(1)).ok()
    }
}

// ANCHOR: report
/// Serves one client, and reports its coming and its going, however it goes.
fn report(socket: Socket, place: Permit, stats: &Stats, handler: impl Fn(Socket) -> io::Result<()>) {
    let connection = Arc::clone(socket.connection());
    let id = connection.id();
    stats.report(Event::Connected { id, peer: connection.peer().clone() });
    let result = panic::catch_unwind(AssertUnwindSafe(|| handler(socket)));
    stats.report(Event::Disconnected { id, reason: reason(&result), age: connection.age() });
    // The place first, then the connection: a client that sees its end and comes back finds a place.
    drop(place);
    drop(connection);
}
// ANCHOR_END: report

fn reason(result: &thread::Result<io::Result<()>>) -> &'static str {
    match result {
        Ok(Ok(())) => "finished",
        Ok(Err(error)) => match Deadline::of(error) {
            Some(Deadline::Idle(_)) => "idle",
            Some(Deadline::Message(_)) => "message",
            Some(Deadline::Write(_)) => "write",
            None => "error",
        },
        Err(_) => "panicked",
    }
}

// ANCHOR: counter
/// The tempting way: a counter for all threads, one up at the beginning, one down at the end.
static HERE: AtomicU64 = AtomicU64::new(0);

fn count(socket: Socket, place: Permit, handler: impl Fn(Socket) -> io::Result<()>) {
    let connection = Arc::clone(socket.connection());
    HERE.fetch_add(1, Ordering::SeqCst);
    drop(handler(socket));
    HERE.fetch_sub(1, Ordering::SeqCst);
    drop(place);
    drop(connection);
}
// ANCHOR_END: counter

/// Chapter 8's loop, with a number for each client.
fn serve(
    listener: &TcpListener,
    limit: usize,
    timeouts: Timeouts,
    serve_one: impl Fn(Socket, Permit) + Send + Sync + 'static,
) -> io::Result<()> {
    let pool = Pool::new(limit, limit)?;
    let serve_one = Arc::new(serve_one);
    let mut id = 0;
    loop {
        let (stream, peer) = listener.accept()?;
        let place = pool.places().take_or_wait();
        id += 1;
        let nobody_stops_it = Arc::default();
        let connection = Connection::new(id, Stream::Tcp(stream), Addr::Tcp(peer), nobody_stops_it);
        let socket = Socket::on(Arc::new(connection), timeouts);
        let serve_one = Arc::clone(&serve_one);
        pool.run(Box::new(move || serve_one(socket, place))).map_err(|failed| failed.error)?;
    }
}

/// A handler with a bug. This one was made on purpose: who says that each piece is whole characters?
fn buggy(mut socket: Socket) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        let count = socket.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        // ANCHOR: bug
        let text = str::from_utf8(&bytes[..count]).expect("clients send text");
        socket.write_all(format!("{PREFIX}{text}").as_bytes())?;
        // ANCHOR_END: bug
    }
}

fn scene() -> io::Result<()> {
    narrate::scene(&["stats", "client", "client-b"]);
    panic::set_hook(Box::new(|_| {})); // The scene tells of its panics itself.

    let counted = start(|socket, place| count(socket, place, buggy))?;
    send_half_a_character(&mut Actor::connect("client", counted)?)?;
    info!(target: "stats", "the handler panicked; the counter says: {} here", HERE.load(Ordering::SeqCst));

    let stats = Stats::start();
    let reporting = stats.clone();
    let reported = start(move |socket, place| report(socket, place, &reporting, buggy))?;
    narrate::share_row(&["stats", "client"]);
    let mut client = Actor::connect("client", reported)?;
    // Its worker may not have reported it yet.
    while stats.tally().is_some_and(|tally| tally.now == 0) {}
    send_half_a_character(&mut client)?;
    stats.tally();

    let mut client = visit("client", reported, &stats)?;
    let mut client_b = visit("client-b", reported, &stats)?;
    narrate::share_row(&["client"]); // What it does; and then two things at the same time.
    narrate::share_row(&["stats", "client"]);
    client.end()?;
    client.hear()?;
    stats.tally();

    narrate::share_row(&["client-b"]);
    narrate::share_row(&["stats", "client-b"]);
    info!(target: "client-b", "saying no more");
    client_b.hear()?;
    let tally = stats.tally().expect("the stats thread answers");
    info!(target: "stats", "asked: {} here, at most {} at once; gone: {:?}", tally.now, tally.peak, tally.ended);
    info!(target: "stats", "{} events did not fit", stats.dropped.load(Ordering::Relaxed));
    Ok(())
}

fn send_half_a_character(client: &mut Actor) -> io::Result<()> {
    info!(target: "client", "sending the first two bytes of 안");
    narrate::share_row(&["stats", "client"]);
    client.stream().write_all(&"안".as_bytes()[..2])?;
    client.hear()?;
    Ok(())
}

fn visit(name: &'static str, address: SocketAddr, stats: &Stats) -> io::Result<Actor> {
    narrate::share_row(&["stats", name]);
    let mut client = Actor::connect(name, address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    stats.tally();
    Ok(client)
}

fn start(serve_one: impl Fn(Socket, Permit) + Send + Sync + 'static) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let timeouts = Timeouts { idle: Some(Duration::from_millis(500)), ..Timeouts::default() };
    thread::spawn(move || serve(&listener, 2, timeouts, serve_one));
    Ok(address)
}
