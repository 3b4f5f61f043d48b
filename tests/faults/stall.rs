//! Nobody who comes while the server stands still for a moment has to come twice.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::process::Signal;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::figures::{figure, full, lacks};
use crate::support::load::echo;
use crate::support::{BOUND, Server, is_standing_still, wait_until};

/// For so long, nobody accepts.
const STALL: Duration = Duration::from_millis(200);

/// Who takes longer has knocked twice: the kernel sends a lost SYN again after a second.
const LATE: Duration = Duration::from_millis(900);

/// What each of them says.
const HELLO: &[u8] = b"hello";

/// What somebody who came during the stall has seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// How long connecting took.
    connected: Option<Duration>,
    /// How long it took from the first knock to the answer.
    answered: Option<Duration>,
}

/// Lets so many connect at once to a server that stands still, and `resume`s it when the stall is over and all have
/// knocked. Each says hello as soon as it is connected, and has to be answered.
fn everyone_comes(address: SocketAddr, count: usize, resume: impl FnOnce()) -> Vec<Seen> {
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(count));
    let stalled = Instant::now();
    let mut clients = Vec::new();
    for number in 0..count {
        let began = Instant::now();
        let stream = knock(address);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut SourceFd(&stream.as_raw_fd()), Token(number), interest).unwrap();
        clients.push((stream, began, Seen::default()));
        look_at(clients.last_mut().unwrap());
    }
    let mut resume = Some(resume);
    while clients.iter().any(|(_, _, seen)| seen.answered.is_none()) {
        assert!(stalled.elapsed() < BOUND, "somebody is never answered");
        let left = STALL.saturating_sub(stalled.elapsed());
        if left.is_zero()
            && let Some(resume) = resume.take()
        {
            assert!(
                clients.iter().all(|(_, _, seen)| seen.answered.is_none()),
                "somebody was answered during the stall"
            );
            resume();
        }
        let limit = if left.is_zero() { BOUND } else { left };
        match poll.poll(&mut events, Some(limit)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
            _ => events.iter().for_each(|event| look_at(&mut clients[event.token().0])),
        }
    }
    clients.into_iter().map(|(_, _, seen)| seen).collect()
}

/// Begins to connect, and does not wait for it.
fn knock(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    if let Err(error) = socket.connect(&address.into()) {
        assert_eq!(Errno::from_io_error(&error), Some(Errno::INPROGRESS), "{error}");
    }
    socket.into()
}

/// Notes whether a client is connected by now, and whether it has been answered.
fn look_at((stream, began, seen): &mut (TcpStream, Instant, Seen)) {
    if seen.connected.is_none() {
        assert!(stream.take_error().unwrap().is_none());
        if stream.peer_addr().is_err() {
            return;
        }
        seen.connected = Some(began.elapsed());
        assert_eq!(stream.write(HELLO).unwrap(), HELLO.len());
    }
    let mut answer = [0; 2 * HELLO.len()];
    match stream.read(&mut answer) {
        Ok(count) => {
            assert_eq!(&answer[..count], HELLO);
            seen.answered = Some(began.elapsed());
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
    }
}

/// How many were late to connect, and the longest of all times.
fn sum_up(seen: &[Seen]) -> (usize, Duration, Duration) {
    let connected = || seen.iter().filter_map(|seen| seen.connected);
    let late = connected().filter(|took| *took > LATE).count();
    (late, connected().max().unwrap(), seen.iter().filter_map(|seen| seen.answered).max().unwrap())
}

/// What becomes of those who come to a listener with room for so many, when nobody accepts during the stall.
fn everyone_comes_to_a_backlog_of(room: i32, count: usize) -> Vec<Seen> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).listen(room).unwrap();
    let address = listener.local_addr().unwrap();
    let (resume, resumed) = channel();
    thread::spawn(move || {
        resumed.recv().unwrap();
        for stream in listener.incoming().take(count) {
            let stream = stream.unwrap();
            thread::spawn(|| echo(stream, |_, _| {}));
        }
    });
    everyone_comes(address, count, || resume.send(()).unwrap())
}

#[test]
fn nobody_who_comes_while_the_server_stands_still_has_to_come_twice() {
    let count = if full() { 1000 } else { 300 };
    let most: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    if most < count {
        return lacks("B5", "somaxconn", format_args!("the kernel keeps a backlog of {most} at most"));
    }
    // Whoever listens as the standard library does turns most of them away for a second.
    let naive = everyone_comes_to_a_backlog_of(128, count);
    let (naive_late, naive_longest, _) = sum_up(&naive);
    assert!(naive_late > count / 3, "the fault did not happen: {naive_late} late, at most {naive_longest:?}");

    let places = (count + 1).to_string();
    let server = Server::start(&["--service", "echo", "--max-connections", &places]);
    server.signal(Signal::STOP);
    wait_until("the server stands still", || is_standing_still(server.pid()).then_some(()));
    let seen = everyone_comes(server.socket_addr(), count, || {
        assert!(is_standing_still(server.pid()), "it has stood still all the time");
        server.signal(Signal::CONT);
    });
    let (late, longest, answered) = sum_up(&seen);
    let what =
        format!("{count} connects in a stall of {STALL:?}: {late} took over {LATE:?}, the longest {longest:.0?}");
    let others = format!("all answered after {answered:.0?}; with a backlog of 128, {naive_late} took over {LATE:?}");
    figure("B5", late == 0, format_args!("{what}; {others}"));
    assert_eq!(late, 0, "{longest:?}");
    assert_eq!(server.stop().accounts.of("served"), count as u64);
}
