//! What the threads and the one that waits for them tell each other.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, Thread};

use crate::plan::Times;

/// Shared by all threads of a run, and by the one that waits for signals.
pub(crate) struct Control {
    interrupted: AtomicBool,
    over: AtomicBool,
    times: OnceLock<Times>,
    /// How many threads have opened what they could, and how many have come to their end.
    opened: AtomicUsize,
    ended: AtomicUsize,
    /// For the progress bar: connections opened or failed, answers, failures.
    settled: AtomicU64,
    answered: AtomicU64,
    failed: AtomicU64,
    /// Whoever waits for all this.
    waiting: Thread,
}

/// Notes, when it is dropped, that a thread has ended: also where an error or a panic has ended it, and nobody may
/// wait for what it would have done.
pub(crate) struct Ending<'a> {
    control: &'a Control,
    is_early: bool,
}

impl Ending<'_> {
    /// The thread has done all that it was to do.
    pub(crate) fn in_good_order(mut self) {
        self.is_early = false;
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if self.is_early {
            self.control.end();
        }
        self.control.ended.fetch_add(1, Ordering::SeqCst);
        self.control.waiting.unpark();
    }
}

/// What the progress bar shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) settled: u64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
}

impl Control {
    /// For a run that the calling thread waits for.
    pub(crate) fn new() -> Control {
        Control {
            interrupted: AtomicBool::new(false),
            over: AtomicBool::new(false),
            times: OnceLock::new(),
            opened: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            settled: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            waiting: thread::current(),
        }
    }

    /// Ctrl-C: says whether it was the first one.
    pub(crate) fn interrupt(&self) -> bool {
        let is_first = !self.interrupted.swap(true, Ordering::SeqCst);
        self.end();
        is_first
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::SeqCst)
    }

    /// All threads are to end at once.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.waiting.unpark();
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Begins the run proper, in all threads at once.
    pub(crate) fn start(&self, times: Times) {
        // It is begun once.
        let _ = self.times.set(times);
    }

    pub(crate) fn times(&self) -> Option<Times> {
        self.times.get().copied()
    }

    pub(crate) fn note_opened(&self) {
        self.opened.fetch_add(1, Ordering::SeqCst);
        self.waiting.unpark();
    }

    /// A thread begins.
    pub(crate) fn begin(&self) -> Ending<'_> {
        Ending { control: self, is_early: true }
    }

    pub(crate) fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    pub(crate) fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// A thread's progress has been `before`, and is `now`.
    pub(crate) fn note_progress(&self, before: Progress, now: Progress) {
        for (counter, before, now) in [
            (&self.settled, before.settled, now.settled),
            (&self.answered, before.answered, now.answered),
            (&self.failed, before.failed, now.failed),
        ] {
            if now != before {
                counter.fetch_add(now - before, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        Progress {
            settled: self.settled.load(Ordering::Relaxed),
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_has_ended_and_so_have_all() {
        let control = Control::new();
        thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _ending = control.begin();
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
        });
        assert_eq!((control.ended(), control.is_over()), (1, true));
    }

    #[test]
    fn a_thread_that_has_done_its_work_ends_alone() {
        let control = Control::new();
        control.begin().in_good_order();
        assert_eq!((control.ended(), control.is_over()), (1, false));
    }
}
