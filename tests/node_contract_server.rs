//! Whoever knows Node's `net.Server` finds here what it promises; and where it surprises, what is better.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use socket_steps::addr::Addr;
use socket_steps::listener::Listener;
use socket_steps::server::{Config, Server};
use socket_steps::services;
use socket_steps::socket::Socket;
use socket_steps::stats::{CloseReason, Event};
use support::kit::Kit;
use support::{BOUND, Client, NEVER, has_ipv6, program, run, wait_until};

/// Tells each client its own address, as the server sees it.
fn tell_address(mut socket: Socket) -> io::Result<()> {
    let peer = socket.peer().to_string();
    socket.write_all(peer.as_bytes())
}

#[test]
fn a_handler_is_called_with_each_client() {
    let kit = Kit::serve(Config::default(), tell_address);
    for _ in 0..3 {
        let mut client = kit.client();
        assert_eq!(client.rest_as_text(), client.0.local_addr().unwrap().to_string());
    }
    assert_eq!(kit.stop().served, 3);
}

#[test]
fn clients_can_connect_as_soon_as_bind_has_returned() {
    let server = Server::bind(["127.0.0.1:0"], Config::default()).unwrap();
    let Addr::Tcp(address) = server.local_addrs()[0] else { panic!("not TCP") };
    let mut early = Client::connect(address);
    early.send("here already");
    let kit = Kit::on(server, services::echo);
    early.expect("here already").end();
    assert!(early.rest().is_empty());
    assert_eq!(kit.stop().to_string().split(';').next(), Some("accepted 1 = served 1 + refused 0 + failed 0"));
}

#[test]
fn a_used_port_is_named_and_can_be_tried_again_and_its_first_server_is_unaffected() {
    let kit = Kit::serve(Config::default(), services::echo);
    let used = kit.address().to_string();
    // All of 127.0.0.0/8 is this machine, and nobody else has this one.
    let free = used.replace("127.0.0.1", "127.0.0.9");
    let both = [free.as_str(), used.as_str()];

    let error = Server::bind(both, Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&used), "{error}");
    kit.client().send("still here?").expect("still here?");

    kit.stop();
    let server = Server::bind(both, Config::default()).expect("nothing of the first attempt is left behind");
    assert_eq!(server.local_addrs().iter().map(Addr::to_string).collect::<Vec<_>>(), both);
}

#[test]
fn port_zero_becomes_a_real_port_that_is_still_known_at_the_end() {
    let kit = Kit::serve(Config::default(), services::echo);
    let handle = kit.handle().clone();
    let address = kit.socket_addr();
    assert_ne!(address.port(), 0);
    kit.client().send("x").expect("x");
    kit.stop();
    assert_eq!(handle.local_addrs(), [Addr::Tcp(address)]);
}

#[test]
fn a_mistyped_port_is_an_error_and_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = ["8080x", "localhost:8080x", "8080", ":8080", "localhost:65536", "localhost:-1", "localhost:+1"];
    for wrong in wrong.into_iter().chain(["", ":", "::1:8080", "[]:8080", "[localhost]:8080", "unix:"]) {
        assert_eq!(Addr::resolve(wrong).unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong}");
        let (status, output, errors) = run(program().args(["--listen", wrong]).current_dir(&folder), b"");
        assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{wrong}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(&format!("'{wrong}'")) && errors.contains("unix:PATH"), "{errors}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_path_that_is_too_long_is_refused_and_the_longest_is_not_cut() {
    let folder = tempfile::tempdir().unwrap();
    let longest = format!("{:x<107}", format!("{}/", folder.path().display()));
    let error = Server::bind([format!("unix:{longest}x")], Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("has 108 bytes; a socket's path may have 107 at most"), "{error}");
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it was cut, and made");

    let kit = Kit::on(Server::bind([format!("unix:{longest}")], Config::default()).unwrap(), tell_address);
    assert_eq!(io::read_to_string(UnixStream::connect(&longest).unwrap()).unwrap(), "unix");
    kit.stop();
}

#[test]
fn a_path_with_a_zero_byte_is_refused_and_not_cut_there() {
    let folder = tempfile::tempdir().unwrap();
    for path in [format!("unix:{}/a\0b", folder.path().display()), "unix:\0abstract".to_owned()] {
        let error = Listener::bind(&Addr::resolve(&path).unwrap()[0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it was cut, and made");
}

#[test]
fn a_socket_file_is_replaced_when_stale_never_when_alive_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let address = format!("unix:{}", path.display());
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(UnixStream::connect(&path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused), "not stale");

    let kit = Kit::on(Server::bind([&address], Config::default()).unwrap(), tell_address);
    assert_eq!(Server::bind([&address], Config::default()).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(io::read_to_string(UnixStream::connect(&path).unwrap()).unwrap(), "unix");
    kit.stop();
    assert!(!path.exists());
}

#[test]
fn an_ipv4_client_of_a_dual_stack_server_is_shown_with_its_ipv4_address() {
    if !has_ipv6() {
        return;
    }
    let kit = Kit::on(Server::bind(["[::]:0"], Config::default()).unwrap(), tell_address);
    for loopback in ["127.0.0.1", "[::1]"] {
        let mut client = Client::connect(format!("{loopback}:{}", kit.socket_addr().port()).parse().unwrap());
        let seen = client.rest_as_text();
        assert_eq!(seen, client.0.local_addr().unwrap().to_string());
        assert!(seen.starts_with(loopback), "{seen}");
    }
    kit.stop();
}

#[test]
fn stopping_twice_changes_nothing_and_a_message_that_has_begun_is_finished() {
    let config = Config { drain: NEVER, ..Config::default() };
    let kit = Kit::serve(config, services::lines("> ", 100));
    let mut client = kit.client();
    client.send("half a ");
    wait_until("the first half is read", || (kit.handle().snapshot().bytes_in == 7).then_some(()));

    let again = kit.handle().clone();
    kit.handle().stop();
    again.stop();
    let newcomer = || TcpStream::connect(kit.socket_addr());
    wait_until("nobody can connect any more", || newcomer().is_err().then_some(()));
    client.send("message\n").expect("> half a message\n");
    assert!(client.rest().is_empty());

    let summary = kit.stop();
    assert!(summary.is_clean(), "{summary}");
    again.stop();
    assert_eq!(again.snapshot().now, 0);
}

#[test]
fn an_idle_client_does_not_hold_up_the_stop() {
    let config = Config { drain: NEVER, ..Config::default() };
    let kit = Kit::serve(config, services::echo);
    let mut client = kit.client();
    client.send("x").expect("x");
    let handle = kit.handle().clone();
    assert!(kit.stop().is_clean());
    assert!(client.rest().is_empty());
    assert_eq!(handle.snapshot().ended, BTreeMap::from([(CloseReason::Stopped, 1)]));
}

#[test]
fn a_client_that_nobody_has_accepted_at_the_stop_is_told() {
    let server = Server::bind(["127.0.0.1:0"], Config::default()).unwrap();
    let Addr::Tcp(address) = server.local_addrs()[0] else { panic!("not TCP") };
    let mut waiting = [(); 3].map(|()| Client::connect(address));
    server.handle().stop();
    let summary = Kit::on(server, services::echo).stop();
    assert_eq!((summary.accepted, summary.refused), (3, 3));
    for client in &mut waiting {
        let text = client.rest_as_text();
        assert!(text.starts_with("stopping: ") && text.ends_with('\n'), "{text}");
    }
}

#[test]
fn a_snapshot_has_the_number_the_list_the_peak_the_totals_and_the_reasons() {
    let kit = Kit::serve(Config::default(), services::echo);
    let [mut stays, mut ends, resets] = ["one", "three", "eleven"].map(|word| {
        let mut client = kit.client();
        client.send(word).expect(word);
        client
    });
    // A client may have its answer before the server has counted it.
    let counted = || Some(kit.handle().snapshot()).filter(|all| all.bytes_out == 14);
    let all = wait_until("the answers are counted", counted);
    assert_eq!((all.now, all.peak, all.accepted, all.served), (3, 3, 3, 3));
    assert_eq!((all.bytes_in, all.bytes_out), (14, 14));
    let listed: Vec<_> = all.connections.iter().map(|one| (one.id, one.peer.clone(), one.bytes_in)).collect();
    let peer = |client: &Client| Addr::Tcp(client.0.local_addr().unwrap());
    assert_eq!(listed, [(1, peer(&stays), 3), (2, peer(&ends), 5), (3, peer(&resets), 6)]);

    ends.end();
    resets.reset();
    kit.wait_for_end(CloseReason::Finished, 1);
    kit.wait_for_end(CloseReason::Reset, 1);
    let rest = kit.handle().snapshot();
    assert_eq!((rest.now, rest.peak, rest.served, rest.connections[0].id), (1, 3, 3, 1));
    assert_eq!((rest.bytes_in, rest.bytes_out), (14, 14));
    stays.send("x").expect("x");
}

#[test]
fn one_client_too_many_is_told_counted_and_reported() {
    let (report, events) = channel();
    let config = Config { max_connections: 1, ..Config::default() };
    let observer = move |event: &Event| report.send(event.clone()).unwrap();
    let kit = Kit::on(Server::bind_observed(["127.0.0.1:0"], config, observer).unwrap(), services::echo);
    let mut first = kit.client();
    first.send("x").expect("x");

    let mut second = kit.client();
    let told = second.rest_as_text();
    assert!(told.starts_with("busy: ") && told.ends_with('\n'), "{told}");
    let refused = std::iter::from_fn(|| events.recv_timeout(BOUND).ok()).find_map(|event| match event {
        Event::Refused { peer, text } => Some((peer, text)),
        _ => None,
    });
    assert_eq!(refused, Some((Addr::Tcp(second.0.local_addr().unwrap()), told.trim_end().to_owned())));
    first.send("y").expect("y");
    assert_eq!(kit.stop().refused, 1);
}

#[test]
fn a_server_without_any_place_is_an_error() {
    let config = Config { max_connections: 0, ..Config::default() };
    let error = Server::bind(["127.0.0.1:0"], config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("max_connections is 0"), "{error}");
}

#[test]
fn a_client_for_whom_no_descriptor_is_left_is_told_and_the_next_one_is_served() {
    let server = support::Server::start(&[]);
    let allow = |descriptors| {
        let limit = Rlimit { current: descriptors, maximum: getrlimit(Resource::Nofile).maximum };
        prlimit(Pid::from_raw(server.pid() as i32), Resource::Nofile, limit).unwrap();
    };
    // A few more than the server has opened for itself; clients take the rest.
    allow(Some(20));
    let mut served = Vec::new();
    let mut refused = loop {
        let client = server.client();
        let line = server.wait_for_log(&client.0.local_addr().unwrap().to_string());
        if line.contains("busy: no descriptors") {
            break client;
        }
        served.push(client);
        assert!(served.len() < 20, "they do not run out");
    };
    let told = refused.rest_as_text();
    assert!(told.starts_with("busy: no descriptors") && told.ends_with('\n'), "{told}");

    let answer = format!("{}x", support::PREFIX);
    served[0].send("x").expect(&answer);
    served.clear();
    wait_until("a client is served", || {
        let mut client = server.client();
        // While the others are leaving, it may be told, too.
        let _ = client.0.write(b"x").and_then(|_| client.0.shutdown(Shutdown::Write));
        (client.rest_and_end().0 == answer.as_bytes()).then_some(())
    });
    let ended = server.stop();
    assert!(ended.status.success() && ended.accounts.of("refused") > 0, "{ended:?}");
}

#[test]
fn nodes_four_events_are_a_return_a_call_a_summary_and_a_result() {
    let (report, events) = channel();
    let observer = move |event: &Event| report.send(event.clone()).unwrap();
    // listening: bind has returned. error: it would have returned that.
    let server = Server::bind_observed(["127.0.0.1:0"], Config::default(), observer).unwrap();
    let kit = Kit::on(server, |mut socket| socket.write_all(b"hello"));
    let mut client = kit.client();
    // connection: the handler was called.
    assert_eq!(client.rest_as_text(), "hello");
    let next = || events.recv_timeout(BOUND).unwrap();
    let peer_seen = match next() {
        Event::Connected { id: 1, peer } => peer,
        other => panic!("{other:?}"),
    };
    assert_eq!(peer_seen, Addr::Tcp(client.0.local_addr().unwrap()));
    match next() {
        Event::Disconnected { id: 1, reason, age, bytes_in, bytes_out } => {
            assert_eq!((reason, bytes_in, bytes_out), (CloseReason::Closed, 0, 5));
            assert!(age < BOUND && age > Duration::ZERO);
        }
        other => panic!("{other:?}"),
    }
    // close: serve has returned, with the accounts.
    let expected =
        "accepted 1 = served 1 + refused 0 + failed 0; opened 1 = closed 1 + stuck 0; in 0 bytes, out 5 bytes";
    assert_eq!(kit.stop().to_string(), expected);
}
