//! The network fails: whoever is at its other end vanishes without a word, or the kernel ends a connection by itself.

use std::io::{self, Read};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::deadline::Timeouts;
use socket_steps::server;
use socket_steps::stats::CloseReason;
use socket2::{SockRef, TcpKeepalive};

use super::machines::{Cable, PEER, SERVER};
use crate::support::figures::{figure, full, lacks};
use crate::support::kit::Kit;
use crate::support::needs::{has_ipv6, has_program, skip};
use crate::support::{BOUND, Client, Server, run, wait_until};

/// Two machines, if this one can be two; if not, says why not.
fn cable() -> Option<Cable> {
    Cable::new().map_err(|why| lacks("B17", "namespaces", why)).ok()
}

/// Whether for this client's kernel everything is as it was: no end has come, and no error.
fn notices_nothing(client: &mut Client) -> bool {
    client.0.set_nonblocking(true).unwrap();
    let read = client.0.read(&mut [0]);
    client.0.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// How late a deadline may be noticed: the kernel's timers are the coarser the longer they are, up to an eighth.
const LATE: Duration = Duration::from_millis(500);

/// What is said of each: how long after it had vanished it was found, by which deadline.
fn say(how: &str, found: Duration, deadline: Duration) {
    let what = format!("{how}: found after {found:.2?} by a deadline of {deadline:?}, which may be {LATE:?} late");
    figure("B17", found <= deadline + LATE, what);
}

#[test]
fn a_peer_that_vanishes_while_it_is_silent_is_found_at_the_idle_deadline() {
    let Some(cable) = cable() else { return };
    let deadline = Duration::from_secs(if full() { 5 } else { 1 });
    let (address, idle) = (format!("{SERVER}:0"), format!("{deadline:?}"));
    let server = cable.server.run(|| Server::listening_on(&address, &["--service", "lines", "--idle-timeout", &idle]));
    let address = server.socket_addr();
    let mut client = cable.client.run(|| Client::connect(address));
    let asked = Instant::now();
    client.say_hello();
    cable.cut();
    let vanished = Instant::now();
    server.wait_for_log("#1 ended (idle)");
    let found = vanished.elapsed();
    assert!(asked.elapsed() >= deadline, "{:?} after it was last heard", asked.elapsed());
    // The server has said goodbye, again and again. It reached the other machine, and nobody on it.
    wait_until("its goodbye is lost", || (cable.lost() >= 2).then_some(()));
    assert!(cable.sent_again() >= 1);
    assert!(notices_nothing(&mut client), "the cable was not cut");
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    say("while it was silent", found, deadline);
}

#[test]
fn a_peer_that_vanishes_amid_an_answer_is_found_at_the_write_deadline_and_its_kernel_forgets_it() {
    let Some(cable) = cable() else { return };
    let deadline = Duration::from_secs(if full() { 5 } else { 1 });
    let timeouts = Timeouts { write: Some(deadline), ..Timeouts::default() };
    let config = server::Config { timeouts, ..server::Config::default() };
    let server = cable.server.run(|| server::Server::bind([format!("{SERVER}:0")], config).unwrap());
    let kit = Kit::on(server, |mut socket| io::copy(&mut io::repeat(b'.'), &mut socket).map(drop));
    let mut client = cable.client.run(|| kit.client());
    client.read(1024 * 1024);
    cable.cut();
    let vanished = Instant::now();
    kit.wait_for_end(CloseReason::Write, 1);
    let found = vanished.elapsed();
    assert!(found >= deadline, "{found:?}");
    assert!(cable.sent_again() >= 1, "nothing was sent again");
    assert!(cable.lost() >= 1, "nothing was lost");
    // Megabytes for nobody.
    wait_until("the server's kernel forgets it", || (cable.server.connections() == 0).then_some(()));
    // What had come before is there; an end is not.
    let mut waiting = vec![0; 64 * 1024];
    client.0.set_nonblocking(true).unwrap();
    let error = loop {
        match client.0.read(&mut waiting) {
            Ok(count) => assert!(count > 0, "the cable was not cut"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the cable was not cut");
    kit.stop();
    say("amid an answer", found, deadline);
}

#[test]
fn a_member_of_the_chat_that_vanishes_while_the_others_talk_is_found_at_the_idle_deadline() {
    let Some(cable) = cable() else { return };
    let deadline = Duration::from_secs(if full() { 5 } else { 2 });
    let (address, idle) = (format!("{SERVER}:0"), format!("{deadline:?}"));
    let server = cable.server.run(|| Server::listening_on(&address, &["--service", "chat", "--idle-timeout", &idle]));
    let address = server.socket_addr();
    let mut vanishing = cable.client.run(|| Client::connect(address));
    let mut speaker = cable.server.run(|| Client::connect(address));
    vanishing.0.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    wait_until("both are in the room", || {
        speaker.send("hello\n");
        vanishing.0.peek(&mut [0]).ok()
    });
    vanishing.0.set_read_timeout(Some(BOUND)).unwrap();
    speaker.send("now!\n");
    let mut heard = vec![0];
    while !heard.ends_with(b"now!\n") {
        heard.extend(vanishing.read(1));
    }
    cable.cut();
    let vanished = Instant::now();
    // The speaker is never silent for long, and so the server never has nothing to say to the one that is gone.
    let (stop, stopped) = channel::<()>();
    let (found, lines) = thread::scope(|scope| {
        let speaking = scope.spawn(move || {
            let mut lines = 0;
            while stopped.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                speaker.send("are you there?\n");
                lines += 1;
            }
            lines
        });
        let stop = stop; // When this closure ends, also by a panic.
        server.wait_for_log("#1 ended (idle)");
        let found = vanished.elapsed();
        drop(stop);
        (found, speaking.join().unwrap())
    });
    assert!(found >= deadline, "{found:?}");
    assert!(lines >= 2 && cable.sent_again() >= 1 && cable.lost() >= 1, "{lines} lines");
    assert!(notices_nothing(&mut vanishing), "the cable was not cut");
    assert!(server.stop().status.success());
    say("while the others talk", found, deadline);
}

#[test]
fn without_an_idle_deadline_a_peer_that_vanishes_is_found_by_keep_alive() {
    let Some(cable) = cable() else { return };
    let keep_alive = Duration::from_secs(1);
    // At full size the ten questions that the kit asks for, a second apart.
    let questions = if full() { 10 } else { 2 };
    let config = server::Config {
        timeouts: Timeouts { idle: None, ..Timeouts::default() },
        keep_alive: Some(keep_alive),
        ..server::Config::default()
    };
    let server = cable.server.run(|| server::Server::bind([format!("{SERVER}:0")], config).unwrap());
    let kit = Kit::on(server, move |mut socket| {
        if !full() {
            let fewer = TcpKeepalive::new().with_retries(questions);
            SockRef::from(socket.connection().stream()).set_tcp_keepalive(&fewer)?;
        }
        io::copy(&mut socket.by_ref(), &mut io::sink()).map(drop)
    });
    let mut client = cable.client.run(|| kit.client());
    let asked = Instant::now();
    client.send("hello");
    kit.wait_until_read(5);
    cable.cut();
    let vanished = Instant::now();
    kit.wait_for_end(CloseReason::Idle, 1);
    let found = vanished.elapsed();
    let deadline = keep_alive + questions * Duration::from_secs(1);
    // The kernel counts from the last packet that came.
    assert!(asked.elapsed() >= deadline, "{:?}", asked.elapsed());
    assert_eq!(cable.server.counter("TcpExt", "TCPKeepAlive"), u64::from(questions));
    assert!(cable.lost() >= u64::from(questions));
    assert!(notices_nothing(&mut client), "the cable was not cut");
    kit.stop();
    say("with keep-alive in place of the idle deadline", found, deadline);
}

#[test]
fn a_client_that_cannot_get_there_says_why_in_one_line() {
    let cable = match Cable::new() {
        Ok(cable) => cable,
        Err(why) => return skip("namespaces", why),
    };
    let machine = &cable.server;
    // What routers and firewalls on the way would answer, this machine answers itself.
    for route in ["blackhole 198.51.100.1", "unreachable 198.51.100.2", "prohibit 198.51.100.3"] {
        machine.ip(&format!("route add {route}")).unwrap();
    }
    let asked = |address: &str| {
        let mut talk = Command::new(env!("CARGO_BIN_EXE_talk"));
        talk.args([address, "--within", "1s"]);
        let (status, shown, errors) = machine.run(|| run(&mut talk, b"hello"));
        assert_eq!(shown, "");
        (status.code().unwrap(), errors)
    };
    let on_the_cable = format!("{PEER}:80");
    let cases = [
        ("203.0.113.1:80", 1, "Network is unreachable"),
        ("198.51.100.1:80", 1, "a route of this machine discards what goes there"),
        ("198.51.100.2:80", 1, "No route to host"),
        ("198.51.100.3:80", 1, "Permission denied"),
        ("[fe80::1]:80", 2, "it is an address of many networks; say on which interface, as in [fe80::1%eth0]:8080"),
        (&on_the_cable, 1, "Connection refused"),
    ];
    let has_ipv6 = has_ipv6();
    for (address, status, why) in cases.into_iter().filter(|(address, ..)| has_ipv6 || !address.starts_with('[')) {
        assert_eq!(asked(address), (status, format!("talk: cannot connect to {address}: {why}")));
    }
    cable.cut();
    let began = Instant::now();
    let why = format!("talk: cannot connect to {on_the_cable}: no answer within 1s");
    assert_eq!(asked(&on_the_cable), (1, why));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(cable.lost() >= 1, "the cable was not cut");
    println!(
        "{} ways not to get there, a line for each; the last after {} lost packets",
        cases.len() + 1,
        cable.lost()
    );
}

#[test]
fn a_connection_that_the_kernel_is_told_to_end_is_one_that_was_reset() {
    if !rustix::process::geteuid().is_root() {
        return skip("sock-destroy", "only root may end connections of others");
    }
    if !has_program("ss") {
        return;
    }
    let server = Server::start(&["--service", "lines"]);
    let (mut first, mut second) = (server.client(), server.client());
    first.say_hello();
    second.say_hello();
    // This one, and no other.
    let client = first.0.local_addr().unwrap();
    let mut ss = Command::new("ss");
    ss.args(["-K", "-tnH", "src", server.address(), "dst", &client.to_string()]);
    let output = ss.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    if !String::from_utf8_lossy(&output.stdout).contains("ESTAB") {
        return skip("sock-destroy", "this kernel does not end connections for ss -K");
    }
    assert!(server.wait_for_log("ended (reset)").contains("#1 "));
    assert_eq!(first.rest_and_end().1.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    second.say_hello();
    drop(second);
    assert!(server.stop().status.success());
    println!("1 of 2 connections was ended by the kernel");
}
