//! What is told of a stage, step by step, and how long it may still take.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::show;

/// How long a polite end may take, for all clients of a stage together.
const GOODBYES: Duration = Duration::from_secs(1);

/// How long a piece may take to be read, before the next is sent all the same.
const UNTIL_READ: Duration = Duration::from_secs(2);

/// What happened in a stage, as numbered steps, and how long it may still take.
#[derive(Debug)]
pub(crate) struct Story {
    steps: RefCell<Vec<String>>,
    until: Instant,
    patience: Duration,
    pub(crate) until_read: Duration,
    /// An end after so much silence is a deadline of the server's.
    pub(crate) long_silence: Duration,
    pub(crate) goodbyes: RefCell<Duration>,
    is_doubtful: Cell<bool>,
}

impl Story {
    /// `deadline`: the server's, if it is known; a wait of ours must not look like a silent client.
    pub(crate) fn new(patience: Duration, bound: Duration, deadline: Option<Duration>) -> Rc<Story> {
        Rc::new(Story {
            steps: RefCell::default(),
            until: Instant::now() + bound,
            patience,
            until_read: deadline.map_or(UNTIL_READ, |deadline| UNTIL_READ.min(deadline / 3)),
            long_silence: deadline.map_or(Duration::from_secs(1), |deadline| deadline * 3 / 4),
            goodbyes: RefCell::new(GOODBYES),
            is_doubtful: Cell::new(false),
        })
    }

    /// This machine may have been too slow for a fair judgement: the stage is worth another try.
    pub(crate) fn doubt(&self) {
        self.is_doubtful.set(true);
    }

    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_doubtful.get()
    }

    pub(crate) fn step(&self, what: impl Into<String>) {
        self.steps.borrow_mut().push(what.into());
    }

    pub(crate) fn add_to_last(&self, what: &str) {
        if let Some(step) = self.steps.borrow_mut().last_mut() {
            step.push_str(what);
        }
    }

    /// Takes back what was told of an attempt that is no part of the story.
    pub(crate) fn forget_after(&self, count: usize) {
        self.steps.borrow_mut().truncate(count);
    }

    pub(crate) fn steps(&self) -> Vec<String> {
        self.steps.borrow().clone()
    }

    /// How long the server may be silent when it is its turn.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// What is left of a wait: never more than the stage has.
    pub(crate) fn left(&self, since: Instant, wish: Duration) -> Duration {
        let wish = wish.saturating_sub(since.elapsed());
        wish.min(self.until.saturating_duration_since(Instant::now()))
    }
}

/// An error as a person says it, without its number.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused: nobody listens there".to_owned(),
        io::ErrorKind::ConnectionReset => "a reset".to_owned(),
        io::ErrorKind::TimedOut => "no answer to the attempt to connect".to_owned(),
        io::ErrorKind::BrokenPipe => "the server had closed the connection".to_owned(),
        io::ErrorKind::NotFound => "no such file, or no such name".to_owned(),
        _ => show::escape(error.to_string().as_bytes()),
    }
}

/// What takes longer than an answer, such as to start and to stop: 10 s, unless another patience is asked for.
pub(crate) fn long(patience: Duration) -> Duration {
    patience * 3 + Duration::from_secs(1)
}

/// `2 s`, `2.5 s`, `300 ms`.
pub(crate) fn seconds(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1000 => format!("{millis} ms"),
        _ if millis.is_multiple_of(1000) => format!("{} s", millis / 1000),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}
