//! What `load` promises of servers that are not right: it notices every wrong byte, counts what failed by kind, and
//! comes to its end whatever the server does.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use socket2::SockRef;
use support::load::{echo, fails, load, measure, number, refuses, server};
use support::port::Port;
use support::trace::Trace;
use support::{PREFIX, Server, after, has_program, run, wait_until};

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
fn churning_goes_on_after_a_refusal() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refusals);
    let address = server(move |connection, mut stream| {
        if connection < 20 || !connection.is_multiple_of(5) {
            return echo(stream, |_, _| {});
        }
        counted.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"busy: now and then\n").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (status, results) = measure(&address.to_string(), &["--mode", "churn", "--connections", "4"]);
    let refused = refusals.load(Ordering::SeqCst) as f64;
    let failures = results["failures"].as_object().unwrap();
    assert_eq!((status.code(), failures.len(), number(&failures["refused"])), (Some(1), 1, refused), "{results}");
    assert!(refused > 4.0 && number(&results["answered"]) > refused, "{results}");
}

#[test]
fn closing_resetting_and_saying_nothing_are_told_apart() {
    let closes = server(|_, stream| {
        echo(stream.try_clone().unwrap(), |piece, answer| {
            if piece == 5 {
                answer.truncate(10);
                // What is written after this is lost.
                SockRef::from(&stream).send(answer).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            }
        })
    });
    fails(closes, &["--connections", "2"], "closed", 2, "after 10 of 64 bytes of the answer to message 5");

    let resets = server(|_, stream| {
        echo(stream.try_clone().unwrap(), |piece, _| {
            if piece == 5 {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                stream.shutdown(Shutdown::Both).unwrap();
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
    fails(silent, &options, "no_answer", 2, "no answer to message 5 in 300ms");
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

#[test]
fn nobody_there_is_one_line_and_status_2() {
    let port = Port::any().refuses();
    refuses(&["--addr", &port.address.to_string()], "Connection refused; nobody listens there");
    refuses(&["--addr", "unix:/nowhere/at/all"], "no such path");
    let hangs = Port::any().hangs();
    refuses(&["--addr", &hangs.address.to_string(), "--patience", "200ms"], "timed out");
}

#[test]
fn results_that_cannot_be_written_are_one_line_and_status_1_but_not_where_nobody_reads_them() {
    let address = server(|_, stream| echo(stream, |_, _| {})).to_string();
    for json in [&["--json"][..], &[]] {
        let words = [&["--addr", &address, "--seconds", "0.1"], json].concat();
        let (status, _, errors) = run(after("exec >/dev/full", load().get_program()).args(&words), b"");
        let line = "load: cannot write the results: No space left on device";
        assert_eq!((status.code(), errors.as_str()), (Some(1), line));
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = load().args(&words).stdout(writer).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    }
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
    wrong(&["--rate", "10000001"], "far too many");
    wrong(&["--threads", "257"], "257 is not in 1..=256");
    wrong(&["--patience", "3"], "unit");
    wrong(&["--threads", "-1"], "-1 is not in 1..=256");
    wrong(&["--seed", "many"], "seed");
    wrong(&["--seed", "-1"], "--seed");
    wrong(&["more"], "unexpected argument");
}

#[test]
fn more_connections_than_descriptors_are_refused_and_as_many_as_are_said_to_fit_do_fit() {
    let server = Server::start(&["--service", "echo"]);
    let with_300_descriptors = |connections: &str, threads: &str| {
        let mut shell = after("ulimit -n 300", load().get_program());
        shell.args(["--addr", server.address(), "--connections", connections, "--threads", threads]);
        let (status, output, errors) = run(shell.args(["--seconds", "0.1"]), b"");
        (status.code(), output, errors)
    };
    for (threads, fit) in [("1", "266"), ("64", "140")] {
        let line = "load: --connections 280 is too many: the descriptor limit (ulimit -n) is 300, enough for";
        let refusal = format!("{line} {fit} beside --threads {threads}");
        assert_eq!(with_300_descriptors("280", threads), (Some(2), String::new(), refusal));
        let (status, output, errors) = with_300_descriptors(fit, threads);
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{output}");
    }
    server.stop();
}

#[test]
fn when_one_thread_cannot_poll_any_more_all_end_and_one_line_says_why() {
    if !has_program("strace") {
        return;
    }
    let address = server(|_, stream| echo(stream, |_, _| {})).to_string();
    // The second thread has three of the five connections.
    let (mut command, trace) = Trace::with_fault("epoll_ctl:error=ENOSPC:when=3", load().get_program());
    command.args(["--addr", &address, "--connections", "5", "--threads", "2"]);
    let (status, output, errors) = run(&mut command, b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{errors}");
    assert_eq!(errors, "load: cannot poll: No space left on device (os error 28)");
    trace.wait_for_injections(1);
}
