//! How long the slowest hundredth of the answers takes, measured in several short rounds: one alone is luck.

use std::fmt::{self, Display, Formatter};

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use serde_json::Value;

use crate::support::figures::{figure, skipped};
use crate::support::load::measure;
use crate::support::{BOUND, PREFIX, Server, wait_until};

/// The 99th percentiles of rounds of asking and answering, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<f64>);

impl Tail {
    /// One more round, of so many clients that each ask again as soon as they are answered. Every answer must be
    /// right.
    pub(crate) fn measure(&mut self, server: &Server, clients: usize) {
        let (clients, patience) = (clients.to_string(), format!("{}s", BOUND.as_secs()));
        let times = ["--seconds", "0.2", "--warm-up", "20ms", "--patience", &patience];
        let options = [&times[..], &["--connections", &clients, "--prefix", PREFIX]].concat();
        // Where a machine is so busy that a whole round passes before anybody asks, another has to tell.
        let p99 = wait_until("a round in which something is asked", || {
            let (status, results) = measure(server.address(), &options);
            assert_eq!((status.code(), &results["first_failure"]), (Some(0), &Value::Null), "{results}");
            results["latency_us"]["p99"].as_f64()
        });
        self.0.push(p99);
    }

    /// Forgets the last round.
    pub(crate) fn forget(&mut self) {
        self.0.pop();
    }

    /// How many rounds count.
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    /// The shortest of all. Whatever else this machine does makes a round longer, never shorter; what is due to the
    /// server is in every one of them.
    pub(crate) fn quietest(&self) -> f64 {
        self.sorted()[0]
    }

    /// Whether most rounds are much like the quietest.
    fn is_steady(&self) -> bool {
        self.median() <= 2.0 * self.quietest()
    }

    fn median(&self) -> f64 {
        self.sorted()[self.0.len() / 2]
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

impl Display for Tail {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (rounds, median) = (self.0.len(), self.median());
        write!(f, "{:.1} µs (the middle one of {rounds} rounds: {median:.0})", self.quietest())
    }
}

/// Keeps this thread, and every program that it starts from now on, on one processor. Whether a question crosses
/// from one to another is luck and decides more about its time than anything that is measured here.
pub(crate) fn stay_on_one_processor() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    sched_setaffinity(None, &one).unwrap();
}

/// Says a figure of a row that compares times with those of `undisturbed`. Where even these go up and down, more is
/// going on than the test, and a bar that is missed says nothing about the server.
pub(crate) fn figure_of_times(row: &str, held: bool, undisturbed: &Tail, what: impl Display) {
    match held || undisturbed.is_steady() {
        true => figure(row, held, what),
        false => skipped(row, format_args!("this machine is too busy to tell: {what}")),
    }
}
