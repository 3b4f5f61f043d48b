//! Random numbers that come out the same for the same seed.

use std::ops::RangeInclusive;
use std::time::Duration;

/// splitmix64: small, good enough, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Numbers of its own for each `part`, so that one may take more or fewer of them without changing another's.
    pub(crate) fn new(seed: u64, part: u64) -> Random {
        let mut random = Random(seed);
        Random(random.next() ^ part.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    /// As many small ones as large ones: each doubling of the range is as likely as the next.
    pub(crate) fn of_any_size(&mut self, most: u64) -> u64 {
        let bits = self.within(0..=u64::from(most.ilog2()));
        self.within(1 << bits..=most.min((2 << bits) - 1))
    }

    /// Whether this is one of so many in a hundred.
    pub(crate) fn percent(&mut self, share: u8) -> bool {
        self.next() % 100 < u64::from(share)
    }

    pub(crate) fn time(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.within(0..=most.as_micros() as u64))
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let words = (0..count.div_ceil(8)).map(|_| self.next().to_be_bytes());
        let mut bytes = words.collect::<Vec<_>>().concat();
        bytes.truncate(count);
        bytes
    }
}

#[test]
fn the_same_seed_gives_the_same_numbers_and_another_gives_others() {
    let numbers = |seed, part| Random::new(seed, part).bytes(40);
    assert_eq!(numbers(1, 1), numbers(1, 1));
    assert_ne!(numbers(1, 1), numbers(1, 2));
    assert_ne!(numbers(1, 1), numbers(2, 1));
    let mut random = Random::new(1, 1);
    let sizes: Vec<u64> = (0..10_000).map(|_| random.of_any_size(1000)).collect();
    assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&1), Some(&1000)));
}
