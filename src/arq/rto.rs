//! How long to wait for an acknowledgement before sending again.

use std::time::Duration;

/// Before anything has been measured (RFC 6298, section 2.1).
const FIRST: Duration = Duration::from_secs(1);

/// Never less. RFC 6298 says a second; Linux takes this, and so do we.
const LEAST: Duration = Duration::from_millis(200);

/// Never more (RFC 6298, section 2.5).
const MOST: Duration = Duration::from_secs(60);

/// How fine a clock is at least; a round trip that varies less than this is not waited for less.
const CLOCK: Duration = Duration::from_millis(1);

/// The retransmission time-out: measured round trips, smoothed, and four times as much as they vary (RFC 6298).
///
/// ```
/// use socket_steps::arq::rto::Rto;
/// use std::time::Duration;
///
/// let mut rto = Rto::default();
/// assert_eq!(rto.now(), Duration::from_secs(1)); // nothing is known yet
/// rto.measured(Duration::from_millis(100));
/// assert_eq!(rto.now(), Duration::from_millis(100 + 4 * 50));
/// rto.back_off();
/// assert_eq!(rto.now(), Duration::from_millis(600));
/// ```
#[derive(Clone, Debug)]
pub struct Rto {
    /// The smoothed round trip, and how much it varies. Nothing before the first.
    measured: Option<(Duration, Duration)>,
    now: Duration,
}

impl Rto {
    // ANCHOR: measured
    /// An acknowledgement took this long.
    pub fn measured(&mut self, trip: Duration) {
        let (smooth, varies) = match self.measured {
            None => (trip, trip / 2),
            Some((smooth, varies)) => ((smooth * 7 + trip) / 8, (varies * 3 + smooth.abs_diff(trip)) / 4),
        };
        self.measured = Some((smooth, varies));
        self.now = (smooth + (varies * 4).max(CLOCK)).clamp(LEAST, MOST);
    }
    // ANCHOR_END: measured

    /// None came in time: wait twice as long for the next. What is lost is often lost because the link is full, and
    /// who sends more then makes it worse.
    pub fn back_off(&mut self) {
        self.now = (self.now * 2).min(MOST);
    }

    /// How long to wait now.
    pub fn now(&self) -> Duration {
        self.now
    }
}

impl Default for Rto {
    fn default() -> Rto {
        Rto { measured: None, now: FIRST }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_steady_link_is_waited_for_a_little_longer_than_it_takes() {
        let mut rto = Rto::default();
        for _ in 0..100 {
            rto.measured(ms(300));
        }
        assert!((ms(300)..=ms(302)).contains(&rto.now()), "{:?}", rto.now());
    }

    #[test]
    fn a_link_that_varies_is_waited_for_longer_than_its_slowest() {
        let mut rto = Rto::default();
        for n in 0..100 {
            rto.measured(if n % 2 == 0 { ms(200) } else { ms(400) });
        }
        assert!(rto.now() > ms(500), "{:?}", rto.now());
    }

    #[test]
    fn the_second_measurement_is_weighed_as_the_rfc_says() {
        let mut rto = Rto::default();
        rto.measured(ms(400));
        rto.measured(ms(800));
        // SRTT = 7/8 × 400 + 1/8 × 800 = 450; RTTVAR = 3/4 × 200 + 1/4 × 400 = 250.
        assert_eq!(rto.now(), ms(450 + 4 * 250));
    }

    #[test]
    fn it_doubles_up_to_a_minute_and_a_measurement_ends_that() {
        let mut rto = Rto::default();
        let waits: Vec<u64> = (0..8).map(|_| (rto.back_off(), rto.now().as_secs()).1).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 60]);
        rto.measured(ms(10));
        assert_eq!(rto.now(), LEAST);
        rto.measured(Duration::from_secs(1_000_000));
        assert_eq!(rto.now(), MOST);
    }
}
