//! The clock on the wall can be set, forwards and backwards, while a server runs. Here, nothing waits by it.
//!
//! A test cannot set it: it is the whole machine's. So it is looked at who asks for it, in the source and in the system
//! calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::trace::can_trace;
use crate::support::{Server, program, wait_until};

/// Who may look at the wall, and what for.
const ALLOWED: [(&str, &str); 2] =
    [("src/bin/check/main.rs", "a seed, if none is given"), ("src/web/http.rs", "the Date of a response")];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_clock_on_the_wall_is_looked_at_where_a_date_is_wanted_and_nowhere_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 50, "{} files", files.len());
    let looks = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        // Also by what a package might offer for it.
        ["SystemTime", "CLOCK_REALTIME", "ClockId::Realtime", "gettimeofday"].iter().any(|name| text.contains(name))
    };
    let mut found: Vec<_> =
        files.iter().filter(|path| looks(path)).map(|path| path.strip_prefix(root).unwrap()).collect();
    found.sort();
    assert_eq!(found, ALLOWED.map(|(path, _what_for)| Path::new(path)));
    println!("{} sources, {} of which look at the wall, and may", files.len(), found.len());
}

/// Whether a system call waits until a time on the wall; others wait for as long as it says, or by the clock that
/// cannot be set.
fn waits_by_the_wall(call: &str) -> bool {
    let is_absolute = call.contains("TIMER_ABSTIME") && call.contains("CLOCK_REALTIME,");
    // Without a time to wait for, it names a clock and does not look at it.
    let is_timed = call.contains("FUTEX_CLOCK_REALTIME") && call.contains("tv_sec");
    is_timed || is_absolute || call.contains("timerfd_create(CLOCK_REALTIME")
}

#[test]
fn no_wait_of_the_server_ends_by_the_clock_on_the_wall() {
    if !can_trace() {
        return;
    }
    assert!(waits_by_the_wall("7 futex(0x7f, FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME, 0, {tv_sec=9}"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("trace");
    let mut command = Command::new("strace");
    let calls = "trace=futex,poll,ppoll,clock_nanosleep,nanosleep,timerfd_create,timerfd_settime,exit_group";
    command.args(["-D", "-f", "-e", calls, "-o"]).arg(&file).arg(program().get_program());
    command.args(["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--service", "chat"]).env_remove("RUST_LOG");
    // A thread beyond the one that is kept waits for work, for a while; so does a drain for its end.
    command.args(["--min-workers", "1", "--idle-timeout", "300ms", "--message-timeout", "300ms", "--drain", "300ms"]);
    let server = Server::from_command(&mut command);
    let pid = server.pid().to_string();
    let mut silent = [(); 3].map(|()| server.client());
    silent.iter_mut().for_each(|client| assert!(client.rest().is_empty()));
    let mut begins = server.client();
    begins.send("half a li");
    begins.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    begins.rest_and_end().1.unwrap_err();
    assert!(server.stop().status.success());
    let trace = wait_until("strace has written the last line", || {
        let trace = fs::read_to_string(&file).unwrap();
        let is_last = |line: &str| line.starts_with(&pid) && line.contains("+++ exited with 0 +++");
        trace.lines().any(is_last).then_some(trace)
    });
    let timed = trace.lines().filter(|line| line.contains("futex(") && line.contains("tv_sec")).count();
    assert!(timed > 3, "{timed} waits with an end: nothing was looked at");
    let by_the_wall: Vec<&str> = trace.lines().filter(|line| waits_by_the_wall(line)).collect();
    assert_eq!(by_the_wall, Vec::<&str>::new());
    println!("{timed} waits with an end, 0 of them by the wall");
}
