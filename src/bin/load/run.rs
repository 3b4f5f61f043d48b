//! A run from beginning to end: starts the threads, tells them when, looks at the server, and adds up.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::control::Control;
use crate::driver::Driver;
use crate::plan::Plan;
use crate::process::{Sample, Switches, kernel_memory};
use crate::progress::Bar;
use crate::tally::Tally;

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(100);

/// Between the decision to start and the start, every thread must have heard of it.
const READY: Duration = Duration::from_millis(40);

/// Everything that a run has brought to light.
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    /// How long opening the connections took.
    pub(crate) opening: Duration,
    /// What was really measured: less than planned after Ctrl-C, or when no connection was left.
    pub(crate) measured: Duration,
    pub(crate) is_interrupted: bool,
    /// Load itself.
    pub(crate) own: Option<Span>,
    pub(crate) server: Option<Server>,
}

/// The server's process.
pub(crate) struct Server {
    pub(crate) pid: u32,
    /// Before the first connection.
    pub(crate) before: Look,
    /// If it was still there.
    pub(crate) measured: Option<Span>,
    /// The kernel's memory at the end of the measured time.
    pub(crate) kernel: Option<u64>,
}

/// A process at the beginning and the end of the measured time.
pub(crate) struct Span {
    pub(crate) samples: [Sample; 2],
    /// Its context switches in this time and in the warm-up.
    pub(crate) switches: Option<u64>,
}

impl Span {
    fn of(samples: [Option<Sample>; 2], switches: [Option<Switches>; 2]) -> Option<Span> {
        let ([from, to], [before, after]) = (samples, switches);
        let switches = before.zip(after).map(|(before, after)| after.since(&before));
        Some(Span { samples: [from?, to?], switches })
    }
}

/// The process and the kernel's memory at one moment.
#[derive(Clone)]
pub(crate) struct Look {
    pub(crate) sample: Sample,
    pub(crate) kernel: Option<u64>,
}

impl Look {
    pub(crate) fn at(pid: &str) -> Option<Look> {
        Some(Look { sample: Sample::of(pid)?, kernel: kernel_memory() })
    }
}

/// Runs the plan, on a connection that is open already and others.
///
/// # Errors
/// One line: the machine has no threads or epolls left.
pub(crate) fn run(
    plan: &Plan,
    control: &Arc<Control>,
    first: Socket,
    server: Option<(u32, Look)>,
) -> Result<Outcome, String> {
    let share = |thread: usize| thread * plan.connections / plan.threads;
    let drivers = (0..plan.threads).map(|thread| Driver::new(plan, control, share(thread)..share(thread + 1)));
    let drivers: Vec<Driver<'_>> =
        drivers.collect::<Result<_, _>>().map_err(|error| format!("cannot poll: {error}"))?;
    thread::scope(|scope| {
        let mut first = Some(first);
        let mut threads = Vec::new();
        for driver in drivers {
            let first = first.take();
            let begun = thread::Builder::new().name("load".to_owned()).spawn_scoped(scope, move || {
                let ending = control.begin();
                let tally = driver.run(first)?;
                ending.in_good_order();
                Ok(tally)
            });
            match begun {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    control.end();
                    return Err(format!("cannot start a thread: {error}"));
                }
            }
        }
        let mut outcome = watch(plan, control, server);
        for thread in threads {
            let tally: io::Result<Tally> = thread.join().map_err(|_| "a thread of load has failed".to_owned())?;
            outcome.tally.merge(tally.map_err(|error| format!("cannot poll: {error}"))?);
        }
        Ok(outcome)
    })
}

/// From the first connection to the end of the measured time.
fn watch(plan: &Plan, control: &Control, server: Option<(u32, Look)>) -> Outcome {
    let began = Instant::now();
    let bar = Bar::opening(plan.connections);
    while control.opened() < plan.threads && !control.is_over() {
        bar.show(control.progress());
        thread::park_timeout(TICK);
    }
    drop(bar);
    let opening = began.elapsed();
    let mut outcome = Outcome {
        tally: Tally::new(),
        opening,
        measured: Duration::ZERO,
        is_interrupted: false,
        own: None,
        server: server.map(|(pid, before)| Server { pid, before, measured: None, kernel: None }),
    };
    let pids = [Some("self".to_owned()), outcome.server.as_ref().map(|server| server.pid.to_string())];
    let look = || pids.each_ref().map(|pid| Sample::of(pid.as_deref()?));
    let look_for_switches = || pids.each_ref().map(|pid| Switches::of(pid.as_deref()?));
    // With a thousand threads that takes a while; now nobody is kept from working by it.
    let [own_before, before] = look_for_switches();
    let times = plan.times_from(Instant::now() + READY);
    control.start(times);
    let bar = Bar::measuring(plan.warm_up + plan.seconds);
    let is_over = || control.is_over() || control.ended() == plan.threads;
    let wait_until = |moment: Instant| {
        while Instant::now() < moment && !is_over() {
            bar.show(control.progress());
            thread::park_timeout(TICK.min(moment.saturating_duration_since(Instant::now())));
        }
    };
    wait_until(times.from);
    let [own_from, from] = look();
    wait_until(times.until);
    outcome.measured = Instant::now().min(times.until).saturating_duration_since(times.from);
    let ([own_to, to], kernel) = (look(), kernel_memory());
    let [own_after, after] = look_for_switches();
    outcome.own = Span::of([own_from, own_to], [own_before, own_after]);
    if let Some(server) = &mut outcome.server {
        server.measured = Span::of([from, to], [before, after]);
        server.kernel = kernel;
    }
    drop(bar);
    // The last answers may take a while.
    let bar = Bar::finishing();
    while control.ended() < plan.threads {
        bar.show(control.progress());
        thread::park_timeout(TICK);
    }
    outcome.is_interrupted = control.is_interrupted();
    outcome
}
