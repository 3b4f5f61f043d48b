//! What the kernel says about a process, and about its own memory: proc(5).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Beyond so many threads, their switches are not looked up: that alone would take a noticeable time.
const MOST_THREADS: usize = 2048;

/// A process at one moment; looked up in no time.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// What it has used of the processors, to the nanosecond.
    pub(crate) cpu: Duration,
    /// The parts of that in its own code and in the kernel's, in ticks of the clock, which are hundredths of a second.
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) threads: u64,
    /// Bytes.
    pub(crate) resident: u64,
    pub(crate) virtual_memory: u64,
}

impl Sample {
    /// None when there is no such process, or no `/proc`.
    pub(crate) fn of(pid: &str) -> Option<Sample> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The program's name stands in parentheses and may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
        let ticks = |count: u64| Duration::from_secs(count) / rustix::param::clock_ticks_per_second() as u32;
        let (user, system) = (ticks(field(11)?), ticks(field(12)?));
        Some(Sample {
            cpu: cpu_clock(pid).unwrap_or(user + system),
            user,
            system,
            threads: field(17)?,
            virtual_memory: field(20)?,
            resident: field(21)? * rustix::param::page_size() as u64,
        })
    }
}

/// How often each thread of a process has been switched away from.
pub(crate) struct Switches(BTreeMap<String, u64>);

impl Switches {
    /// Takes some 9 µs of a processor's time for each thread: not to be done while something is measured.
    pub(crate) fn of(pid: &str) -> Option<Switches> {
        let tasks: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().collect();
        if tasks.len() > MOST_THREADS {
            return None;
        }
        let mut counts = BTreeMap::new();
        for task in tasks {
            // A thread that ends while we look has no file any more.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            let lines = status.lines().filter_map(|line| line.split_once("ctxt_switches:"));
            let count = lines.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum();
            counts.insert(task.file_name().to_string_lossy().into_owned(), count);
        }
        Some(Switches(counts))
    }

    /// How many there have been since then; those of threads that have ended in the meantime are lost.
    pub(crate) fn since(&self, before: &Switches) -> u64 {
        self.0.iter().map(|(thread, count)| count.saturating_sub(*before.0.get(thread).unwrap_or(&0))).sum()
    }
}

/// The clock that runs while a process does: clock_getcpuclockid(3).
#[cfg(target_os = "linux")]
fn cpu_clock(pid: &str) -> Option<Duration> {
    let pid = if pid == "self" { nix::unistd::getpid() } else { nix::unistd::Pid::from_raw(pid.parse().ok()?) };
    nix::time::clock_getcpuclockid(pid).ok()?.now().ok().map(Duration::from)
}

#[cfg(not(target_os = "linux"))]
fn cpu_clock(_pid: &str) -> Option<Duration> {
    None
}

/// What the kernel itself uses for threads, sockets and page tables, in bytes: of the whole machine.
pub(crate) fn kernel_memory() -> Option<u64> {
    const USES: [&str; 3] = ["Slab:", "KernelStack:", "PageTables:"];
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let lines = meminfo.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let uses = lines.filter(|(name, _)| USES.contains(name));
    uses.map(|(_, size)| Some(size.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_threads_memory_and_switches() {
        let (before, switches) = (Sample::of("self").unwrap(), Switches::of("self").unwrap());
        std::thread::sleep(Duration::from_millis(1));
        let (after, switches_after) = (Sample::of("self").unwrap(), Switches::of("self").unwrap());
        assert!(after.threads >= 1 && after.resident > 100_000 && after.virtual_memory > after.resident, "{after:?}");
        assert!(after.cpu >= before.cpu);
        assert!(switches_after.since(&switches) >= 1);
        assert!(kernel_memory().unwrap() > 1_000_000);
        assert!(Sample::of("0").is_none());
    }
}
