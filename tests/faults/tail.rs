//! How long the slowest hundredth of the answers takes, measured in several short rounds: one alone is luck.

use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

use crate::support::load::{measure_well, number};
use crate::support::{BOUND, PREFIX, Server};

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
        let results = measure_well(server.address(), &options);
        self.0.push(number(&results["latency_us"]["p99"]));
    }

    /// Forgets the last round.
    pub(crate) fn forget(&mut self) {
        self.0.pop();
    }

    /// How many rounds count.
    pub(crate) fn rounds(&self) -> usize {
        self.0.len()
    }

    /// What a quarter of the rounds stays below. Whatever else runs on this machine makes a round slower, never
    /// faster; what the server does itself is in all of them.
    pub(crate) fn quiet_quarter(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 4]
    }
}

/// Keeps this thread, and every program that it starts from now on, on one processor. Whether a question crosses
/// from one to another is luck and decides more about its time than anything that is measured here.
pub(crate) fn stay_on_one_processor() {
    let mut one = CpuSet::new();
    one.set(sched_getcpu());
    sched_setaffinity(None, &one).unwrap();
}
