//! What has been measured.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::failure::Failures;
use crate::plan::Times;

/// Latencies are kept to three digits, up to an hour.
const LONGEST: u64 = 60 * 60 * 1_000_000_000;

/// The steps in which messages that were never sent are counted.
const STEPS: u64 = 1000;

/// One thread's results; then everyone's.
pub(crate) struct Tally {
    /// Nanoseconds, of each message that was to be sent in the measured time: until its answer, or until load
    /// stopped waiting for one.
    pub(crate) latencies: Histogram<u64>,
    /// Nanoseconds by which load itself was late, where the connection was free when a message was due.
    pub(crate) lateness: Histogram<u64>,
    /// Messages answered in the measured time.
    pub(crate) answered: u64,
    /// The same, and those answered before.
    pub(crate) answered_in_all: u64,
    /// Messages that were due in the measured time, and that load has not sent: their connection was still
    /// waiting for the answer before, or was dead.
    pub(crate) unsent: u64,
    /// Messages that were to be sent in the measured time, were begun, and have no answer.
    pub(crate) unanswered: u64,
    /// How often a connection had to wait for a free port or for room in a path's backlog.
    pub(crate) waits: u64,
    /// Connections whose first message was answered.
    pub(crate) opened: u64,
    /// Connections that were open, and without a fault, at the end.
    pub(crate) held: u64,
    pub(crate) failures: Failures,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        let latencies = Histogram::new_with_max(LONGEST, 3).expect("these bounds are among the allowed ones");
        let lateness = latencies.clone();
        Tally {
            latencies,
            lateness,
            answered: 0,
            answered_in_all: 0,
            unsent: 0,
            unanswered: 0,
            waits: 0,
            opened: 0,
            held: 0,
            failures: Failures::default(),
        }
    }

    /// A message has been answered.
    pub(crate) fn answer(&mut self, since: Instant, now: Instant, times: &Times) {
        self.answered += u64::from(times.contain(now));
        self.answered_in_all += u64::from(now < times.until);
        if times.contain(since) {
            self.latencies.saturating_record((now - since).as_nanos() as u64);
        }
    }

    /// A message was due, its connection was free, and only now it is sent.
    pub(crate) fn late(&mut self, due: Instant, now: Instant, times: &Times) {
        if due >= times.from {
            self.lateness.saturating_record((now - due).as_nanos() as u64);
        }
    }

    /// Messages that were due every `period`, the first one so long ago, and that were never sent. Each counts
    /// with the time for which it has waited: its latency would have been longer still.
    pub(crate) fn never_sent(&mut self, count: u64, first: Duration, period: Duration) {
        self.unsent += count;
        let step = count.div_ceil(STEPS).max(1);
        for begin in (0..count).step_by(step as usize) {
            let members = step.min(count - begin);
            // The youngest of these; so the others' share is not exaggerated.
            let waited = first.saturating_sub(period.mul_f64((begin + members - 1) as f64));
            self.latencies.saturating_record_n(waited.as_nanos() as u64, members);
        }
    }

    /// Messages were begun, and will have no answer any more. Each counts with the time for which it has waited,
    /// too: a connection that fails may not take its slowest answers with it.
    pub(crate) fn never_answered(&mut self, since: impl Iterator<Item = Instant>, now: Instant, times: &Times) {
        for since in since.filter(|since| times.contain(*since)) {
            self.unanswered += 1;
            self.latencies.saturating_record((now - since).as_nanos() as u64);
        }
    }

    pub(crate) fn merge(&mut self, other: Tally) {
        self.latencies.add(&other.latencies).expect("both have the same bounds");
        self.lateness.add(&other.lateness).expect("both have the same bounds");
        self.answered += other.answered;
        self.answered_in_all += other.answered_in_all;
        self.unsent += other.unsent;
        self.unanswered += other.unanswered;
        self.waits += other.waits;
        self.opened += other.opened;
        self.held += other.held;
        self.failures.merge(other.failures);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_sent_counts_with_the_time_for_which_it_has_waited() {
        let mut tally = Tally::new();
        tally.never_sent(100, Duration::from_secs(1), Duration::from_millis(10));
        assert_eq!((tally.unsent, tally.latencies.len()), (100, 100));
        assert!(tally.latencies.max() >= 999_000_000, "{}", tally.latencies.max());
        assert!(tally.latencies.value_at_quantile(0.5).abs_diff(500_000_000) < 20_000_000);
    }

    #[test]
    fn millions_that_were_never_sent_are_counted_in_steps_and_all_of_them() {
        let mut tally = Tally::new();
        tally.never_sent(12_345_678, Duration::from_secs(10), Duration::from_nanos(810));
        assert_eq!((tally.unsent, tally.latencies.len()), (12_345_678, 12_345_678));
    }
}
