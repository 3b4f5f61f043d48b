//! A bad link, made to order: it loses, doubles, delays, overtakes and damages, and does the same again for the
//! same seed.

use std::collections::BTreeMap;
use std::time::Duration;

/// How bad a link is. Shares are in percent, of all datagrams; more than 100 is all of them.
///
/// The default is a perfect link, on which nothing happens and nothing takes time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// How many never arrive.
    pub lost: u8,
    /// How many arrive twice.
    pub doubled: u8,
    /// How many arrive late, so that those sent after them overtake them.
    pub late: u8,
    /// How many arrive with one bit turned around.
    pub damaged: u8,
    /// How long the way takes.
    pub delay: Duration,
    /// How much longer it takes at most for those that are late.
    pub late_by: Duration,
}

/// What has become of a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// It never arrives. Nothing else has happened to it.
    pub lost: bool,
    /// It arrives twice. Only one of the two can be late; both can be damaged.
    pub doubled: bool,
    /// It arrives late.
    pub late: bool,
    /// It arrives damaged.
    pub damaged: bool,
}

/// How often which fate was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fates {
    /// Datagrams sent, whatever became of them.
    pub sent: u64,
    /// Of these: lost.
    pub lost: u64,
    /// Of these: doubled.
    pub doubled: u64,
    /// Of these: late.
    pub late: u64,
    /// Of these: damaged.
    pub damaged: u64,
}

/// A link in one direction. It has no clock and no thread: whoever uses it says what time it is.
///
/// Times are counted from any moment that all who use the link agree on. What becomes of the n-th datagram depends
/// on the seed and on n, on nothing else: not on what it says, and not on the clock.
///
/// Linux can do the same to real packets (`tc-netem(8)`); but that takes root, and each run is another story.
///
/// ```
/// use socket_steps::arq::link::{Faults, Link};
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let mut link = Link::new(Faults { lost: 50, delay: second, ..Faults::default() }, 10);
/// let fates: Vec<bool> = (0..4).map(|n| link.send(Duration::ZERO, &[n]).lost).collect();
/// assert_eq!(fates, [false, true, false, true]);
///
/// assert_eq!(link.receive(Duration::ZERO), None); // still on the way
/// assert_eq!(link.next_arrival(), Some(second));
/// assert_eq!(link.receive(second), Some(vec![0]));
/// assert_eq!(link.receive(second), Some(vec![2]));
/// assert_eq!(link.receive(second), None);
/// ```
#[derive(Debug)]
pub struct Link {
    faults: Faults,
    seed: u64,
    /// By the time of arrival; what arrives at the same time, in the order in which it was sent.
    on_the_way: BTreeMap<(Duration, u64), Vec<u8>>,
    /// How many have been put on the way, doubles included.
    put: u64,
    fates: Fates,
}

impl Link {
    /// A link that is as bad as `faults` says. Another seed is another story.
    pub fn new(faults: Faults, seed: u64) -> Link {
        Link { faults, seed, on_the_way: BTreeMap::new(), put: 0, fates: Fates::default() }
    }

    /// Sends a datagram into the link, and tells what will become of it. A program could not know that; a story
    /// wants to.
    pub fn send(&mut self, now: Duration, datagram: &[u8]) -> Fate {
        let mut dice = Dice::for_datagram(self.seed, self.fates.sent);
        // Every die is thrown for every datagram: then one that is late stays late when the loss is changed.
        let lost = dice.percent(self.faults.lost);
        let doubled = dice.percent(self.faults.doubled) && !lost;
        let late = dice.percent(self.faults.late) && !lost;
        let damaged = dice.percent(self.faults.damaged) && !lost && !datagram.is_empty();
        let (later, bit) = (dice.next(), dice.next());

        let fate = Fate { lost, doubled, late, damaged };
        self.fates.count(fate);
        let mut datagram = datagram.to_vec();
        if damaged {
            let bit = bit % (datagram.len() as u64 * 8);
            datagram[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        let arrives = now.saturating_add(self.faults.delay);
        if doubled {
            self.put(arrives, datagram.clone());
        }
        if !lost {
            self.put(
                if late { arrives.saturating_add(fraction(self.faults.late_by, later)) } else { arrives },
                datagram,
            );
        }
        fate
    }

    /// The next datagram that has arrived by now.
    pub fn receive(&mut self, now: Duration) -> Option<Vec<u8>> {
        let first = self.on_the_way.first_entry()?;
        let (arrives, _) = *first.key();
        if arrives <= now { Some(first.remove()) } else { None }
    }

    /// When the next datagram arrives; `None` if none is on the way.
    pub fn next_arrival(&self) -> Option<Duration> {
        self.on_the_way.keys().next().map(|(arrives, _)| *arrives)
    }

    /// What has become of all datagrams so far.
    pub fn fates(&self) -> Fates {
        self.fates
    }

    fn put(&mut self, arrives: Duration, datagram: Vec<u8>) {
        self.on_the_way.insert((arrives, self.put), datagram);
        self.put += 1;
    }
}

impl Fates {
    fn count(&mut self, fate: Fate) {
        self.sent += 1;
        self.lost += u64::from(fate.lost);
        self.doubled += u64::from(fate.doubled);
        self.late += u64::from(fate.late);
        self.damaged += u64::from(fate.damaged);
    }
}

/// A part of `whole` that is more than nothing: (n + 1) of 1024 parts.
fn fraction(whole: Duration, n: u64) -> Duration {
    whole / 1024 * (n % 1024 + 1) as u32
}

/// SplitMix64: Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014. Good enough for
/// dice, and short enough to be the same for ever; it is no secret what comes next.
struct Dice(u64);

/// What is added at each throw: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Dice {
    /// Its own dice for each datagram.
    fn for_datagram(seed: u64, n: u64) -> Dice {
        Dice(Dice(seed).next() ^ Dice(n).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn percent(&mut self, share: u8) -> bool {
        self.next() % 100 < u64::from(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn bad() -> Faults {
        Faults { lost: 20, doubled: 5, late: 25, damaged: 1, delay: 10 * MILLISECOND, late_by: 30 * MILLISECOND }
    }

    type Arrival = (Duration, Vec<u8>);

    /// Sends that many, one a millisecond, each with its number; and takes what arrives.
    fn story(faults: Faults, seed: u64, datagrams: u32) -> (Link, Vec<Fate>, Vec<Arrival>) {
        let mut link = Link::new(faults, seed);
        let fates = (0..datagrams).map(|n| link.send(n * MILLISECOND, &n.to_be_bytes())).collect();
        let mut arrived = Vec::new();
        while let Some(now) = link.next_arrival() {
            arrived.push((now, link.receive(now).expect("what arrives now")));
        }
        (link, fates, arrived)
    }

    #[test]
    fn a_perfect_link_delivers_everything_at_once_and_in_order() {
        let mut link = Link::new(Faults::default(), 1);
        for n in 0..100 {
            assert_eq!(link.send(Duration::ZERO, &[n]), Fate::default());
        }
        let arrived: Vec<Vec<u8>> = std::iter::from_fn(|| link.receive(Duration::ZERO)).collect();
        assert_eq!(arrived, (0..100).map(|n| vec![n]).collect::<Vec<_>>());
        assert_eq!(link.fates(), Fates { sent: 100, ..Fates::default() });
    }

    #[test]
    fn the_same_seed_tells_the_same_story_and_another_seed_another() {
        let (_, fates, arrived) = story(bad(), 7, 1000);
        let (_, fates_again, arrived_again) = story(bad(), 7, 1000);
        assert_eq!((&fates, &arrived), (&fates_again, &arrived_again));
        assert_ne!(fates, story(bad(), 8, 1000).1);
    }

    #[test]
    fn the_generator_is_the_published_one() {
        // The first numbers of the reference implementation for the seed 1234567.
        let mut dice = Dice(1_234_567);
        let numbers = [dice.next(), dice.next(), dice.next()];
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn as_many_as_were_ordered_are_lost_doubled_late_and_damaged() {
        let (link, fates, arrived) = story(bad(), 42, 100_000);
        let met = link.fates();
        assert_eq!(met.sent, 100_000);
        let near = |share: u64, count: u64| (share * 900..=share * 1100).contains(&count);
        assert!(near(20, met.lost), "{met:?}");
        // The lost ones can be nothing else.
        assert!(near(4, met.doubled) && near(20, met.late), "{met:?}");
        assert!((700..=900).contains(&met.damaged), "{met:?}");
        assert_eq!(arrived.len() as u64, met.sent - met.lost + met.doubled);
        assert_eq!(fates.iter().filter(|fate| fate.damaged).count() as u64, met.damaged);
    }

    #[test]
    fn late_ones_are_overtaken_and_the_others_keep_their_order() {
        let faults = Faults { doubled: 0, damaged: 0, ..bad() };
        let (_, fates, arrived) = story(faults, 5, 1000);
        let number = |datagram: &[u8]| u32::from_be_bytes(datagram.try_into().expect("four bytes"));
        let numbers: Vec<u32> = arrived.iter().map(|(_, datagram)| number(datagram)).collect();
        assert!(!numbers.is_sorted(), "nobody was overtaken");
        let in_time: Vec<u32> = numbers.iter().copied().filter(|n| !fates[*n as usize].late).collect();
        assert!(in_time.is_sorted());
        for (at, datagram) in &arrived {
            let n = number(datagram);
            let way = *at - n * MILLISECOND;
            let late = fates[n as usize].late;
            assert_eq!(late, way > faults.delay, "{n} took {way:?}");
            assert!(way <= faults.delay + faults.late_by, "{n} took {way:?}");
        }
    }

    #[test]
    fn damage_is_one_bit_of_any_byte() {
        let mut link = Link::new(Faults { damaged: 100, ..Faults::default() }, 9);
        let mut hit = [0; 16];
        for _ in 0..1000 {
            assert!(link.send(Duration::ZERO, &[0; 16]).damaged);
            let arrived = link.receive(Duration::ZERO).expect("damaged, not lost");
            assert_eq!(arrived.iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
            hit[arrived.iter().position(|byte| *byte != 0).expect("one bit")] += 1;
        }
        assert!(hit.iter().all(|times| *times > 0), "{hit:?}");
    }

    #[test]
    fn an_empty_datagram_cannot_be_damaged_and_can_be_lost() {
        let all = Faults { damaged: 100, ..Faults::default() };
        assert_eq!(Link::new(all, 1).send(Duration::ZERO, &[]), Fate::default());
        let all = Faults { lost: 255, ..all };
        assert_eq!(Link::new(all, 1).send(Duration::ZERO, &[]), Fate { lost: true, ..Fate::default() });
    }

    #[test]
    fn a_changed_loss_leaves_the_rest_of_the_story_as_it_was() {
        let (_, fates, _) = story(bad(), 11, 1000);
        let (_, lossless, _) = story(Faults { lost: 0, ..bad() }, 11, 1000);
        for (fate, lossless) in fates.iter().zip(&lossless).filter(|(fate, _)| !fate.lost) {
            assert_eq!(fate, lossless);
        }
    }
}
