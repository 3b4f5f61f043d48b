//! What `load` promises: it measures right servers of every kind, and its figures mean what they say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket as RawSocket, Type};
use support::load::{echo, load, measure_well, number, refuses, server};
use support::{PREFIX, Server, has_ipv6, has_program, resident, run, wait_until};

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
    let of_every_size = ["pingpong", "stream"].map(|mode| ["1", "7", "64KiB"].map(|size| (mode, size)));
    for (mode, size) in of_every_size.into_iter().flatten().chain([("churn", "64"), ("idle", "64")]) {
        let options = ["--mode", mode, "--connections", "4", "--size", size, "--prefix", PREFIX];
        measure_well(server.address(), &options);
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
fn the_second_address_of_localhost_is_tried_when_nobody_listens_on_the_first() {
    if !has_ipv6() {
        return;
    }
    // The same port of ::1 is kept from everyone else, who might listen there.
    let (address, _kept) = wait_until("a port that is free twice", || {
        let address = server(|_, stream| echo(stream, |_, _| {}));
        let first = RawSocket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        first.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())).into()).ok()?;
        Some((address, first))
    });
    let results = measure_well(&format!("localhost:{}", address.port()), &[]);
    assert_eq!(results["address"], address.to_string());
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
    // Due every 20 ms of 0.3 s.
    let count = &results["latency_us"]["count"];
    assert_eq!((number(&results["held"]), number(count)), (300.0, 15.0), "{results}");
    // Two for each connection; and those of the one that speaks, in 0.4 s with the warm-up.
    let unsent = results["never_sent"].as_u64().unwrap();
    assert_eq!(server.stop().accounts.of("in"), (300 * 2 + 20 - unsent) * 10);
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
    let results = measure_well(&address.to_string(), &["--mode", "churn", "--connections", "4", "--seconds", "1"]);
    let sources: BTreeSet<IpAddr> = sources.lock().unwrap().clone();
    assert!(number(&results["answered"]) > 64.0, "{results}");
    assert_eq!((sources.len(), resets.load(Ordering::SeqCst)), (64, false), "{sources:?}");
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
    // That was the server's doing.
    assert!(number(&open["sent_late_us"]["p50"]) < stall / 10.0, "{open}");
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
    assert!(number(&results["server"]["busy"]) > 0.0, "{results}");
    // A few connections, or those that come and go, do not have a share of it that says anything.
    for options in [&["--connections", "99"][..], &["--connections", "100", "--mode", "churn"]] {
        let results = measure_well(server.address(), &[options, &["--pid", &pid]].concat());
        let memory = results["server"]["memory"].as_object().unwrap();
        assert!(number(&memory["resident_bytes"]) > before, "{results}");
        for kind in ["resident", "virtual", "kernel"] {
            assert_eq!(memory[&format!("{kind}_bytes_per_connection")], Value::Null, "{results}");
        }
    }
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
fn on_a_terminal_there_is_a_bar_which_leaves_the_results_alone() {
    // It comes with a terminal of its own.
    if !has_program("script") {
        return;
    }
    let address = server(|_, stream| echo(stream, |_, _| {}));
    let line = format!("{} --addr {address} --seconds 1 2>&1", load().get_program().display());
    let (status, output, errors) =
        run(Command::new("script").args(["-qec", &line, "/dev/null"]).env("TERM", "xterm"), b"");
    assert!(status.success(), "{output} {errors}");
    let (bars, results) = output.split_once("pingpong, closed loop: ").unwrap_or_else(|| panic!("{output}"));
    assert!(bars.contains("measuring ") && bars.contains(" answers, 0 failures"), "{bars:?}");
    assert!(results.contains("p99.9 ") && !results.contains("measuring "), "{results:?}");
}

#[test]
fn what_a_server_uses_is_shown_while_it_is_idle_too() {
    let server = Server::start(&["--service", "echo"]);
    let pid = server.pid().to_string();
    let words = ["--addr", server.address(), "--mode", "idle", "--seconds", "0.2", "--pid", &pid];
    let (_, output, errors) = run(load().args(words), b"");
    let (_, row) = output.split_once(" before the first connection\n").unwrap_or_else(|| panic!("{output} {errors}"));
    let share = row.lines().next().unwrap().trim().strip_suffix(" % of a processor");
    let share: f64 = share.unwrap_or_else(|| panic!("{output}")).parse().unwrap();
    assert!(share > 0.0, "{output}");
    server.stop();
}

#[test]
fn a_window_of_less_than_two_messages_is_two_and_the_text_says_so() {
    let address = server(|_, stream| echo(stream, |_, _| {})).to_string();
    let words = ["--addr", &address, "--mode", "stream", "--size", "1000", "--window", "1", "--seconds", "0.1"];
    let (_, output, errors) = run(load().args(words), b"");
    assert!(output.contains(", 1,000 bytes a message, 2 messages of each on their way, to "), "{output} {errors}");
}

#[test]
fn where_nothing_was_measured_it_says_just_that() {
    let address = server(|_, stream| echo(stream, |_, _| {})).to_string();
    let (status, output, errors) = run(load().args(["--addr", &address, "--seconds", "1ns"]), b"");
    assert_eq!((status.code(), errors.as_str()), (Some(0), ""), "{output}");
    assert!(output.contains("\nnothing was answered in the measured time: "), "{output}");
    assert!(!output.contains("busy"), "{output}");
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
