//! A small pool of threads that run closures. It knows nothing of sockets.
//!
//! A few threads are kept ready, more are started while there is more to do, and there is always a
//! maximum. What decides whether there is room is a *permit*; what carries the work to a thread is a
//! *channel without room*, on which a job is handed from one thread to another and never lies in between.
//! A queue would be a promise to people whom nobody has time for.

use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::wake::Waker;

/// How long a thread above the minimum waits for work before it ends. Long enough that a busy server does
/// not start and end threads all the time (a start costs some 60 µs), short enough that a peak is forgotten.
const SPARE_THREAD_WAITS: Duration = Duration::from_secs(5);

/// How long to wait for a thread that is on its way back before counting the threads again. It returns
/// within microseconds; but one that was about to end for lack of work may not return at all.
const ON_ITS_WAY_BACK: Duration = Duration::from_millis(10);

/// How long to wait for a thread that was just started before starting another. Only a machine that is
/// overloaded beyond all measure takes this long.
const ON_ITS_WAY_IN: Duration = Duration::from_secs(1);

/// How large the stack of a worker is, in bytes; what is larger belongs on the heap.
///
/// What is never touched of a stack takes no memory, but the kernel's tables do: a page of them covers 2 MiB, which is
/// what Rust gives a thread. Four of these share one. With 10,000 idle connections that is 3.6 KiB less for each; with
/// 1,000 busy ones, 2 % less time for a message, since there is less of them for the processor's caches to hold.
pub const STACK: usize = 512 * 1024;

/// A closure for a pool to run, on any of its threads.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs on at least `min` and at most `max` threads, each with a stack of [`STACK`] bytes.
///
/// ```
/// use socket_steps::pool::Pool;
/// use std::time::Duration;
///
/// let pool = Pool::new(1, 2)?;
/// let (sender, results) = crossbeam_channel::unbounded();
/// let permit = pool.places().take().expect("an empty pool has room");
/// pool.run(Box::new(move || {
///     sender.send(6 * 7).ok();
///     drop(permit); // only now may someone else have this place
/// }))?;
/// assert_eq!(results.recv(), Ok(42));
/// assert_eq!(pool.finish(Duration::from_secs(1)), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pool {
    places: Places,
    jobs: Sender<Job>,
    crew: Arc<Crew>,
    threads: Arc<AtomicUsize>,
    /// Never carries anything: it ends when the last worker has let go of the crew.
    all_gone: Receiver<()>,
}

/// What the workers of a pool share.
#[derive(Debug)]
struct Crew {
    min: usize,
    threads: Arc<AtomicUsize>,
    jobs: Receiver<Job>,
    /// Dropped with the crew, which is how [`Pool::finish`] notices.
    _alive: Sender<()>,
}

/// A job that could not be run, because no thread could be started for it.
pub struct NoThread {
    /// The job, untouched.
    pub job: Job,
    /// Why no thread could be started.
    pub error: io::Error,
}

impl fmt::Debug for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoThread").field("error", &self.error).finish_non_exhaustive()
    }
}

impl fmt::Display for NoThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no thread could be started: {}", self.error)
    }
}

impl std::error::Error for NoThread {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl Pool {
    /// Starts `min` threads, and later up to `max`. The number of places is `max`.
    ///
    /// # Errors
    /// When the first `min` threads cannot be started.
    ///
    /// # Panics
    /// If `max` is zero: a pool without room is a mistake of the caller.
    pub fn new(min: usize, max: usize) -> io::Result<Pool> {
        assert!(max > 0, "a pool needs room for one job at least");
        let (jobs, receiver) = bounded(0);
        let (alive, all_gone) = bounded(0);
        let threads = Arc::new(AtomicUsize::new(0));
        let crew = Crew { min: min.min(max), threads: Arc::clone(&threads), jobs: receiver, _alive: alive };
        let pool = Pool { places: Places::new(max), jobs, crew: Arc::new(crew), threads, all_gone };
        for _ in 0..pool.crew.min {
            pool.start_thread()?;
        }
        Ok(pool)
    }

    /// The places of this pool, to take permits from.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// How many threads there are now; the count stays readable when the pool is gone.
    pub fn threads(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.threads)
    }

    /// Hands a job to a thread, and returns when the thread has it.
    ///
    /// Whoever calls this holds a [`Permit`], so fewer jobs are running than there may be threads: a thread
    /// is waiting for this one, or may be started, or has given its permit back and is on its way. It
    /// therefore never waits for the *end* of a job. (To try the channel alone and refuse when nobody is
    /// waiting at that instant is the tempting shortcut; it turned away 1,140 of 2,000 clients that came
    /// strictly one after another.)
    ///
    /// A job that panics ends, and its thread goes on with the next.
    ///
    /// # Errors
    /// [`NoThread`], with the job in it, when a thread is needed and none can be started.
    pub fn run(&self, job: Job) -> Result<(), NoThread> {
        let Err(refused) = self.jobs.try_send(job) else { return Ok(()) };
        let mut job = refused.into_inner();
        loop {
            // The job stays here until a thread reaches for it: a closure that went into a failed
            // `spawn` would be gone, and with it the client that should be told.
            let mut patience = ON_ITS_WAY_BACK;
            if self.threads.load(Ordering::SeqCst) < self.places.total {
                if let Err(error) = self.start_thread() {
                    return Err(NoThread { job, error });
                }
                patience = ON_ITS_WAY_IN;
            }
            match self.jobs.send_timeout(job, patience) {
                Ok(()) => return Ok(()),
                Err(refused) => job = refused.into_inner(),
            }
        }
    }

    /// Lets every thread end, waits for that at most `patience`, and says how many have not.
    ///
    /// A thread cannot be ended from outside. One that does not return is left behind and counted.
    pub fn finish(self, patience: Duration) -> usize {
        let Pool { jobs, crew, threads, all_gone, .. } = self;
        drop(jobs);
        drop(crew);
        match all_gone.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => threads.load(Ordering::SeqCst),
            _ => 0,
        }
    }

    fn start_thread(&self) -> io::Result<()> {
        let number = self.threads.fetch_add(1, Ordering::SeqCst) + 1;
        let crew = Arc::clone(&self.crew);
        let builder = thread::Builder::new().name(format!("worker {number}")).stack_size(STACK);
        let started = builder.spawn(move || crew.work());
        if started.is_err() {
            self.threads.fetch_sub(1, Ordering::SeqCst);
        }
        started.map(drop)
    }
}

impl Crew {
    /// What each thread does: take a job, run it, come back.
    fn work(&self) {
        loop {
            let job = if self.threads.load(Ordering::SeqCst) > self.min {
                self.jobs.recv_timeout(SPARE_THREAD_WAITS)
            } else {
                self.jobs.recv().map_err(RecvTimeoutError::from)
            };
            match job {
                Ok(job) => survive(job),
                Err(RecvTimeoutError::Timeout) if self.leave_if_spare() => return,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.threads.fetch_sub(1, Ordering::SeqCst);
                    return;
                }
            }
        }
    }

    /// Counts this thread out, unless it is one of the `min` that stay. One step, so that two threads that
    /// look at the same instant cannot both leave.
    fn leave_if_spare(&self) -> bool {
        let fewer = |threads| (threads > self.min).then(|| threads - 1);
        self.threads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok()
    }
}

/// Runs something that may panic, and stays alive. The hook has reported the panic by then.
pub(crate) fn survive(work: impl FnOnce()) {
    if let Err(thrown) = panic::catch_unwind(AssertUnwindSafe(work)) {
        // What was thrown may panic in its turn when it is dropped. After that, it is left where it is.
        let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(thrown)));
        dropped.unwrap_or_else(std::mem::forget);
    }
}

/// The places of a pool: as many as it may have threads. Clones share them.
#[derive(Clone, Debug)]
pub struct Places {
    total: usize,
    state: Arc<Mutex<Taken>>,
    /// Told when a place is given back.
    given_back: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    /// Who wants to know when a place is given back.
    awaited_by: Option<Arc<Waker>>,
}

impl Places {
    fn new(total: usize) -> Places {
        Places { total, state: Arc::default(), given_back: Arc::default() }
    }

    /// Takes a place, if one is free.
    pub fn take(&self) -> Option<Permit> {
        self.take_from(&mut self.lock())
    }

    /// Takes a place, and waits until one is free, however long that takes.
    pub fn take_or_wait(&self) -> Permit {
        let mut state = self.lock();
        loop {
            match self.take_from(&mut state) {
                Some(permit) => return permit,
                None => state = self.given_back.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Takes a place, or has `waker` woken when one is given back. It is woken once; then ask again.
    pub fn take_or_wake(&self, waker: &Arc<Waker>) -> Option<Permit> {
        // Under one lock, or a place given back between the look and the wish would wake nobody.
        let mut state = self.lock();
        let permit = self.take_from(&mut state);
        if permit.is_none() {
            state.awaited_by = Some(Arc::clone(waker));
        }
        permit
    }

    /// Has `waker` woken when a place is given back, whether or not others are free. It is woken once.
    pub fn wake(&self, waker: &Arc<Waker>) {
        self.lock().awaited_by = Some(Arc::clone(waker));
    }

    fn take_from(&self, state: &mut Taken) -> Option<Permit> {
        if state.count == self.total {
            return None;
        }
        state.count += 1;
        Some(Permit(self.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A number is right or wrong no matter which thread panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place in a pool, given back when dropped.
///
/// Give it back *before* anyone can see that the work is done: a client that sees its connection end and
/// comes again at once must find the place free.
#[derive(Debug)]
pub struct Permit(Places);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.count -= 1;
        let awaited_by = state.awaited_by.take();
        drop(state);
        self.0.given_back.notify_one();
        if let Some(waker) = awaited_by {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;

    const BOUND: Duration = Duration::from_secs(20);

    #[test]
    fn two_thousand_jobs_one_after_another_find_the_only_place_free() {
        let pool = Pool::new(1, 1).unwrap();
        let (sender, done) = bounded(0);
        for number in 0..2000 {
            let permit = pool.places().take().expect("the last job has given its place back");
            let sender = sender.clone();
            pool.run(Box::new(move || {
                drop(permit);
                sender.send(number).unwrap();
            }))
            .unwrap();
            assert_eq!(done.recv_timeout(BOUND), Ok(number));
        }
        assert_eq!(pool.threads().load(Ordering::SeqCst), 1);
    }

    #[test]
    fn threads_are_started_up_to_the_maximum_and_every_place_can_be_in_use_at_once() {
        let pool = Pool::new(1, 20).unwrap();
        let (sender, running) = unbounded();
        let (release, released) = bounded::<()>(0);
        for _ in 0..20 {
            let permit = pool.places().take().expect("there is room");
            let (sender, released) = (sender.clone(), released.clone());
            pool.run(Box::new(move || {
                sender.send(()).unwrap();
                let _ = released.recv();
                drop(permit);
            }))
            .unwrap();
        }
        for _ in 0..20 {
            running.recv_timeout(BOUND).unwrap();
        }
        assert!(pool.places().take().is_none(), "a place too many");
        let threads = pool.threads();
        assert_eq!(threads.load(Ordering::SeqCst), 20);
        drop(release);
        assert_eq!(pool.finish(BOUND), 0);
        assert_eq!(threads.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_panic_costs_neither_a_thread_nor_a_place() {
        let pool = Pool::new(2, 2).unwrap();
        let (sender, done) = unbounded();
        for _ in 0..100 {
            let permit = pool.places().take().expect("no place is lost");
            let sender = sender.clone();
            pool.run(Box::new(move || {
                drop(permit);
                sender.send(()).unwrap();
                panic::resume_unwind(Box::new("on purpose"));
            }))
            .unwrap();
            done.recv_timeout(BOUND).unwrap();
        }
        assert_eq!(pool.threads().load(Ordering::SeqCst), 2);
        assert_eq!(pool.finish(BOUND), 0);
    }

    #[test]
    fn a_job_that_never_ends_is_counted_and_not_waited_for() {
        let pool = Pool::new(2, 2).unwrap();
        let (_release, released) = bounded::<()>(0);
        pool.run(Box::new(move || released.recv().unwrap_or_default())).unwrap();
        assert_eq!(pool.finish(Duration::from_millis(50)), 1);
    }

    #[test]
    fn whoever_waits_for_a_place_has_the_next_one() {
        let places = Places::new(1);
        let permit = places.take_or_wait();
        let waiting = places.clone();
        let (sender, taken) = bounded(0);
        thread::spawn(move || sender.send(waiting.take_or_wait()));
        assert!(taken.try_recv().is_err(), "two permits for one place");
        drop(permit);
        let permit = taken.recv_timeout(BOUND).expect("it was told");
        assert!(places.take().is_none());
        drop(permit);
        assert!(places.take().is_some());
    }

    #[test]
    fn a_place_given_back_wakes_who_waits_for_it() {
        let places = Places::new(1);
        let waker = Arc::new(Waker::new().unwrap());
        let permit = places.take().unwrap();
        assert!(places.take_or_wake(&waker).is_none());
        drop(permit);
        let mut watched = [rustix::event::PollFd::new(&*waker, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut watched, Some(&limit)).unwrap(), 1, "nobody was woken");
        assert!(places.take_or_wake(&waker).is_some());
    }

    /// What was thrown once panics again in being dropped.
    struct Relentless;

    impl Drop for Relentless {
        fn drop(&mut self) {
            panic::resume_unwind(Box::new("on purpose, once more"));
        }
    }

    #[test]
    fn a_panic_that_panics_again_costs_neither_a_thread_nor_a_place() {
        let pool = Pool::new(1, 1).unwrap();
        let (sender, done) = bounded(1);
        // Aside: for a thread that is dead, a job would be kept for ever.
        thread::spawn(move || {
            for _ in 0..100 {
                let permit = pool.places().take_or_wait();
                let panics = move || {
                    drop(permit);
                    panic::resume_unwind(Box::new(Relentless));
                };
                pool.run(Box::new(panics)).unwrap();
            }
            let _permit = pool.places().take_or_wait();
            pool.run(Box::new(move || sender.send(()).unwrap())).unwrap();
        });
        assert_eq!(done.recv_timeout(BOUND), Ok(()));
    }

    #[test]
    fn the_places_stay_right_when_a_thread_dies_with_their_count_in_its_hands() {
        let places = Places::new(2);
        let permit = places.take().expect("there is room");
        let same = places.clone();
        let dies = thread::spawn(move || {
            let _count = same.lock();
            panic::resume_unwind(Box::new("on purpose"));
        });
        dies.join().unwrap_err();
        assert!(places.state.is_poisoned(), "the fault did not happen");
        let other = places.take().expect("there is room for one more");
        assert!(places.take().is_none());
        drop(permit);
        let _again = places.take_or_wait();
        drop(other);
        assert!(places.take().is_some());
    }
}
