//! The beginning and the end of a server, when somebody is impatient.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::figures::full;
use crate::support::{Accounts, BOUND, PREFIX, Server, has_program, program, wait_until};

/// A signal, as the shell calls it and as the kernel does.
const SIGNALS: [(Signal, i32); 3] = [(Signal::INT, 2), (Signal::TERM, 15), (Signal::HUP, 1)];

/// Before the server listens to signals, one ends it as it ends any program. From then on it stops in good order.
/// There is no third way: it neither hangs, nor fails, nor keeps the next one from starting on the same path.
#[test]
fn a_signal_at_any_moment_of_the_start_ends_it_and_the_next_one_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("unix:{}", folder.path().join("socket").display());
    let command = || {
        let mut command = program();
        command.args(["--listen", &path, "--page", "127.0.0.1:0"]).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let began = Instant::now();
    assert!(Server::from_command(&mut command()).stop().status.success());
    let whole = began.elapsed();

    let tries = if full() { 600 } else { 60 };
    let (mut killed, mut stopped) = (0, 0);
    // Until both have happened, for how long a start takes is the machine's affair.
    for number in 0.. {
        if number >= tries && killed > 0 && stopped > 0 {
            break;
        }
        assert!(began.elapsed() < BOUND, "{killed} killed, {stopped} stopped");
        let (signal, code) = SIGNALS[number % SIGNALS.len()];
        let mut child = command().spawn().unwrap();
        // Not a wait for anything: the moment is what is tried out, from the first to long after the start.
        thread::sleep(whole.mul_f64((number % tries) as f64 / tries as f64));
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = wait_until("it ends", || child.try_wait().unwrap());
        let (mut output, mut log) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        match (status.code(), status.signal()) {
            (Some(0), None) => {
                Accounts::parse(output.lines().last().unwrap());
                stopped += 1;
            }
            (None, Some(signal)) => {
                assert_eq!(signal, code);
                assert_eq!(output, "", "it listened, but not to a signal");
                killed += 1;
            }
            _ => panic!("{status}: {output}{log}"),
        }
    }
    println!("{} signals at the start: {killed} ended it at once, {stopped} in good order", killed + stopped);
}

/// `nohup` has a program ignore what the terminal sends when it is closed.
#[test]
fn a_server_started_with_nohup_outlives_its_terminal_and_stops_when_it_is_asked_to() {
    if !has_program("nohup") {
        return;
    }
    let mut command = Command::new("nohup");
    command.arg(program().get_program()).args(["--no-page", "--listen", "127.0.0.1:0"]).env_remove("RUST_LOG");
    let server = Server::from_command(&mut command);
    server.signal(Signal::HUP);
    wait_until("the signal has come", || is_pending(server.pid(), 1).then_some(()));
    server.client().send("still here").expect(format!("{PREFIX}still here"));
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("served"), 1);
    println!("1 SIGHUP came, and was ignored");
}

/// Whether this signal was sent to a process, and has not been delivered to it.
fn is_pending(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
    u64::from_str_radix(pending.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
}

/// With `panic = "abort"` the first handler that panics would end everything, and with it everyone else.
#[test]
fn in_no_profile_does_a_panic_end_the_whole_program() {
    let manifest = include_str!("../../Cargo.toml");
    let profiles = manifest.lines().filter(|line| line.starts_with("[profile.")).count();
    assert!(profiles >= 2, "these are not the profiles");
    let panics: Vec<&str> = manifest.lines().filter(|line| line.trim_start().starts_with("panic")).collect();
    assert_eq!(panics, Vec::<&str>::new());
    println!("{profiles} profiles, none of which says anything of panics");
}

/// A server that does not accept, because it has no descriptors and waits for the next try, hears a stop.
#[test]
fn a_stop_is_heard_while_accepting_pauses() {
    let server = Server::start(&["--service", "lines", "--drain", "60s"]);
    let mut first = server.client();
    first.say_hello();
    crate::support::limit_descriptors(&server, Some(3));
    let _waiting: Vec<_> = (0..20).map(|_| server.client()).collect();
    // So many tries that the pause between them is one of a second.
    server.wait_for_log("cannot accept, next try in 1s");
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.took < Duration::from_secs(15), "{:?}", ended.took);
    assert!(first.rest().is_empty());
    println!("a stop during a pause of 1 s: ended after {:.0?}", ended.took);
}
