//! Chapter 12: stopping. Nobody new, nobody forgotten, and an end that comes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::info;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use socket_steps::addr::Addr;
use socket_steps::chapter::{Actor, Part, give_up, part};
use socket_steps::connection::Connection;
use socket_steps::deadline::Timeouts;
use socket_steps::farewell::say_goodbye;
use socket_steps::lines::LineBuffer;
use socket_steps::narrate;
use socket_steps::pool::{Permit, Pool};
use socket_steps::socket::{OnStop, Socket};
use socket_steps::stats::{CloseReason, Event, Stats};
use socket_steps::stream::Stream;

const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

/// How long conversations may go on after Ctrl-C.
const DRAIN: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    match part("ch12_shutdown [server [ADDR] [--limit N] [--idle D] [--message D]]") {
        Part::Server(options) => {
            narrate::aside();
            let timeouts = Timeouts { idle: Some(options.idle), message: Some(options.message), ..Timeouts::default() };
            let stop = Stop::new()?;
            stop_at_ctrl_c(&stop)?; // Before anybody knows that we are here.
            let listener = TcpListener::bind(&options.address).map_err(give_up)?;
            println!("listening on {}", listener.local_addr()?);
            let stuck = Server::new(options.limit, timeouts, stop)?.serve(listener, DRAIN)?;
            process::exit(if stuck == 0 { 0 } else { 1 })
        }
        _ => scene(),
    }
}

/// A flag, and a pipe to wake whoever sleeps in `poll`: who sleeps cannot look at a flag.
#[derive(Clone)]
struct Stop {
    flag: Arc<AtomicBool>,
    writer: Arc<PipeWriter>,
    reader: Arc<PipeReader>,
}

impl Stop {
    fn new() -> io::Result<Stop> {
        let (reader, writer) = io::pipe()?;
        Ok(Stop { flag: Arc::default(), writer: Arc::new(writer), reader: Arc::new(reader) })
    }

    // ANCHOR: stop
    /// Says whether it was the first time.
    fn stop(&self) -> bool {
        let first = !self.flag.swap(true, Ordering::SeqCst);
        let _ = (&*self.writer).write(b"!"); // Nobody reads it; that it is there wakes everyone.
        first
    }
    // ANCHOR_END: stop

    fn is_stopping(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

// ANCHOR: ctrl_c
fn stop_at_ctrl_c(stop: &Stop) -> io::Result<()> {
    let stop = stop.clone();
    let handler = move || {
        if !stop.stop() {
            process::exit(130); // The second time: at once. 128 + 2, the number of SIGINT.
        }
    };
    ctrlc::set_handler(handler).map_err(io::Error::other)
}
// ANCHOR_END: ctrl_c

/// A client whom somebody serves.
struct Client {
    connection: Arc<Connection>,
    /// Whether its worker waits for a new message. Then it may be woken and sent home.
    idle: AtomicBool,
}

/// Everyone who is here.
#[derive(Clone, Default)]
struct Registry {
    clients: Arc<Mutex<HashMap<u64, Arc<Client>>>>,
    someone_left: Arc<Condvar>,
}

impl Registry {
    fn add(&self, connection: &Arc<Connection>) -> Arc<Client> {
        let client = Arc::new(Client { connection: Arc::clone(connection), idle: AtomicBool::new(false) });
        self.lock().insert(connection.id(), Arc::clone(&client));
        client
    }

    fn remove(&self, client: &Client) {
        self.lock().remove(&client.connection.id());
        self.someone_left.notify_all();
    }

    /// Waits until nobody is here, at most so long; says how many are.
    fn wait_until_empty(&self, patience: Duration) -> usize {
        let is_not_empty = |clients: &mut HashMap<u64, Arc<Client>>| !clients.is_empty();
        let waited = self.someone_left.wait_timeout_while(self.lock(), patience, is_not_empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Client>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers each line, until the client ends, or the server does.
fn answer(client: &Client, mut socket: Socket, stop: &Stop) -> io::Result<()> {
    let mut buffer = LineBuffer::new(LIMIT);
    loop {
        match buffer.next_line() {
            Ok(Some(line)) => {
                socket.write_all(&[PREFIX.as_bytes(), line].concat())?;
                socket.end_message();
                continue;
            }
            Err(too_long) => {
                socket.write_all(format!("{too_long}\n").as_bytes())?;
                return Err(too_long.into());
            }
            Ok(None) => {}
        }
        let between_messages = buffer.rest().is_empty();
        if !between_messages {
            socket.begin_message(OnStop::Finish);
        }
        // ANCHOR: mark
        // First the mark, then the look at the flag.
        client.idle.store(between_messages, Ordering::SeqCst);
        if between_messages && stop.is_stopping() {
            return Ok(());
        }
        let count = buffer.read_from(&mut socket)?;
        client.idle.store(false, Ordering::SeqCst);
        // ANCHOR_END: mark
        if count == 0 {
            break; // The client's end; or our own wake-up, if half a line came with the stop: chapter 13.
        }
    }
    if !buffer.rest().is_empty() {
        socket.write_all(&[PREFIX.as_bytes(), buffer.rest()].concat())?;
    }
    Ok(())
}

/// What the thread that accepts needs.
struct Server {
    pool: Pool,
    timeouts: Timeouts,
    stats: Stats,
    /// Clients that were refused. One thread says goodbye to them, so that nobody else has to wait for it.
    refused: Sender<Stream>,
    all_refused_are_gone: Receiver<()>,
    /// A descriptor to give up when there are no others.
    spare: Option<File>,
    /// How long to wait when not even that helps.
    pause: Duration,
    last_id: u64,
    stop: Stop,
    registry: Registry,
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Server {
    fn new(limit: usize, timeouts: Timeouts, stop: Stop) -> io::Result<Server> {
        let (refused, leaving) = bounded::<Stream>(64);
        let (tell, all_refused_are_gone) = bounded(1);
        thread::spawn(move || {
            for stream in leaving {
                let _ = say_goodbye(&stream); // It may have left already.
            }
            let _ = tell.send(());
        });
        Ok(Server {
            pool: Pool::new(limit, limit)?,
            timeouts,
            stats: Stats::start(|_| {})?,
            refused,
            all_refused_are_gone,
            spare: File::open("/dev/null").ok(),
            pause: FIRST_PAUSE,
            last_id: 0,
            stop,
            registry: Registry::default(),
        })
    }

    /// Serves until the stop, and then until everybody has gone; says how many did not go.
    fn serve(mut self, listener: TcpListener, drain: Duration) -> io::Result<usize> {
        listener.set_nonblocking(true)?;
        // ANCHOR: serve
        while !self.stop.is_stopping() {
            let mut watched = [PollFd::new(&listener, PollFlags::IN), PollFd::new(&*self.stop.reader, PollFlags::IN)];
            let _ = poll(&mut watched, None); // A signal interrupts it, too: no harm is done.
            self.accept(&listener)?;
        }
        let began = Instant::now();
        self.wake_the_idle();
        self.turn_away_the_backlog(&listener);
        drop(listener); // From now on, connecting fails.
        self.wait_for_the_rest(drain, began)
        // ANCHOR_END: serve
    }

    /// Accepts one client, if one is there, whatever accept says.
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        match listener.accept() {
            Ok((stream, peer)) => {
                self.pause = FIRST_PAUSE;
                self.welcome(stream, peer)
            }
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::WOULDBLOCK) => Ok(()),
                Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => self.make_do(listener),
                Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK) => Err(error),
                _ => {
                    info!(target: "server", "a client was lost: {error}");
                    Ok(())
                }
            },
        }
    }

    /// Ends the reading half of those who wait for a new message: their `read` returns 0.
    // ANCHOR: wake_the_idle
    fn wake_the_idle(&self) {
        info!(target: "server", "stopping");
        for client in self.registry.lock().values().filter(|client| client.idle.load(Ordering::SeqCst)) {
            let _ = client.connection.stream().shutdown(Shutdown::Read);
        }
    }
    // ANCHOR_END: wake_the_idle

    /// Tells everyone whom the kernel has connected, and we have not accepted.
    // ANCHOR: backlog
    fn turn_away_the_backlog(&self, listener: &TcpListener) {
        while let Ok((mut stream, _peer)) = listener.accept() {
            let _ = stream.write_all("stopping: the server is going down, try again later\n".as_bytes());
            let _ = self.refused.try_send(Stream::Tcp(stream));
        }
    }
    // ANCHOR_END: backlog

    /// Whoever is in the middle of a message may finish it, but not for ever.
    fn wait_for_the_rest(self, drain: Duration, began: Instant) -> io::Result<usize> {
        // ANCHOR: drain
        let left = self.registry.wait_until_empty(drain.saturating_sub(began.elapsed()));
        if left > 0 {
            info!(target: "server", "the time is over; connections cut: {left}");
            for client in self.registry.lock().values() {
                let _ = client.connection.stream().shutdown(Shutdown::Both);
            }
        }
        // They only have to notice. A thread that does not return cannot be ended; it is counted.
        let stuck = self.registry.wait_until_empty(Duration::from_millis(300));
        // ANCHOR_END: drain
        drop(self.refused);
        let _ = self.all_refused_are_gone.recv_timeout(Duration::from_secs(1));
        info!(target: "server", "the end");
        Ok(stuck)
    }

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
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                info!(target: "server", "next try in {:?}: {error}", self.pause);
                thread::sleep(self.pause);
                self.pause = LONGEST_PAUSE.min(self.pause * 2);
            }
        }
        self.spare = File::open("/dev/null").ok();
        Ok(())
    }

    /// Gives a client to a worker, or tells it that there is no place.
    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let (stream, peer) = (Stream::Tcp(stream), Addr::Tcp(peer));
        let Some(place) = self.pool.places().take() else {
            let text = "busy: all places are taken, try again later";
            let _ = (&stream).write_all(format!("{text}\n").as_bytes());
            self.stats.report(Event::Refused { peer, text: text.to_owned() });
            // If the queue is full, the stream comes back, and is closed at once.
            let _ = self.refused.try_send(stream);
            return Ok(());
        };
        self.last_id += 1;
        // The kit's socket could do itself what this chapter does by hand. It is not told of the stop.
        let not_told = Arc::default();
        let connection = Arc::new(Connection::new(self.last_id, stream, peer, not_told));
        let (registry, timeouts, stats, stop) =
            (self.registry.clone(), self.timeouts, self.stats.clone(), self.stop.clone());
        let client = registry.add(&connection);
        let job = move || serve_one(&client, place, &registry, timeouts, &stats, &stop);
        self.pool.run(Box::new(job)).map_err(|failed| failed.error)
    }
}

/// Chapter 10's, with the registry.
fn serve_one(client: &Client, place: Permit, registry: &Registry, timeouts: Timeouts, stats: &Stats, stop: &Stop) {
    let connection = &client.connection;
    let (id, peer) = (connection.id(), connection.peer().clone());
    stats.report(Event::Connected { id, peer });
    let socket = Socket::on(Arc::clone(connection), timeouts);
    let result = panic::catch_unwind(AssertUnwindSafe(|| answer(client, socket, stop)));
    let reason = CloseReason::of(&result, connection);
    let (age, bytes_in, bytes_out) = (connection.age(), connection.bytes_in(), connection.bytes_out());
    stats.report(Event::Disconnected { id, reason, age, bytes_in, bytes_out });
    drop(place);
    if !matches!(reason, CloseReason::Reset | CloseReason::BrokenPipe) {
        let _ = say_goodbye(connection.stream());
    }
    registry.remove(client);
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client", "client-b"]);
    ctrl_c()?;
    backlog()?;
    never_ends_its_line()?;
    many_lines()
}

fn start(stop: Stop) -> io::Result<(SocketAddr, thread::JoinHandle<io::Result<usize>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let server = Server::new(4, Timeouts::default(), stop)?;
    Ok((address, thread::spawn(move || server.serve(listener, Duration::from_millis(500)))))
}

fn ctrl_c() -> io::Result<()> {
    let stop = Stop::new()?;
    stop_at_ctrl_c(&stop)?;
    let (address, serving) = start(stop)?;
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    let mut client_b = Actor::connect("client-b", address)?;
    info!(target: "client-b", "sending a line, and the beginning of another");
    client_b.stream().write_all("안녕하세요, 서버님!\n안녕히 ".as_bytes())?;
    client_b.hear()?;

    info!(target: "server", "here comes Ctrl-C");
    kill_process(getpid(), Signal::INT)?;
    client.hear()?;
    client_b.say("계세요")?;
    client_b.hear()?;
    client_b.hear()?;
    drop((client, client_b));
    info!(target: "server", "stuck: {}", ended(serving)?);
    Ok(())
}

fn ended(serving: thread::JoinHandle<io::Result<usize>>) -> io::Result<usize> {
    serving.join().expect("accepting does not panic")
}

fn backlog() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = Actor::connect("client", listener.local_addr()?)?;
    client.say("안녕하세요, 서버님!")?;
    info!(target: "server", "closing the listener; the client was not accepted yet");
    drop(listener);
    let error = client.hear().expect_err("nobody has accepted it");
    info!(target: "client", "{error}");

    let stop = Stop::new()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client_b = Actor::connect("client-b", listener.local_addr()?)?;
    stop.stop();
    let server = Server::new(4, Timeouts::default(), stop)?;
    let serving = thread::spawn(move || server.serve(listener, Duration::from_millis(500)));
    client_b.hear()?;
    client_b.hear()?;
    drop(client_b);
    ended(serving).map(drop)
}

fn never_ends_its_line() -> io::Result<()> {
    let stop = Stop::new()?;
    let (address, serving) = start(stop.clone())?;
    let mut client = Actor::connect("client", address)?;
    info!(target: "client", "sending a line, and the beginning of another");
    client.stream().write_all("안녕하세요, 서버님!\n안녕히 ".as_bytes())?;
    client.hear()?;
    // The server tells of the stop, and of the cut; the client sees it while the server ends.
    narrate::share_row(&["server"]);
    narrate::share_row(&["server"]);
    narrate::share_row(&["server", "client"]);
    stop.stop();
    client.hear()?;
    ended(serving).map(drop)
}

fn many_lines() -> io::Result<()> {
    let stop = Stop::new()?;
    let (address, serving) = start(stop.clone())?;
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;

    // ANCHOR: many_lines
    info!(target: "client", "sending 20,000 short lines");
    client.stream().write_all(&b"\n".repeat(20_000))?;
    narrate::share_row(&["server", "client"]); // The server tells of the stop, the client of the end.
    stop.stop();
    // ANCHOR_END: many_lines
    let answers = BufReader::new(client.stream()).lines().count();
    info!(target: "client", "{}", if answers == 20_000 { "20,000 answers" } else { "fewer answers, and the end" });
    drop(client);
    ended(serving).map(drop)
}
