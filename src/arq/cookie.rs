//! A cookie shows that someone can read what is sent to the address that they claim to have.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::Duration;

/// A secret is used for so long, and then for as long again to recognise what was made with it.
const PERIOD: Duration = Duration::from_secs(60);

/// A cookie opens nothing later than this after it was made.
pub const LIFETIME: Duration = Duration::from_secs(120);

/// Makes cookies, and recognises them, without keeping any.
///
/// A cookie is a keyed hash: the address and the first number, mixed with a secret. Whoever does not know the secret
/// cannot make one; whoever knows it, makes the same one again, and compares. So nothing has to be remembered of someone
/// who has only asked. The secret changes, so that a collected cookie is soon worth nothing.
///
/// The hash is the standard library's: SipHash, made for short input and a secret key. Each `RandomState` has another
/// key, but the library only draws one for each thread, and counts on from there; nor does it promise that the hash
/// will be SipHash for ever. A protocol for the open internet would name its hash, and draw each key anew.
///
/// ```
/// use socket_steps::arq::cookie::{Cookies, LIFETIME};
/// use std::time::Duration;
///
/// let mut cookies = Cookies::default();
/// let [here, there] = [1, 2].map(|n| std::net::SocketAddr::from(([192, 0, 2, n], 5000)));
/// let cookie = cookies.make(Duration::ZERO, here, 7);
/// assert!(cookies.is_good(Duration::ZERO, here, 7, cookie));
/// assert!(!cookies.is_good(Duration::ZERO, there, 7, cookie));
/// assert!(!cookies.is_good(LIFETIME, here, 7, cookie));
/// ```
#[derive(Debug)]
pub struct Cookies {
    /// The secret of this period, and of the one before.
    secrets: [RandomState; 2],
    period: u128,
}

impl Cookies {
    // ANCHOR: make
    /// The cookie for whoever sends from this address, and wants to begin with this number.
    pub fn make(&mut self, now: Duration, from: SocketAddr, number: u32) -> u64 {
        self.change_secrets(now);
        self.secrets[0].hash_one((from, number))
    }
    // ANCHOR_END: make

    /// Whether a cookie is one of ours, for them, and not too old.
    pub fn is_good(&mut self, now: Duration, from: SocketAddr, number: u32, cookie: u64) -> bool {
        self.change_secrets(now);
        self.secrets.iter().any(|secret| secret.hash_one((from, number)) == cookie)
    }

    fn change_secrets(&mut self, now: Duration) {
        let period = now.as_nanos() / PERIOD.as_nanos();
        for _ in 0..period.saturating_sub(self.period).min(2) {
            self.secrets.swap(0, 1);
            self.secrets[0] = RandomState::new();
        }
        self.period = self.period.max(period);
    }
}

impl Default for Cookies {
    fn default() -> Cookies {
        Cookies { secrets: [RandomState::new(), RandomState::new()], period: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_lives_for_one_period_at_least_and_two_at_most() {
        let address = SocketAddr::from(([192, 0, 2, 1], 5000));
        let second = Duration::from_secs(1);
        for made in [Duration::ZERO, 10 * second, PERIOD - second] {
            let mut cookies = Cookies::default();
            let cookie = cookies.make(made, address, 7);
            assert!(cookies.is_good(made + PERIOD, address, 7, cookie), "{made:?}");
            assert!(!cookies.is_good(made + LIFETIME, address, 7, cookie), "{made:?}");
        }
        // Nothing was asked for a long time: both secrets are new.
        let mut cookies = Cookies::default();
        let cookie = cookies.make(Duration::ZERO, address, 7);
        assert!(!cookies.is_good(10 * LIFETIME, address, 7, cookie));
    }

    #[test]
    fn a_cookie_is_good_for_its_address_and_its_number_only() {
        let mut cookies = Cookies::default();
        let address = SocketAddr::from(([192, 0, 2, 1], 5000));
        let cookie = cookies.make(Duration::ZERO, address, 7);
        let other_port = SocketAddr::from(([192, 0, 2, 1], 5001));
        assert!(!cookies.is_good(Duration::ZERO, other_port, 7, cookie));
        assert!(!cookies.is_good(Duration::ZERO, address, 8, cookie));
        assert!((0..64).all(|bit| !cookies.is_good(Duration::ZERO, address, 7, cookie ^ 1 << bit)));
        let mut another_server = Cookies::default();
        assert!(!another_server.is_good(Duration::ZERO, address, 7, cookie));
    }
}
