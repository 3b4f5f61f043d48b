//! Random numbers that come out the same for the same seed, and texts made of them.

/// splitmix64: small, good enough, and the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

const KOREAN: &[&str] = &["안녕하세요", "서버님", "소켓", "연결", "포트", "바람", "한글", "메시지", "읽기", "쓰기"];
const PLAIN: &[&str] = &["hello", "socket", "port", "stream", "kernel", "buffer", "packet", "listen", "accept", "peer"];

impl Random {
    /// Every stage has numbers of its own, so that it repeats alone what it did among the others.
    pub(crate) fn new(seed: u64, stage: &str) -> Random {
        // FNV-1a over the name.
        let name = stage
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Random(seed ^ name)
    }

    /// Other numbers, which use up none of these.
    pub(crate) fn aside(&self) -> Random {
        Random(!self.0)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ (number >> 31)
    }

    /// Numbers for someone else, who may take more or fewer of them without changing ours.
    pub(crate) fn split(&mut self) -> Random {
        Random(self.next())
    }

    /// From `least` up to, but without, `end`.
    pub(crate) fn between(&mut self, least: usize, end: usize) -> usize {
        least + (self.next() % (end - least) as u64) as usize
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.between(0, words.len())]
    }

    /// A few letters that no other line has, so that an answer to someone else's line is noticed.
    fn mark(&mut self) -> String {
        let letters = b"bcdfghjkmnpqrstvwxz23456789";
        (0..5).map(|_| letters[self.between(0, letters.len())] as char).collect()
    }

    /// A short line of Korean, without its newline.
    pub(crate) fn korean(&mut self) -> String {
        format!("{} {} {}", self.pick(KOREAN), self.pick(KOREAN), self.mark())
    }

    /// A short line of ASCII, without its newline.
    pub(crate) fn plain(&mut self) -> String {
        format!("{} {} {}", self.pick(PLAIN), self.pick(PLAIN), self.mark())
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.between(0, last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_stage_give_the_same_numbers_and_others_do_not() {
        let lines = |seed, stage| {
            let mut random = Random::new(seed, stage);
            (0..5).map(|_| random.korean()).collect::<Vec<_>>()
        };
        assert_eq!(lines(1, "greeting"), lines(1, "greeting"));
        assert_ne!(lines(1, "greeting"), lines(2, "greeting"));
        assert_ne!(lines(1, "greeting"), lines(1, "resets"));
    }

    #[test]
    fn what_is_asked_aside_has_other_numbers_and_changes_none() {
        let mut random = Random::new(1, "greeting");
        let mut undisturbed = random.clone();
        assert_ne!(random.aside().plain(), undisturbed.clone().plain());
        assert_eq!(random.plain(), undisturbed.plain());
    }
}
