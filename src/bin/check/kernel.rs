//! What the kernel says about processes and connections, in `/proc`. Where there is none, every answer is
//! that it is not known.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::target::Address;

/// Whether this machine has what the questions below need.
pub(crate) fn is_known() -> bool {
    Path::new("/proc/self/task").exists()
}

/// One row of `/proc/net/tcp`: a socket.
struct Row {
    local_port: u16,
    listens: bool,
    inode: u64,
}

fn rows() -> Vec<Row> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1).filter_map(row)).collect()
}

fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let port = |field: &str| u16::from_str_radix(field.rsplit_once(':')?.1, 16).ok();
    Some(Row {
        local_port: port(fields.get(1)?)?,
        listens: *fields.get(3)? == "0A",
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Makes sure that this program may have so many connections open; the system's own limit holds.
pub(crate) fn allow_descriptors(connections: usize) -> bool {
    let wanted = connections as u64 + 100;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return true;
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok()
}

/// A process and everything that it started, directly or not.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&one) = family.get(next) {
        family.extend(children(one));
        next += 1;
    }
    family
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    match lists.collect::<io::Result<Vec<String>>>() {
        Ok(lists) => lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|pid| pid.parse().ok()).collect(),
        // Not every kernel lists them; or a thread has just ended. Then everyone is asked for its parent.
        Err(_) => processes().filter(|one| parent(*one) == Some(pid)).collect(),
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The fields of `/proc/PID/stat`.
fn stat(pid: u32) -> Option<Vec<String>> {
    fields_of_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Those behind the program's name, which may contain anything.
fn fields_of_stat(stat: &str) -> Option<Vec<String>> {
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// Whether a process has ended and only waits for its parent to notice.
pub(crate) fn is_gone(pid: u32) -> bool {
    stat(pid).is_none_or(|fields| fields[0] == "Z" || fields[0] == "X")
}

/// Whether every thread of a process has come to a stop (SIGSTOP): until then it may still read.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| fields_of_stat(&stat)).all(|fields| matches!(fields[0].as_str(), "T" | "t" | "Z" | "X"))
}

/// Whether one of these processes has a thread that runs, or would if it were its turn.
pub(crate) fn wants_the_processor(pids: &[u32]) -> bool {
    let tasks = pids.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten());
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    stats.filter_map(|stat| fields_of_stat(&stat)).any(|fields| fields[0] == "R")
}

/// Those of these processes that listen on the address: a shell around the server does not.
pub(crate) fn listeners(address: &Address, among: &[u32]) -> Vec<u32> {
    let inodes: HashSet<u64> = match address {
        Address::Tcp(tcp) => {
            let port = tcp.port();
            rows().iter().filter(|row| row.listens && row.local_port == port).map(|row| row.inode).collect()
        }
        Address::Unix(path) => {
            let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
            let path = path.to_string_lossy();
            let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            fields.filter(|fields| fields.get(7) == Some(&path.as_ref())).filter_map(|f| f[6].parse().ok()).collect()
        }
    };
    let wanted: HashSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    let listens = |pid: &u32| links(*pid).any(|link| wanted.contains(&link));
    among.iter().copied().filter(listens).collect()
}

fn links(pid: u32) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
}

/// How many threads these processes have together; each process has at least one.
pub(crate) fn threads(pids: &[u32]) -> usize {
    pids.iter().map(|pid| entries(&format!("/proc/{pid}/task"))).sum()
}

/// How many descriptors these processes have open together.
pub(crate) fn descriptors(pids: &[u32]) -> usize {
    pids.iter().map(|pid| entries(&format!("/proc/{pid}/fd"))).sum()
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// The limit of descriptors that leaves a process `room` more. A new one gets the lowest free number, and only
/// numbers below the limit can be had.
pub(crate) fn limit_that_leaves(pid: u32, room: usize) -> u64 {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let taken: HashSet<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let free = (0..).filter(|number| !taken.contains(number));
    free.take(room).last().map_or(0, |number: u64| number + 1)
}

/// The processor time that these processes have used.
pub(crate) fn processor_time(pids: &[u32]) -> Duration {
    let ticks = pids.iter().filter_map(|pid| {
        let fields = stat(*pid)?;
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    });
    Duration::from_millis(ticks.sum::<u64>() * 1000 / rustix::param::clock_ticks_per_second())
}
