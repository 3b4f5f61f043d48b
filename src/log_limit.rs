//! Log lines about what may happen a thousand times a second: one a second, with the number of the others.

use std::fmt::Arguments;
use std::time::{Duration, Instant};

const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// Warns at most once a second.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    last: Option<Instant>,
    unsaid: u64,
}

impl LogLimit {
    pub(crate) fn log(&mut self, line: Arguments<'_>) {
        if self.last.is_some_and(|last| last.elapsed() < AT_MOST_EVERY) {
            self.unsaid += 1;
            return;
        }
        match self.unsaid {
            0 => log::warn!("{line}"),
            unsaid => log::warn!("{line} ({unsaid} more like this before)"),
        }
        self.last = Some(Instant::now());
        self.unsaid = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_complaints_at_once_are_one_line() {
        let mut limit = LogLimit::default();
        (0..1000).for_each(|_| limit.log(format_args!("cannot accept")));
        assert_eq!(limit.unsaid, 999);
    }
}
