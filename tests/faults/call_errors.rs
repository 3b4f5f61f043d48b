//! A system call of a conversation fails, and the conversation ends, or does not even notice; the others go on.

use std::io::{ErrorKind, Write};
use std::thread;

use rustix::process::Signal;

use crate::support::trace::Trace;
use crate::support::{Client, Ended, PREFIX, Server, has_program, is_standing_still, program, run, wait_until};

/// One worker, to which everyone comes in turn: what strace counts for each thread, it counts for this one.
const ONE_WORKER: [&str; 8] =
    ["--service", "lines", "--min-workers", "1", "--max-connections", "1", "--when-full", "wait"];

fn stop_in_good_order(server: Server, served: u64) -> Ended {
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("closed")), (served, served));
    ended
}

/// Injects the fault into the first client's conversation, which ends in this way after so many answers; the second
/// client is served.
fn ends_one_conversation(fault: &str, answers: usize, reason: &str) {
    let Some((server, trace)) = Trace::of_a_server(fault, &ONE_WORKER) else { return };
    let mut first = server.client();
    (0..answers).for_each(|_| first.say_hello());
    if answers == 0 {
        first.send("hello\n");
    }
    // The fault is not the connection's: the end that we see is the server's. Its close may be a reset, for what was
    // not read any more.
    let (came, _) = first.rest_and_end();
    assert_eq!(String::from_utf8_lossy(&came), "", "{fault}: half an answer");
    drop(first);
    server.client().say_hello();
    let ended = stop_in_good_order(server, 2);
    assert!(ended.log.contains(&format!("#1 ended ({reason})")), "{fault}: {}", ended.log);
    trace.assert_injected(1..);
}

#[test]
fn a_read_that_fails_ends_its_conversation_alone() {
    for (error, reason) in [
        ("ECONNRESET", "reset"),
        ("ECONNABORTED", "reset"),
        ("ETIMEDOUT", "idle"),
        ("EHOSTUNREACH", "error"),
        ("ENETDOWN", "error"),
        ("ENOTCONN", "error"),
        ("ENOMEM", "error"),
        ("EIO", "error"),
    ] {
        ends_one_conversation(&format!("recvfrom:error={error}:when=2"), 1, reason);
    }
}

#[test]
fn a_write_that_fails_ends_its_conversation_alone() {
    for (error, reason) in [
        ("EPIPE", "broken-pipe"),
        ("ECONNRESET", "reset"),
        ("ECONNABORTED", "reset"),
        ("ETIMEDOUT", "idle"),
        ("EHOSTUNREACH", "error"),
        ("ENOBUFS", "error"),
        ("ENOMEM", "error"),
        ("EIO", "error"),
    ] {
        ends_one_conversation(&format!("sendto:error={error}:when=1"), 0, reason);
    }
}

#[test]
fn a_write_that_fails_on_a_thread_of_its_own_is_known_to_the_one_that_reads() {
    if !has_program("strace") {
        return;
    }
    for (error, reason) in
        [("EPIPE", "broken-pipe"), ("ECONNRESET", "reset"), ("ECONNABORTED", "reset"), ("ETIMEDOUT", "idle")]
    {
        // The first word that anybody is told.
        let fault = format!("sendto:error={error}:when=1");
        let (mut command, trace) = Trace::with_fault(&fault, program().get_program());
        command.args(["--no-page", "--listen", "127.0.0.1:0", "--service", "chat"]).env("RUST_LOG", "trace");
        let server = Server::from_command(&mut command);
        let mut listener = server.client();
        // Whoever is read from is in the room.
        listener.send("I am here\n");
        server.wait_for_log("#1 has sent ");
        let mut speaker = server.client();
        speaker.send("hello\n");
        server.wait_for_log(&format!("#1 ended ({reason})"));
        assert_eq!(listener.rest_as_text(), "", "{error}");
        let mut another = server.client();
        another.send("hello\n").end();
        server.wait_for_log(&format!("#2 ended ({reason})"));
        assert_eq!(another.rest_as_text(), "", "{error}");
        stop_in_good_order(server, 3);
        trace.assert_injected(2..);
    }
}

#[test]
fn a_deadline_that_cannot_be_set_ends_its_conversation_alone() {
    // The worker's second is the one for reading.
    ends_one_conversation("setsockopt:error=ENOBUFS:when=2", 0, "error");
}

#[test]
fn a_deadline_for_writing_that_cannot_be_set_ends_its_conversation_alone() {
    // The worker's third, as soon as the kernel has no more room for answers that nobody reads.
    let options = [&["--service", "echo"], &ONE_WORKER[2..]].concat();
    let Some((server, trace)) = Trace::of_a_server("setsockopt:error=ENOBUFS:when=3", &options) else { return };
    let mut first = server.client();
    let mut asking = first.0.try_clone().unwrap();
    let asking =
        thread::spawn(move || std::iter::repeat_with(|| asking.write_all(&[b'x'; 64 * 1024])).find_map(Result::err));
    server.wait_for_log("#1 ended (error)");
    let (_, end) = first.rest_and_end();
    // Whichever of the two comes first is told. After an end, writing would be a broken pipe, and half an answer would
    // look whole.
    let errors = [end.err(), asking.join().unwrap()].map(|error| error.map(|error| error.kind()));
    assert!(errors.contains(&Some(ErrorKind::ConnectionReset)), "{errors:?}");
    server.client().send("hello").expect("hello");
    stop_in_good_order(server, 2);
    trace.assert_injected(1..=1);
}

#[test]
fn a_call_that_is_interrupted_or_comes_back_early_is_made_again() {
    const MESSAGES: usize = 50;
    let faults = [
        "accept4:error=EINTR:when=1+2",
        "poll,ppoll:error=EINTR:when=1+2",
        "recvfrom:error=EINTR:when=1+2",
        "recvfrom:error=EAGAIN:when=1+2",
        "sendto:error=EINTR:when=1+2",
        "sendto:error=EAGAIN:when=1+2",
        // Also the next tries, which may wait.
        "sendto:error=EINTR:when=1..4",
        "sendto:error=EAGAIN:when=1..4",
    ];
    for fault in faults {
        let Some((server, trace)) = Trace::of_a_server(fault, &ONE_WORKER) else { return };
        for _ in 0..2 {
            let mut client = server.client();
            (0..MESSAGES).for_each(|_| client.say_hello());
            assert_eq!(client.end().rest_as_text(), "", "{fault}");
        }
        let ended = stop_in_good_order(server, 2);
        assert!(ended.log.matches("ended (finished)").count() == 2, "{fault}: {}", ended.log);
        trace.assert_injected(2..);
    }
}

#[test]
fn a_client_whose_new_connection_has_no_address_is_connected_all_the_same() {
    if !has_program("strace") {
        return;
    }
    let server = Server::start(&[]);
    let (mut talk, trace) = Trace::with_fault("getpeername:error=ENOTCONN", env!("CARGO_BIN_EXE_talk"));
    let (status, shown, errors) = run(talk.arg(server.address()), b"hello");
    assert_eq!((status.code(), shown), (Some(0), format!("{PREFIX}hello")), "{errors}");
    trace.assert_injected(1..);
}

#[test]
fn a_client_that_was_reset_before_accept_is_known_by_the_address_that_accept_gave() {
    let Some((server, trace)) = Trace::of_a_server("getpeername:error=ENOTCONN", &ONE_WORKER) else { return };
    server.signal(Signal::STOP);
    wait_until("the server stands still", || is_standing_still(server.pid()).then_some(()));
    let mut client = server.client();
    let address = client.0.local_addr().unwrap();
    client.send("hello\n");
    client.reset();
    server.signal(Signal::CONT);
    server.wait_for_log(&format!("#1 {address} connected"));
    assert!(server.wait_for_log("#1 ended").contains("(reset)"));
    server.client().say_hello();
    stop_in_good_order(server, 2);
    // Asked again, the kernel would not know it any more; so nobody asks.
    trace.assert_injected(0..=0);
}

#[test]
fn a_client_for_whom_no_thread_can_be_started_is_told_and_its_place_is_given_back() {
    // Counted for each thread by itself: the thread that accepts starts one for each client that stays. At the start
    // it starts fewer.
    const FAILURES: usize = 5;
    let fault = format!("clone3,clone:error=EAGAIN:when=20..{}", 19 + FAILURES);
    let options = ["--service", "lines", "--min-workers", "1"];
    let Some((server, trace)) = Trace::of_a_server(&fault, &options) else { return };
    let (mut held, mut told) = (Vec::new(), 0);
    while told < FAILURES {
        let mut client = server.client();
        if let Err(busy) = client.send("hello\n").hear("hello\n") {
            assert_eq!(busy, "busy: no thread could be started, try again later\n");
            told += 1;
        } else {
            held.push(client);
        }
    }
    for _ in 0..3 {
        let mut client = server.client();
        client.say_hello();
        held.push(client);
    }
    held.iter_mut().for_each(Client::say_hello);
    let served = held.len() as u64;
    drop(held);
    let ended = stop_in_good_order(server, served);
    assert_eq!((ended.accounts.of("refused"), ended.accounts.of("failed")), (FAILURES as u64, 0));
    assert!(ended.log.contains("no thread could be started: Resource temporarily unavailable"), "{}", ended.log);
    trace.assert_injected(FAILURES..=FAILURES);
}

/// How many threads the finished server's first thread starts before it listens.
fn threads_at_the_start() -> Option<usize> {
    let (server, trace) = Trace::of_a_server("clone3,clone:error=EAGAIN:when=1000", &[])?;
    let pid = server.pid().to_string();
    assert!(server.stop().status.success());
    let text = trace.text();
    let calls = text.lines().filter(|line| line.starts_with(&pid) && line.contains("clone"));
    Some(calls.filter(|line| !line.contains("resumed")).count())
}

#[test]
fn a_server_that_cannot_start_one_of_its_threads_says_so_in_one_line_and_does_not_start() {
    let Some(count) = threads_at_the_start() else { return };
    assert!(count > 5, "{count}");
    for number in 1..=count {
        let (mut command, trace) =
            Trace::with_fault(&format!("clone3,clone:error=EAGAIN:when={number}"), program().get_program());
        let (status, shown, errors) = run(command.args(["--no-page", "--listen", "127.0.0.1:0"]), b"");
        assert_eq!((status.code(), shown.as_str()), (Some(2), ""), "thread {number}: {errors}");
        assert_eq!(errors.lines().count(), 1, "thread {number}: {errors}");
        assert!(errors.contains("Resource temporarily unavailable"), "thread {number}: {errors}");
        trace.assert_injected(1..);
    }
}

#[test]
fn an_address_that_the_kernel_does_not_give_is_one_line_and_status_2() {
    if !has_program("strace") {
        return;
    }
    for fault in ["socket:error=EMFILE:when=1", "setsockopt:error=ENOMEM:when=1", "listen:error=EADDRINUSE:when=1"] {
        let (mut command, trace) = Trace::with_fault(fault, program().get_program());
        let (status, shown, errors) = run(command.args(["--no-page", "--listen", "127.0.0.1:0"]), b"");
        assert_eq!((status.code(), shown.as_str()), (Some(2), ""), "{fault}: {errors}");
        assert!(errors.lines().count() == 1 && errors.contains("cannot listen on 127.0.0.1:0"), "{fault}: {errors}");
        trace.assert_injected(1..);
    }
}

#[test]
fn an_address_that_is_somebody_elses_or_is_taken_is_one_line_with_the_remedy() {
    if !has_program("strace") {
        return;
    }
    // Permission is nothing that root could do without, so it is not asked for.
    for (error, remedy) in [
        ("EACCES", "Permission denied; choose a port from 1024 up, or a folder that you may write to"),
        ("EADDRINUSE", "Address already in use; another program listens there: end it, or choose another address"),
    ] {
        let (mut command, trace) = Trace::with_fault(&format!("bind:error={error}:when=1"), program().get_program());
        let (status, shown, errors) = run(command.args(["--no-page", "--listen", "127.0.0.1:0"]), b"");
        let line = format!("socket-steps: cannot listen on 127.0.0.1:0: {remedy}");
        assert_eq!((status.code(), shown.as_str(), errors), (Some(2), "", line), "{error}");
        assert_eq!(trace.injections().len(), 1, "{error}: {}", trace.text());
    }
}
