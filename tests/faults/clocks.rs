//! The clock on the wall can be set, forwards and backwards, while a server runs. Here, nothing waits by it.
//!
//! A test cannot set it: it is the whole machine's. But faketime can stand between a program and its clock, which is
//! then another at once. What the kernel waits for is out of its reach, so it is also looked at who asks for the clock,
//! in the source and in the system calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use crate::support::web::Site;
use crate::support::{Server, has_program, program, run, wait_until};

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
    if !has_program("strace") {
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

/// The library that faketime puts before the others; `None`, and said so, where there is no faketime.
fn faketime() -> Option<String> {
    let ask = |command: &mut Command| run(command, b"").1;
    has_program("faketime").then(|| ask(Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"])))
}

#[test]
fn when_the_clock_is_set_the_date_is_another_and_the_deadlines_are_not() {
    const YEAR: i64 = 365 * 24 * 60 * 60;
    let Some(faketime) = faketime() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (clock, next) = (folder.path().join("clock"), folder.path().join("next"));
    // At once: a file that is being written is no time.
    let set_clock = |seconds: i64| {
        fs::write(&next, format!("{seconds:+}")).unwrap();
        fs::rename(&next, &clock).unwrap();
    };
    set_clock(0);
    let mut command = program();
    command.args(["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--service", "lines", "--idle-timeout", "1s"]);
    // Asked for anew each time; and the clock that cannot be set is left as it is.
    command.env("LD_PRELOAD", faketime).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let site = Site::of(Server::from_command(&mut command));
    let steps = [10 * YEAR, -10 * YEAR, 0];
    for seconds in steps {
        let came = Instant::now();
        let mut silent = site.server.client();
        silent.say_hello();
        set_clock(seconds);
        let date = httpdate::parse_http_date(site.get("/").field("date")).unwrap();
        let since_1970 = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
        let shown = since_1970(date) - since_1970(SystemTime::now());
        assert!((shown - seconds).abs() < YEAR, "the clock was not set: {shown} s and not {seconds} s from now");
        // Neither too early nor never.
        assert!(silent.rest().is_empty());
        assert!(came.elapsed() >= Duration::from_secs(1), "{:?} after {seconds} s", came.elapsed());
    }
    let ended = site.server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.log.matches("ended (idle)").count(), steps.len(), "{}", ended.log);
}
