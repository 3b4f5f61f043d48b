//! How long to wait before the next try: longer each time, up to a limit, short again after a success.

use std::time::Duration;

/// An exponential back-off: every failure doubles the wait, a success starts over.
///
/// A loop that fails and tries again at once burns a whole core on nothing; a loop that always waits
/// long is slow to notice that the trouble is over. Doubling is the usual way between the two.
///
/// ```
/// use socket_steps::backoff::Backoff;
/// use std::time::Duration;
///
/// let mut backoff = Backoff::new(Duration::from_millis(5), Duration::from_secs(1));
/// assert_eq!(backoff.after_failure(), Duration::from_millis(5));
/// assert_eq!(backoff.after_failure(), Duration::from_millis(10));
/// backoff.after_success();
/// assert_eq!(backoff.after_failure(), Duration::from_millis(5));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits `first` after the first failure and never longer than `most`.
    pub const fn new(first: Duration, most: Duration) -> Backoff {
        Backoff { first, most, next: first }
    }

    /// How long to wait now that a try has failed.
    pub fn after_failure(&mut self) -> Duration {
        let wait = self.next.min(self.most);
        self.next = wait.saturating_mul(2);
        wait
    }

    /// A try has succeeded: the next failure waits `first` again.
    pub fn after_success(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_the_limit_and_stays_there() {
        let mut backoff = Backoff::new(Duration::from_millis(300), Duration::from_secs(1));
        let waits: Vec<u128> = (0..5).map(|_| backoff.after_failure().as_millis()).collect();
        assert_eq!(waits, [300, 600, 1000, 1000, 1000]);
    }

    #[test]
    fn a_limit_as_long_as_time_itself_does_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(backoff.after_failure(), Duration::MAX);
        assert_eq!(backoff.after_failure(), Duration::MAX);
    }
}
