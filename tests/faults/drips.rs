//! Many who send a line so slowly that it never ends each go at their deadline, and nobody else notices them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::support::figures::{figure, full, skipped};
use crate::support::{BOUND, Server, wait_until};
use crate::tail::{Tail, figure_of_times};

/// How many times longer the p99 of the others may be.
const MOST_SLOWER: f64 = 2.0;

/// How long after its deadline a drip may still be there.
const MOST_LATE: Duration = Duration::from_secs(1);

/// How many others there are, who ask as fast as they are answered.
const OTHERS: usize = 4;

/// How many drip, how often each sends a byte, and how long a line may take.
struct Size {
    drips: usize,
    pace: Duration,
    deadline: Duration,
}

/// Somebody who begins a line and never ends it.
struct Drip {
    stream: TcpStream,
    /// When its first byte was sent, once it was.
    began: Option<Instant>,
    sent: usize,
    /// How long after that the server ended the connection.
    lasted: Option<Duration>,
}

impl Drip {
    fn on(server: &Server) -> Drip {
        let stream = server.client().0;
        stream.set_nonblocking(true).unwrap();
        Drip { stream, began: None, sent: 0, lasted: None }
    }

    /// Sends one byte more, or says that there is nobody any more to send it to.
    fn send_a_byte(&mut self) -> bool {
        if self.lasted.is_some() || self.has_ended() {
            return false;
        }
        self.began.get_or_insert_with(Instant::now);
        assert_eq!(self.stream.write(b".").unwrap(), 1);
        self.sent += 1;
        true
    }

    /// Looks whether the server has ended it: in good order, without a byte for an answer.
    fn has_ended(&mut self) -> bool {
        match self.stream.read(&mut [0; 100]) {
            Ok(0) => {
                if self.lasted.is_none() {
                    self.lasted = self.began.map(|began| began.elapsed());
                    self.stream.shutdown(Shutdown::Write).unwrap();
                }
                true
            }
            Ok(count) => panic!("{count} bytes for an answer to part of a line"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        }
    }
}

/// How far the dripping has come, for whoever measures beside it.
#[derive(Default)]
struct Progress {
    /// Whether everyone drips.
    all_begun: AtomicBool,
    /// Whether someone has gone.
    some_gone: AtomicBool,
}

/// Drips until the server has ended every one; says how long each lasted.
fn drip(mut drips: Vec<Drip>, size: &Size, progress: &Progress) -> Vec<Duration> {
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(size.drips));
    for (number, drip) in drips.iter().enumerate() {
        let source = drip.stream.as_raw_fd();
        poll.registry().register(&mut SourceFd(&source), Token(number), Interest::READABLE).unwrap();
    }
    // One after another, evenly, so that each has its turn once in `pace`.
    let (began, step) = (Instant::now(), size.pace / size.drips as u32);
    let mut turn = 0;
    while drips.iter().any(|drip| drip.lasted.is_none()) {
        assert!(began.elapsed() < BOUND, "some are never ended");
        let mut someone_ended = false;
        let wait = (step * turn).saturating_sub(began.elapsed());
        if wait.is_zero() {
            let drips_on = drips[turn as usize % size.drips].send_a_byte();
            someone_ended = !drips_on;
            turn += 1;
            progress.all_begun.fetch_or(turn as usize >= size.drips, Ordering::SeqCst);
        } else {
            match poll.poll(&mut events, Some(wait)) {
                Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
                Ok(()) => events.iter().for_each(|event| someone_ended |= drips[event.token().0].has_ended()),
            }
        }
        progress.some_gone.fetch_or(someone_ended, Ordering::SeqCst);
    }
    assert!(drips.iter().all(|drip| drip.sent > 1), "not everyone has dripped");
    drips.iter().filter_map(|drip| drip.lasted).collect()
}

#[test]
fn a_thousand_who_drip_go_at_their_deadlines_and_the_others_do_not_notice_them() {
    let second = Duration::from_secs(1);
    let (waves, rounds, size) = match full() {
        true => (2, 12, Size { drips: 1000, pace: second, deadline: 5 * second }),
        false => (1, 2, Size { drips: 100, pace: second / 5, deadline: second }),
    };
    let (places, deadline) = ((size.drips + 2 * OTHERS).to_string(), format!("{}s", size.deadline.as_secs()));
    let server = Server::start(&["--service", "lines", "--max-connections", &places, "--message-timeout", &deadline]);

    let (mut without, mut among, mut lasted) = (Tail::default(), Tail::default(), Vec::new());
    for _ in 0..waves {
        (0..rounds).for_each(|_| without.measure(&server, OTHERS));
        let progress = Progress::default();
        let drips = (0..size.drips).map(|_| Drip::on(&server)).collect();
        lasted.extend(thread::scope(|scope| {
            let dripping = scope.spawn(|| drip(drips, &size, &progress));
            let goes_on = || !dripping.is_finished();
            wait_until("everyone drips", || (progress.all_begun.load(Ordering::SeqCst) || !goes_on()).then_some(()));
            while goes_on() && !progress.some_gone.load(Ordering::SeqCst) {
                among.measure(&server, OTHERS);
                if progress.some_gone.load(Ordering::SeqCst) {
                    among.forget(); // It was not among all of them.
                }
            }
            dripping.join().unwrap()
        }));
    }
    let ended = server.stop();
    let at_their_deadline = ended.log.lines().filter(|line| line.contains("ended (message)")).count();
    assert_eq!((lasted.len(), at_their_deadline), (waves * size.drips, waves * size.drips), "{}", ended.log);
    assert!(ended.status.success(), "{ended:?}");

    let (first, last) = (*lasted.iter().min().unwrap(), *lasted.iter().max().unwrap());
    assert!(first >= size.deadline, "gone too early, after {first:?}");
    let late = last - size.deadline;
    // However busy the machine is: a deadline that is missed by so much is none.
    assert!(late <= 10 * MOST_LATE, "gone too late, by {late:?}");
    let gone = format_args!(
        "{} drips gone at the latest {late:.0?} after their deadline of {:?}",
        lasted.len(),
        size.deadline
    );
    figure("B9", late <= MOST_LATE, gone);
    if among.rounds() == 0 {
        return skipped("B9", "this machine is too busy for a round among the drips");
    }
    let slower = among.quietest() / without.quietest();
    let others = format_args!("the others' p99 × {slower:.2}: {among} among them, {without} without");
    figure_of_times("B9", slower <= MOST_SLOWER, &without, others);
}
