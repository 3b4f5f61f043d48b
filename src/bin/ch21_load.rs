//! Chapter 21: what to measure, from when, and what a thread costs.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::chapter::{self, Part, give_up, part};
use socket_steps::lines::LineBuffer;
use socket_steps::narrate;
use socket_steps::options::exit_with;
use socket_steps::server::{Config, Server};
use socket_steps::socket::Socket;

const USAGE: &str = "ch21_load [server [ADDR] | average ADDR | samples]";
const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

/// What an answer takes, and what every fiftieth takes.
const WORK: Duration = Duration::from_millis(1);
const STALL: Duration = Duration::from_millis(50);

/// How many questions are asked, and how far apart they are where there is a schedule.
const QUESTIONS: u32 = 300;
const APART: Duration = Duration::from_millis(4);

/// How long `average` waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many connections the threads are counted with.
const CONNECTIONS: usize = 200;

fn main() -> io::Result<()> {
    let words = chapter::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["average", address] => average(connect(address)),
        ["samples"] => samples(),
        _ => match part(USAGE) {
            Part::Server(options) => server(&options.address).map_err(give_up),
            _ => scene(),
        },
    }
}

/// A connection that does not wait for ever.
fn connect(address: &str) -> TcpStream {
    let connected = TcpStream::connect(address);
    let patient = connected.and_then(|stream| stream.set_read_timeout(Some(PATIENCE)).map(|()| stream));
    patient.unwrap_or_else(|error| exit_with(2, &format!("ch21_load: cannot connect to {address}: {error}")))
}

// ANCHOR: answer
/// Answers each line, until the client ends. Every fiftieth answer has to wait for something.
fn answer(mut socket: Socket) -> io::Result<()> {
    let mut buffer = LineBuffer::new(LIMIT);
    let mut count = 0;
    loop {
        while let Some(line) = buffer.next_line()? {
            count += 1;
            thread::sleep(if count % 50 == 0 { STALL } else { WORK });
            socket.write_all(&[PREFIX.as_bytes(), line].concat())?;
        }
        if buffer.read_from(&mut socket)? == 0 {
            return Ok(());
        }
    }
}
// ANCHOR_END: answer

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let server = Server::bind([address], Config::default())?;
    println!("listening on {}", server.local_addrs()[0]);
    let summary = server.serve(answer);
    process::exit(if summary.is_clean() { 0 } else { 1 })
}

// ANCHOR: average
/// The tempting measurement: the time that everything took, divided.
fn average(mut stream: TcpStream) -> io::Result<()> {
    let start = Instant::now();
    for _ in 0..QUESTIONS {
        ask(&mut stream)?;
    }
    println!("{QUESTIONS} questions, on average {}", ms(start.elapsed() / QUESTIONS));
    Ok(())
}
// ANCHOR_END: average

/// Sends a line, and waits for the whole of its answer.
fn ask(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all("안녕하세요, 서버님!\n".as_bytes())?;
    let mut answer = [0; PREFIX.len() + "안녕하세요, 서버님!\n".len()];
    stream.read_exact(&mut answer)
}

// ANCHOR: closed_loop
/// Asks again as soon as an answer is there, and keeps what each one took.
fn closed_loop(stream: &mut TcpStream) -> io::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    for _ in 0..QUESTIONS {
        let sent = Instant::now();
        ask(stream)?;
        latencies.push(sent.elapsed());
    }
    Ok(latencies)
}
// ANCHOR_END: closed_loop

// ANCHOR: on_schedule
/// Asks at fixed times, or as soon after as it can. What each answer took, from when the question was sent,
/// and from when it was due.
fn on_schedule(stream: &mut TcpStream) -> io::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut from_sent, mut from_due) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for number in 0..QUESTIONS {
        let due = start + APART * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        ask(stream)?;
        from_sent.push(sent.elapsed());
        from_due.push(due.elapsed());
    }
    Ok((from_sent, from_due))
}
// ANCHOR_END: on_schedule

// ANCHOR: print
/// The average, and what it hides.
fn print(what: &str, latencies: &[Duration]) {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    let at = |percent: usize| ms(sorted[(sorted.len() * percent).div_ceil(100) - 1]);
    let average = ms(sorted.iter().sum::<Duration>() / QUESTIONS);
    println!("{what}: average {average}, p50 {}, p90 {}, p99 {}, max {}", at(50), at(90), at(99), at(100));
}
// ANCHOR_END: print

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// What the kernel says of this process: its threads, and its resident memory in KiB.
fn threads_and_memory() -> io::Result<(usize, usize)> {
    let status = fs::read_to_string("/proc/self/status")?;
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Ok((number("Threads:"), number("VmRSS:")))
}

/// What changes when `open` opens the connections, and as long as they are held.
fn print_cost<T>(what: &str, open: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (threads, memory) = threads_and_memory()?;
    let opened = open()?;
    let (threads_now, memory_now) = threads_and_memory()?;
    let each = memory_now.saturating_sub(memory) as f64 / CONNECTIONS as f64;
    println!("  {what}: {} threads more, about {each:.1} KiB for each", threads_now - threads);
    Ok(opened)
}

/// Connections that are answered once, and then silent.
fn silent_clients(address: SocketAddr) -> io::Result<Vec<TcpStream>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = TcpStream::connect(address)?;
        ask(&mut client)?;
        clients.push(client);
    }
    Ok(clients)
}

/// Connections that are accepted, and that nobody waits for.
fn held_by_nobody() -> io::Result<Vec<(TcpStream, TcpStream)>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    (0..CONNECTIONS).map(|_| Ok((TcpStream::connect(address)?, listener.accept()?.0))).collect()
}

fn start_server(min_workers: usize) -> io::Result<SocketAddr> {
    let server = Server::bind(["127.0.0.1:0"], Config { min_workers, ..Config::default() })?;
    let address = server.local_addrs()[0].to_string().parse().map_err(io::Error::other)?;
    thread::spawn(|| server.serve(answer));
    Ok(address)
}

fn scene() -> io::Result<()> {
    let address = start_server(4)?;

    println!("A closed loop: a question, its answer, the next question.");
    print("  from sending", &closed_loop(&mut TcpStream::connect(address)?)?);

    println!("A schedule: a question every {} ms, whatever the server does.", APART.as_millis());
    let (from_sent, from_due) = on_schedule(&mut TcpStream::connect(address)?)?;
    print("  from sending", &from_sent);
    print("  from when it was due", &from_due);
    println!("  {} % of the answers stalled; about {} % took more than 10 ms", late(&from_sent), late(&from_due));

    println!("What a thread costs: {CONNECTIONS} silent connections.");
    drop(print_cost("nobody waits for them", held_by_nobody)?);
    let address = start_server(1)?; // A new one, with one worker.
    drop(print_cost("a thread waits for each", || silent_clients(address))?);
    Ok(())
}

/// How many of a hundred took ten times as long as an answer that does not stall.
fn late(latencies: &[Duration]) -> usize {
    latencies.iter().filter(|latency| **latency > 10 * WORK).count() * 100 / latencies.len()
}

/// For a plot: each question of the schedule, when it was due, and what it took; in milliseconds.
fn samples() -> io::Result<()> {
    let (from_sent, from_due) = on_schedule(&mut TcpStream::connect(start_server(4)?)?)?;
    for (number, (sent, due)) in from_sent.iter().zip(&from_due).enumerate() {
        let [sent, due] = [sent, due].map(|latency| latency.as_secs_f64() * 1e3);
        println!("{} {sent:.3} {due:.3}", number as u128 * APART.as_millis());
    }
    Ok(())
}
