//! What `load` promises: it measures right servers of every kind, notices every wrong byte, counts what failed by
//! kind, and comes to its end whatever the server does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::SockRef;
use support::port::Port;
use support::{PREFIX, Server, resident, run, wait_until};

fn load() -> Command {
    Command::new(env!("CARGO_BIN_EXE_load"))
}

/// Runs it to its end; what it has measured.
fn measure(address: &str, options: &[&str]) -> (ExitStatus, Value) {
    let mut command = load();
    command.args(["--addr", address, "--json"]).args(options);
    if !options.contains(&"--seconds") {
        command.args(["--seconds", "0.3"]);
    }
    let (status, output, errors) = run(&mut command, b"");
    assert_eq!(errors, "", "{command:?}");
    let results = serde_json::from_str(&output).unwrap_or_else(|why| panic!("{why}: {output}"));
    (status, results)
}

/// The same, where everything must be right.
fn measure_well(address: &str, options: &[&str]) -> Value {
    let (status, results) = measure(address, options);
    assert_eq!((status.code(), &results["first_failure"]), (Some(0), &Value::Null), "{results}");
    assert!(number(&results["answered"]) > 0.0, "{results}");
    assert_eq!(results["opened"], results["connections"], "{results}");
    results
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("not a number: {value}"))
}

/// A server of the test's own: each connection and its number go to a thread.
fn server(handler: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let handler = Arc::clone(&handler);
            thread::spawn(move || handler(number, stream));
        }
    });
    address
}

/// Sends everything back, in the pieces in which it came, after `change` has seen how many there were before.
fn echo(mut stream: TcpStream, mut change: impl FnMut(usize, &mut Vec<u8>)) {
    let mut buffer = vec![0; 64 * 1024];
    for piece in 0.. {
        let Ok(count @ 1..) = stream.read(&mut buffer) else { return };
        let mut answer = buffer[..count].to_vec();
        change(piece, &mut answer);
        if stream.write_all(&answer).is_err() {
            return;
        }
    }
}

/// Exit status 1, so many failures of this kind, and a first failure that contains the text.
fn fails(address: SocketAddr, options: &[&str], kind: &str, count: u64, text: &str) -> Value {
    let (status, results) = measure(&address.to_string(), options);
    assert_eq!((status.code(), &results["failures"][kind]), (Some(1), &Value::from(count)), "{results}");
    let first = results["first_failure"].as_str().unwrap();
    assert!(first.contains(text), "no {text:?} in {first:?}");
    results
}

/// Exit status 2, and one line that contains the text.
fn refuses(options: &[&str], text: &str) {
    let (status, output, errors) = run(load().args(options), b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{options:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{options:?}: {errors}");
    assert!(errors.starts_with("load: ") && errors.contains(text), "{options:?}: no {text:?} in {errors}");
}

#[test]
fn the_echo_service_is_right_in_every_mode() {
    let server = Server::start(&["--service", "echo"]);
    for mode in ["pingpong", "stream", "churn", "idle"] {
        let results = measure_well(server.address(), &["--mode", mode, "--connections", "8"]);
        assert_eq!(results["mode"], mode);
        let latency = &results["latency_us"];
        let [p50, p99, p99_9, max] = ["p50", "p99", "p99_9", "max"].map(|name| number(&latency[name]));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= p99_9 && p99_9 <= max, "{latency}");
    }
    let accounts = server.stop().accounts;
    // 8 each in three modes; and more that came and went.
    assert!(accounts.of("served") > 24 + 8, "{accounts:?}");
    assert_eq!(accounts.of("in"), accounts.of("out"));
}

#[test]
fn lines_with_a_prefix_are_right_in_every_mode_and_size() {
    let server = Server::start(&["--service", "lines"]);
    for mode in ["pingpong", "stream", "churn", "idle"] {
        for size in ["1", "7", "64", "64KiB"] {
            let options = ["--mode", mode, "--connections", "4", "--size", size, "--prefix", PREFIX];
            measure_well(server.address(), &[&options[..], &["--seconds", "0.1"]].concat());
        }
    }
    server.stop();
}

#[test]
fn the_reply_service_is_right_one_message_at_a_time() {
    let server = Server::start(&[]);
    for mode in ["pingpong", "churn", "idle"] {
        measure_well(server.address(), &["--mode", mode, "--connections", "4", "--prefix", PREFIX]);
    }
    server.stop();
}

#[test]
fn a_path_is_as_good_as_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("socket").display());
    let server = Server::listening_on(&address, &["--service", "echo"]);
    for mode in ["pingpong", "stream", "churn", "idle"] {
        // More than fit into the backlog at once.
        measure_well(&address, &["--mode", mode, "--connections", "200"]);
    }
    server.stop();
}

#[test]
fn both_addresses_of_localhost_are_tried() {
    let server = Server::start(&["--service", "echo"]);
    let address = format!("localhost:{}", server.socket_addr().port());
    let results = measure_well(&address, &[]);
    assert_eq!(results["address"], server.address());
    server.stop();
}

#[test]
fn a_thousand_connections_are_all_opened_and_all_answered() {
    let server = Server::start(&["--service", "echo", "--max-connections", "1000"]);
    let results = measure_well(server.address(), &["--connections", "1000", "--threads", "2"]);
    assert_eq!((number(&results["opened"]), number(&results["held"])), (1000.0, 1000.0));
    let accounts = server.stop().accounts;
    assert_eq!((accounts.of("served"), accounts.of("refused")), (1000, 0));
}

#[test]
fn idle_connections_are_greeted_held_and_asked_once_more() {
    let server = Server::start(&["--service", "echo", "--max-connections", "300"]);
    let options = ["--mode", "idle", "--connections", "300", "--size", "10", "--rate", "50", "--warm-up", "100ms"];
    let results = measure_well(server.address(), &options);
    assert_eq!((number(&results["held"]), number(&results["answered"])), (300.0, 15.0), "{results}");
    // Two for each, and those of the one that speaks: 20 in 0.4 s.
    assert_eq!(server.stop().accounts.of("in"), (300 * 2 + 20) * 10);
}

#[test]
fn churning_comes_from_many_addresses_and_ends_in_good_order() {
    let (sources, resets) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let (noted, counted) = (Arc::clone(&sources), Arc::clone(&resets));
    let address = server(move |_, mut stream| {
        noted.lock().unwrap().insert(stream.peer_addr().unwrap().ip());
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer).inspect_err(|_| counted.store(true, Ordering::SeqCst)) {
            stream.write_all(&buffer[..count]).unwrap();
        }
    });
    let results = measure_well(&address.to_string(), &["--mode", "churn", "--connections", "4"]);
    let sources: BTreeSet<IpAddr> = sources.lock().unwrap().clone();
    assert!(number(&results["answered"]) > 64.0, "{results}");
    assert_eq!((sources.len(), resets.load(Ordering::SeqCst)), (64, false), "{sources:?}");
}

#[test]
fn one_wrong_byte_is_noticed_and_its_place_is_said() {
    let damaged = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&damaged);
    let address = server(move |connection, stream| {
        echo(stream, |piece, answer| {
            if (connection, piece) == (2, 10) {
                answer[40] ^= 1;
                done.store(true, Ordering::SeqCst);
            }
        });
    });
    let results =
        fails(address, &["--connections", "4"], "wrong_bytes", 1, "byte 41 of the answer to message 10 is wrong");
    assert!(damaged.load(Ordering::SeqCst), "no byte was damaged");
    assert_eq!((number(&results["opened"]), number(&results["held"])), (4.0, 3.0), "{results}");
}

#[test]
fn one_wrong_byte_in_a_stream_is_noticed() {
    let address = server(|_, stream| {
        let mut passed = 0;
        echo(stream, |_, answer| {
            let place = 10_000_000_usize.checked_sub(passed);
            passed += answer.len();
            if let Some(byte) = place.and_then(|place| answer.get_mut(place)) {
                *byte = b'\x1b';
            }
        });
    });
    // In messages of 1000 bytes, it is the first one of message 10,000.
    let options = ["--mode", "stream", "--size", "1000", "--seconds", "20"];
    let results = fails(address, &options, "wrong_bytes", 1, "byte 1 of the answer to message 10000 is wrong");
    let first = results["first_failure"].as_str().unwrap();
    assert!(first.contains(r"came '\u{1b}00000"), "{first}");
    // With nobody left, it does not wait for the rest of its time.
    assert!(number(&results["measured_s"]) < 20.0, "{results}");
}

#[test]
fn an_answer_given_to_the_wrong_connection_is_noticed_and_says_whose_it_is() {
    let held: Arc<Mutex<Vec<u8>>> = Arc::default();
    let address = server(move |connection, stream| {
        echo(stream, |piece, answer| {
            let mut held = held.lock().unwrap();
            match (connection, piece) {
                (0, 3) => *held = answer.clone(),
                (1, _) if !held.is_empty() => *answer = std::mem::take(&mut held),
                _ => {}
            }
        });
    });
    fails(address, &["--connections", "2"], "wrong_bytes", 1, "came 'c000000 m000003");
}

#[test]
fn answers_in_the_wrong_order_are_noticed() {
    let address = server(|_, stream| {
        let mut held = Vec::new();
        echo(stream, |piece, answer| match piece {
            0 => {}
            // Two lines, which have come in one piece or in two.
            _ => {
                held.append(answer);
                if held.len() >= 200 {
                    let (first, second) = held.split_at(100);
                    answer.extend_from_slice(second);
                    answer.extend_from_slice(first);
                    held.clear();
                }
            }
        });
    });
    let options = ["--mode", "stream", "--size", "100", "--window", "200"];
    fails(address, &options, "wrong_bytes", 1, "expected 'c000000 m000001");
}

#[test]
fn a_forgotten_prefix_is_named() {
    let server = Server::start(&[]);
    let text = &format!("; say --prefix '{PREFIX}' if that is to stand in front of each answer");
    fails(server.socket_addr(), &["--connections", "2"], "wrong_bytes", 2, text);
    server.stop();
}

#[test]
fn more_than_was_asked_for_is_noticed() {
    let address = server(|_, stream| {
        echo(stream, |piece, answer| {
            if piece == 3 {
                answer.push(b'!')
            }
        })
    });
    let (status, results) = measure(&address.to_string(), &["--rate", "100"]);
    assert_eq!((status.code(), number(&results["failures"]["unasked"])), (Some(1), 1.0), "{results}");
    assert!(results["first_failure"].as_str().unwrap().contains("'!'"), "{results}");
}

#[test]
fn who_is_told_that_the_server_is_busy_is_counted_and_the_others_are_measured() {
    let server = Server::start(&["--service", "echo", "--max-connections", "3"]);
    let results = fails(server.socket_addr(), &["--connections", "8"], "refused", 5, "the server says 'busy: ");
    assert_eq!((number(&results["opened"]), number(&results["held"])), (3.0, 3.0), "{results}");
    assert!(number(&results["answered"]) > 0.0, "{results}");
    server.stop();
}

#[test]
fn closing_resetting_and_saying_nothing_are_told_apart() {
    let closes = server(|_, stream| {
        echo(stream.try_clone().unwrap(), |piece, answer| {
            if piece == 5 {
                answer.truncate(10);
                // What is written after this is lost.
                SockRef::from(&stream).send(answer).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
        })
    });
    fails(closes, &["--connections", "2"], "closed", 2, "after 10 of 64 bytes of the answer to message 5");

    let resets = server(|_, stream| {
        echo(stream.try_clone().unwrap(), |piece, _| {
            if piece == 5 {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                stream.shutdown(std::net::Shutdown::Both).unwrap();
            }
        })
    });
    let (status, results) = measure(&resets.to_string(), &["--connections", "2"]);
    assert_eq!(status.code(), Some(1), "{results}");
    let ended = ["reset", "closed"].map(|kind| results["failures"][kind].as_u64().unwrap_or(0));
    assert_eq!(ended[0] + ended[1], 2, "{results}");

    let silent = server(|_, stream| {
        echo(stream, |piece, answer| {
            if piece == 5 {
                answer.clear()
            }
        })
    });
    let options = ["--connections", "2", "--patience", "300ms"];
    fails(silent, &options, "no_answer", 2, "no answer to message 5, 300ms after the end");
}

#[test]
fn who_is_never_served_is_given_up() {
    // It accepts, and that is all.
    let address = server(|_, mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let began = Instant::now();
    let options = ["--connections", "100", "--patience", "300ms"];
    let results = fails(address, &options, "no_answer", 100, "no answer to its first message");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!((number(&results["opened"]), number(&results["answered"])), (0.0, 0.0));
}

#[test]
fn a_server_that_is_killed_ends_the_run() {
    let server = Server::start(&["--service", "echo"]);
    let began = Instant::now();
    let mut command = load();
    command.args(["--addr", server.address(), "--connections", "4", "--seconds", "100", "--json"]);
    let running = thread::spawn(move || run(&mut command, b""));
    wait_until("the load is on", || (support::cpu_time(server.pid()) > Duration::from_millis(50)).then_some(()));
    server.signal(Signal::KILL);
    let (status, output, _) = running.join().unwrap();
    let results: Value = serde_json::from_str(&output).unwrap();
    let ended = ["reset", "closed"].map(|kind| results["failures"][kind].as_u64().unwrap_or(0));
    assert_eq!((status.code(), ended[0] + ended[1]), (Some(1), 4), "{results}");
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
}

/// A server that once, in the middle of a run, answers nobody for a while; and whether it has.
fn stalls_once(stall: Duration) -> (SocketAddr, Arc<AtomicBool>) {
    let stalled = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&stalled);
    let address = server(move |_, stream| {
        let began = Instant::now();
        echo(stream, |_, _| {
            // Well after the warm-up.
            if began.elapsed() > Duration::from_millis(200) && !noted.swap(true, Ordering::SeqCst) {
                thread::sleep(stall);
            }
        });
    });
    (address, stalled)
}

#[test]
fn with_a_rate_a_stall_counts_for_everyone_who_had_to_wait_for_its_end() {
    const STALL: Duration = Duration::from_millis(400);
    let stall = STALL.as_micros() as f64;
    let options = ["--seconds", "1", "--warm-up", "10ms"];

    let (address, stalled) = stalls_once(STALL);
    let open = measure_well(&address.to_string(), &[&options[..], &["--rate", "500"]].concat());
    assert!(stalled.load(Ordering::SeqCst), "it has not stalled");
    assert_eq!((&open["loop"], number(&open["latency_us"]["count"])), (&Value::from("open"), 500.0), "{open}");
    assert!(number(&open["latency_us"]["max"]) >= stall, "{open}");
    // 200 of 500 were due while it stood still, and have waited for half of that on average.
    assert!(number(&open["latency_us"]["p99"]) >= stall / 2.0, "{open}");
    assert!(number(&open["latency_us"]["mean"]) >= stall * 0.4 / 2.0 * 0.8, "{open}");

    // The closed loop asks nothing in the meantime: one slow message among thousands.
    let (address, stalled) = stalls_once(STALL);
    let closed = measure_well(&address.to_string(), &options);
    assert!(stalled.load(Ordering::SeqCst), "it has not stalled");
    assert_eq!(closed["loop"], "closed");
    assert!(number(&closed["latency_us"]["max"]) >= stall, "{closed}");
    assert!(number(&closed["latency_us"]["p99"]) < stall / 2.0, "{closed}");
}

#[test]
fn what_was_due_and_could_not_be_sent_is_counted_with_the_time_it_has_waited() {
    // 50 a second at most, where 1000 are asked for.
    let address = server(|_, stream| echo(stream, |_, _| thread::sleep(Duration::from_millis(20))));
    let options = ["--rate", "1000", "--seconds", "1", "--warm-up", "1ms"];
    let results = measure_well(&address.to_string(), &options);
    assert!(number(&results["never_sent"]) > 900.0, "{results}");
    let latency = &results["latency_us"];
    assert!(number(&latency["count"]) >= 999.0, "{results}");
    assert!(number(&latency["p50"]) > 300_000.0, "{results}");
}

#[test]
fn the_server_s_costs_are_there_with_its_pid() {
    let server = Server::start(&["--service", "echo", "--max-connections", "200"]);
    let pid = server.pid().to_string();
    let before = resident(server.pid()) as f64 * 1024.0;
    let results = measure_well(server.address(), &["--connections", "200", "--pid", &pid]);
    let (costs, memory) = (&results["server"]["per_answer"], &results["server"]["memory"]);
    assert!(number(&costs["cpu_us"]) > 0.1 && number(&costs["switches"]) > 0.0, "{results}");
    assert!(number(&memory["threads"]) >= 200.0, "{results}");
    assert!(number(&memory["resident_bytes"]) > before, "{results}");
    assert!(number(&memory["resident_bytes_per_connection"]) > 1000.0, "{results}");
    assert!(number(&memory["virtual_bytes_per_connection"]) > 100_000.0, "{results}");
    server.stop();
    refuses(&["--addr", "127.0.0.1:9", "--pid", "4194305"], "no process 4194305");
}

#[test]
fn the_text_has_the_table_the_histogram_and_no_bar() {
    let server = Server::start(&["--service", "echo", "--max-connections", "3"]);
    let (address, pid) = (server.address().to_owned(), server.pid().to_string());
    let words = ["--addr", &address, "--connections", "4", "--seconds", "0.2", "--pid", &pid];
    let (status, output, errors) = run(load().args(words), b"");
    assert_eq!((status.code(), errors.as_str()), (Some(1), ""), "{output}");
    let all = [
        &format!("pingpong, closed loop: 4 connections, 64 bytes a message, to {address}\n"),
        "  opened       3 of 4, in ",
        "200 ms, after 20.0 ms of warm-up that does not count",
        " MB/s each way",
        "p50 ",
        "p99.9 ",
        " µs of CPU a message (user ",
        " context switches a message",
        " resident, ",
        "latency of a message, from sending it to the last byte of its answer:",
        "████",
        "FAILED: 1 connection (refused with a text)",
        "the first one: connection 3: the server says 'busy: ",
    ];
    for text in all {
        assert!(output.contains(text), "no {text:?} in {output}");
    }
    server.stop();
}

#[test]
fn ctrl_c_shows_what_was_measured_so_far() {
    let server = Server::start(&["--service", "echo"]);
    let mut command = load();
    command.args(["--addr", server.address(), "--seconds", "100", "--warm-up", "1ms", "--json"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_until("the load is on", || (support::cpu_time(server.pid()) > Duration::from_millis(50)).then_some(()));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &results["interrupted"]), (Some(130), &Value::from(true)), "{results}");
    assert!(number(&results["answered"]) > 0.0 && number(&results["measured_s"]) < 90.0, "{results}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    server.stop();
}

#[test]
fn nobody_there_is_one_line_and_status_2() {
    let port = Port::any().refuses();
    refuses(&["--addr", &port.address.to_string()], "Connection refused; nobody listens there");
    refuses(&["--addr", "unix:/nowhere/at/all"], "no such path");
    let hangs = Port::any().hangs();
    refuses(&["--addr", &hangs.address.to_string(), "--patience", "200ms"], "timed out");
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    refuses(&[], "--addr");
    let address = ["--addr", "127.0.0.1:9"];
    let wrong = |options: &[&str], text: &str| refuses(&[&address[..], options].concat(), text);
    refuses(&["--addr", "8080"], "the port is missing");
    refuses(&["--addr", "127.0.0.1:0"], "port 0");
    refuses(&["--addr", "unix:"], "the path is missing");
    wrong(&["--mode", "swim"], "possible values: pingpong, stream, churn, idle");
    wrong(&["--connections", "0"], "zero");
    wrong(&["--connections", "-1"], "not a number");
    wrong(&["--seconds", "0"], "zero");
    wrong(&["--seconds", "-5"], "not a duration");
    wrong(&["--seconds", "5 parsecs"], "not a duration");
    wrong(&["--seconds", "99999999999"], "more than a year");
    wrong(&["--size", "0"], "out of range");
    wrong(&["--size", "2GiB"], "out of range");
    wrong(&["--rate", "0"], "zero");
    wrong(&["--rate", "fast"], "not a number");
    wrong(&["--patience", "3"], "unit");
    wrong(&["--seed", "many"], "seed");
    wrong(&["more"], "unexpected argument");
}

#[test]
fn more_connections_than_descriptors_are_refused_and_the_limit_is_named() {
    let server = Server::start(&["--service", "echo"]);
    let program = load();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("ulimit -n 100; exec \"$0\" \"$@\"").arg(program.get_program());
    shell.args(["--addr", server.address(), "--connections", "100"]);
    let (status, output, errors) = run(&mut shell, b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{errors}");
    let line = "load: --connections 100 is too many: the descriptor limit (ulimit -n) is 100, enough for 36\n";
    assert_eq!(format!("{errors}\n"), line);
    server.stop();
}
