//! What this machine can hold: descriptors, threads, memory maps.
//!
//! A server that takes more connections than the machine has descriptors stops accepting; one that
//! starts more threads than the machine has memory maps is killed: the standard library's spawn says
//! `Ok`, and then the new thread fails to map its signal stack and aborts the whole process. Both are
//! better found out before the first client than at the ten-thousandth.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not connections: the standard streams, listeners, pipes, the spare one, and what a
/// handler opens for itself.
const RESERVED_DESCRIPTORS: usize = 64;

/// How many connections may be on their way out at once, where there are descriptors enough.
const MOST_LEAVING: usize = 1024;

/// Memory maps that are not threads: the program, its libraries, its heap.
const RESERVED_MAPS: usize = 2000;

/// Memory maps of one thread: its stack, the stack's guard page, its signal stack, that one's guard page.
const MAPS_PER_THREAD: usize = 4;

/// Threads that are not workers: accept, stats, log, signals, and a few to spare.
const RESERVED_THREADS: usize = 32;

/// One limit of this machine, and how many connections fit below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What an operator would look up or raise, such as `descriptors (ulimit -n)`.
    pub name: &'static str,
    /// The limit itself, as the machine states it.
    pub value: usize,
    /// How many connections fit below it, each with its thread and its descriptor.
    pub connections: usize,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { name, value, connections } = self;
        write!(f, "{name} is {value}, enough for {connections} connections")
    }
}

/// The tightest of this machine's limits: what bounds the number of connections.
///
/// ```
/// let limit = socket_steps::limits::tightest();
/// println!("{limit}");
/// assert!(limit.connections > 0);
/// ```
pub fn tightest() -> Limit {
    let descriptors = descriptors();
    let mut limits = vec![Limit {
        name: "the descriptor limit (ulimit -n)",
        value: descriptors,
        connections: descriptors.saturating_sub(RESERVED_DESCRIPTORS + most_leaving()),
    }];
    if let Some(maps) = number_in("/proc/sys/vm/max_map_count") {
        limits.push(Limit {
            name: "the limit of memory maps (sysctl vm.max_map_count)",
            value: maps,
            connections: maps.saturating_sub(RESERVED_MAPS) / MAPS_PER_THREAD,
        });
    }
    let processes = getrlimit(Resource::Nproc).current.map(|n| n as usize);
    let threads = [
        ("the thread limit (sysctl kernel.threads-max)", number_in("/proc/sys/kernel/threads-max")),
        ("the limit of thread ids (sysctl kernel.pid_max)", number_in("/proc/sys/kernel/pid_max")),
        ("the thread limit of this control group (pids.max)", control_group_threads()),
        // The administrator is exempt from this one.
        ("the thread limit of this user (ulimit -u)", processes.filter(|_| !rustix::process::geteuid().is_root())),
    ];
    for (name, value) in threads {
        let Some(value) = value else { continue };
        limits.push(Limit { name, value, connections: value.saturating_sub(RESERVED_THREADS) });
    }
    let tightest = limits.into_iter().min_by_key(|limit| limit.connections);
    tightest.expect("the descriptor limit is always there")
}

/// Raises the soft limit of descriptors to the hard one: what the administrator allows this process.
///
/// The soft limit is low (1024) for the sake of old programs that use `select`, which overflows its bit
/// set beyond that number. This one uses `poll`.
///
/// # Errors
/// When the kernel refuses, which it does not do below the hard limit.
pub fn raise_descriptors() -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// How many connections may be on their way out at once: a polite close keeps a descriptor for a while, and
/// these must not be missing for clients who are served.
pub(crate) fn most_leaving() -> usize {
    MOST_LEAVING.min(descriptors() / 4)
}

fn descriptors() -> usize {
    getrlimit(Resource::Nofile).current.map_or(usize::MAX, |limit| limit as usize)
}

fn number_in(path: impl AsRef<Path>) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The least `pids.max` from this process's control group upwards; `max` is no number, and no limit.
fn control_group_threads() -> Option<usize> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    // Version 2 is the line `0::/path`; version 1 has a line and a hierarchy for each controller.
    groups
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let root = match fields.next()? {
                "" => "/sys/fs/cgroup",
                "pids" => "/sys/fs/cgroup/pids",
                _ => return None,
            };
            let group = Path::new(root).join(fields.next()?.trim_start_matches('/'));
            group
                .ancestors()
                .take_while(|path| path.starts_with(root))
                .filter_map(|path| number_in(path.join("pids.max")))
                .min()
        })
        .min()
}
