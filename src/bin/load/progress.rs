//! The progress bar, on a terminal only: on standard error, which leaves the results alone.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::Progress;

/// One phase's bar; gone when dropped.
pub(crate) struct Bar {
    bar: ProgressBar,
    began: Instant,
    counts_time: bool,
}

impl Bar {
    pub(crate) fn opening(connections: usize) -> Bar {
        Bar::new(connections as u64, "opening {bar:30} {pos}/{len}, {msg}", false)
    }

    pub(crate) fn measuring(time: Duration) -> Bar {
        Bar::new(time.as_millis() as u64, "measuring {bar:30} {percent}%, {msg}", true)
    }

    pub(crate) fn finishing() -> Bar {
        Bar::new(0, "waiting for the last answers, {msg}", false)
    }

    fn new(length: u64, template: &str, counts_time: bool) -> Bar {
        // It draws on standard error, and nothing where that is not a terminal.
        let bar = ProgressBar::new(length);
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, began: Instant::now(), counts_time }
    }

    pub(crate) fn show(&self, progress: Progress) {
        let Progress { settled, answered, failed } = progress;
        self.bar.set_position(if self.counts_time { self.began.elapsed().as_millis() as u64 } else { settled });
        self.bar.set_message(format!("{answered} answers, {failed} failures"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
