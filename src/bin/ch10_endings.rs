//! Chapter 10: every way in which a connection ends, and how a server ends one without destroying its answer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use log::{debug, info};
use rustix::event::{PollFd, PollFlags, poll};
use socket_steps::addr::Addr;
use socket_steps::chapter::{Actor, Part, give_up, part};
use socket_steps::connection::Connection;
use socket_steps::deadline::Timeouts;
use socket_steps::narrate;
use socket_steps::pool::{Permit, Pool};
use socket_steps::services;
use socket_steps::socket::Socket;
use socket_steps::stats::{CloseReason, Event, Stats};
use socket_steps::stream::Stream;
use socket2::SockRef;

const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    match part("ch10_endings [server [ADDR] [--limit N] [--idle D] [--message D]]") {
        Part::Server(options) => {
            narrate::aside();
            let listener = TcpListener::bind(&options.address).map_err(give_up)?;
            println!("listening on {}", listener.local_addr()?);
            let timeouts = Timeouts { idle: Some(options.idle), message: Some(options.message), ..Timeouts::default() };
            let (stats, answer) = (Stats::start(|_| {})?, services::lines(PREFIX, LIMIT));
            let serve_one = move |connection, place| serve_one(connection, place, timeouts, &stats, &answer);
            serve(&listener, options.limit, serve_one)
        }
        _ => scene(),
    }
}

/// Serves one client, reports its coming and its going, and ends the connection politely.
fn serve_one(
    connection: Arc<Connection>,
    place: Permit,
    timeouts: Timeouts,
    stats: &Stats,
    handler: impl Fn(Socket) -> io::Result<()>,
) {
    // ANCHOR: goodbye
    let reason = report(&connection, timeouts, stats, handler);
    drop(place);
    // Otherwise there is nothing left to say, or nobody to say it to.
    if !matches!(reason, CloseReason::Finished | CloseReason::Reset | CloseReason::BrokenPipe) {
        drop(say_goodbye(connection.stream()));
    }
    // ANCHOR_END: goodbye
}

// ANCHOR: say_goodbye
/// How long a client may take to end its half when we have ended ours.
const PATIENCE: Duration = Duration::from_secs(1);

/// Ends our half, then reads what is still coming and throws it away, until the client has ended its half.
fn say_goodbye(mut stream: &Stream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let began = Instant::now();
    let mut bytes = [0; 16 * 1024];
    while let Some(left) = PATIENCE.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut bytes) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
// ANCHOR_END: say_goodbye

/// Chapter 9's, on the kit: the handler's result, and what has been seen of the connection, give the reason.
fn report(
    connection: &Arc<Connection>,
    timeouts: Timeouts,
    stats: &Stats,
    handler: impl Fn(Socket) -> io::Result<()>,
) -> CloseReason {
    let (id, peer) = (connection.id(), connection.peer().clone());
    stats.report(Event::Connected { id, peer });
    let socket = Socket::on(Arc::clone(connection), timeouts);
    let result = panic::catch_unwind(AssertUnwindSafe(|| handler(socket)));
    if let Ok(Err(error)) = &result {
        debug!(target: "server", "#{id}: {error}");
    }
    let reason = CloseReason::of(&result, connection);
    let (age, bytes_in, bytes_out) = (connection.age(), connection.bytes_in(), connection.bytes_out());
    stats.report(Event::Disconnected { id, reason, age, bytes_in, bytes_out });
    reason
}

fn serve(
    listener: &TcpListener,
    limit: usize,
    serve_one: impl Fn(Arc<Connection>, Permit) + Send + Sync + 'static,
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
        let serve_one = Arc::clone(&serve_one);
        pool.run(Box::new(move || serve_one(Arc::new(connection), place))).map_err(|failed| failed.error)?;
    }
}

/// Waits for the client's end, and then answers.
fn answers_at_the_end(mut socket: Socket) -> io::Result<()> {
    let mut question = String::new();
    socket.read_to_string(&mut question)?;
    info!(target: "server", "read {question}, and then 0");
    info!(target: "server", "sending {PREFIX}{question}");
    narrate::share_row(&["server", "client"]); // The client hears it while this connection ends.
    writeln!(socket, "{PREFIX}{question}")
}

/// Waits for the client's end, and then talks until somebody stops it.
fn talks_on(mut socket: Socket) -> io::Result<()> {
    socket.read_to_end(&mut Vec::new())?;
    loop {
        socket.write_all("아직 계세요?\n".as_bytes())?;
    }
}

/// A handler with a bug.
fn buggy(mut socket: Socket) -> io::Result<()> {
    let count = socket.read(&mut [0; 100])?;
    narrate::share_row(&["server", "client"]); // The client hears it while this connection ends.
    panic!("no answer to these {count} bytes")
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client"]);
    panic::set_hook(Box::new(|_| {})); // The scene tells of its panic itself.
    let (tell, ended) = bounded(1);
    let stats = Stats::start(move |event| {
        if let Event::Disconnected { reason, .. } = event {
            info!(target: "server", "ended: {reason}");
            let _ = tell.send(());
        }
    })?;
    let answers = start(&stats, services::lines(PREFIX, LIMIT), true)?;
    half_closed(start(&stats, answers_at_the_end, true)?, &ended)?;
    reset(answers, &ended)?;
    broken_pipe(start(&stats, talks_on, true)?, &ended)?;
    says_nothing(answers, &ended)?;
    meets_a_bug(start(&stats, buggy, true)?, &ended)?;

    info!(target: "server", "a server that closes without a goodbye");
    let mut client = breaks_the_rules(start(&stats, services::lines(PREFIX, LIMIT), false)?, &ended)?;
    // Not even a slow client reads anything before the reset is here. (poll wakes for that without being asked.)
    poll(&mut [PollFd::new(client.stream(), PollFlags::empty())], None)?;
    read_all(&mut client)?;
    info!(target: "server", "and one that says goodbye");
    let mut client = breaks_the_rules(answers, &ended)?;
    read_all(&mut client)
}

fn start(
    stats: &Stats,
    handler: impl Fn(Socket) -> io::Result<()> + Send + Sync + 'static,
    politely: bool,
) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let timeouts = Timeouts { idle: Some(Duration::from_millis(500)), ..Timeouts::default() };
    let stats = stats.clone();
    thread::spawn(move || {
        serve(&listener, 4, move |connection, place| match politely {
            true => serve_one(connection, place, timeouts, &stats, &handler),
            false => drop(report(&connection, timeouts, &stats, &handler)),
        })
    });
    Ok(address)
}

/// Waits until the stats thread has told of an end.
fn wait_for(ended: &Receiver<()>) -> io::Result<()> {
    ended.recv().map_err(io::Error::other)
}

fn half_closed(address: SocketAddr, ended: &Receiver<()>) -> io::Result<()> {
    let mut client = Actor::connect("client", address)?;
    info!(target: "client", "sending 안녕히 계세요");
    client.stream().write_all("안녕히 계세요".as_bytes())?;
    client.end()?;
    client.hear()?;
    wait_for(ended)?;
    client.hear().map(drop)
}

fn reset(address: SocketAddr, ended: &Receiver<()>) -> io::Result<()> {
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    info!(target: "client", "closing with a reset");
    SockRef::from(client.stream()).set_linger(Some(Duration::ZERO))?;
    drop(client);
    wait_for(ended)
}

fn broken_pipe(address: SocketAddr, ended: &Receiver<()>) -> io::Result<()> {
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    info!(target: "client", "closing, without waiting for the answer");
    drop(client);
    wait_for(ended)
}

fn says_nothing(address: SocketAddr, ended: &Receiver<()>) -> io::Result<()> {
    narrate::share_row(&["client"]); // What it does; and then two things at the same time.
    narrate::share_row(&["server", "client"]);
    Actor::connect("client", address)?.hear()?;
    wait_for(ended)
}

fn meets_a_bug(address: SocketAddr, ended: &Receiver<()>) -> io::Result<()> {
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    wait_for(ended)
}

/// Sends sixteen good lines, and then one that is too long.
fn breaks_the_rules(address: SocketAddr, ended: &Receiver<()>) -> io::Result<Actor> {
    let client = Actor::connect("client", address)?;
    info!(target: "client", "sending 16 lines, and one that never ends");
    let line = [&[b'x'; LIMIT - 1][..], b"\n"].concat();
    let endless = [b'x'; 4 * LIMIT];
    // The server may have closed already: then it cannot be sent as a whole.
    drop(client.stream().write_all(&[&line.repeat(16)[..], &endless].concat()));
    wait_for(ended)?;
    Ok(client)
}

fn read_all(client: &mut Actor) -> io::Result<()> {
    let mut bytes = Vec::new();
    let result = client.stream().read_to_end(&mut bytes);
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    match result {
        Err(error) if lines.len() <= 16 => info!(target: "client", "received fewer than 16 answers, then: {error}"),
        Err(error) => info!(target: "client", "received all answers, then: {error}"),
        Ok(_) => {
            let last = String::from_utf8_lossy(lines[lines.len() - 1]);
            info!(target: "client", "received {} answers, then: {}", lines.len() - 1, last.trim_end());
        }
    }
    Ok(())
}
