//! Connecting: to whichever address of a name answers, or to a path, and not any longer than the deadline.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use socket_steps::addr::Addr;
use socket_steps::client::Client;
use socket_steps::server::{Config, Server};
use socket_steps::services;
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use support::kit::Kit;
use support::port::Port;
use support::{BOUND, NEVER, has_ipv6, wait_until};

#[test]
fn localhost_finds_a_server_on_ipv4_alone_and_one_on_ipv6_alone() {
    if !has_ipv6() {
        return;
    }
    let [v6, v4] = Port::both();
    let (_v6, v4) = (v6.refuses(), v4.listens());
    let socket = Client::to(&format!("localhost:{}", v4.address.port())).connect().unwrap();
    assert_eq!(socket.peer(), &Addr::Tcp(v4.address));

    let [v6, v4] = Port::both();
    let (v6, _v4) = (v6.listens(), v4.refuses());
    let socket = Client::to(&format!("localhost:{}", v6.address.port())).connect().unwrap();
    assert_eq!(socket.peer(), &Addr::Tcp(v6.address));
}

#[test]
fn an_address_that_hangs_holds_up_the_next_one_for_its_head_start_alone() {
    if !has_ipv6() {
        return;
    }
    let [v6, v4] = Port::both();
    let (_v6, v4) = (v6.hangs(), v4.listens());
    let began = Instant::now();
    let client = Client::to(&format!("localhost:{}", v4.address.port())).within(NEVER);
    assert_eq!(client.connect().unwrap().peer(), &Addr::Tcp(v4.address));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(250), "the first one had no head start: {took:?}");
    assert!(took < Duration::from_secs(10), "the next one was held up: {took:?}");
}

#[test]
fn when_every_address_has_failed_the_error_lists_them_all() {
    if !has_ipv6() {
        return;
    }
    let [v6, v4] = Port::both().map(Port::refuses);
    let name = format!("localhost:{}", v4.address.port());
    let error = Client::to(&name).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    let (six, four) = (v6.address, v4.address);
    let expected = format!("cannot connect to {name}: {six}: Connection refused; {four}: Connection refused");
    assert_eq!(error.to_string(), expected);

    let [v6, v4] = Port::both();
    let (v6, v4) = (v6.hangs(), v4.refuses());
    let name = format!("localhost:{}", v4.address.port());
    let error = Client::to(&name).within(Duration::from_millis(400)).connect().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let (six, four) = (v6.address, v4.address);
    let expected = format!("cannot connect to {name}: {four}: Connection refused; {six}: no answer within 400ms");
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_refusal_that_comes_late_is_a_refusal_and_not_a_connection() {
    let port = Port::any().hangs();
    let address = port.address.to_string();
    let connecting = thread::spawn(move || Client::to(&address).within(NEVER).connect());
    port.wait_for_a_knock();
    // The knocking goes on, and from now on nobody is there.
    drop(port);
    wait_until("it is refused", || connecting.is_finished().then_some(()));
    assert_eq!(connecting.join().unwrap().unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn the_deadline_ends_a_connect_that_hangs_and_not_before_its_time() {
    let hanging = Port::any().hangs();
    let limit = Duration::from_millis(300);
    let began = Instant::now();
    let error = Client::to(&hanging.address.to_string()).within(limit).connect().unwrap_err();
    let took = began.elapsed();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(error.to_string(), format!("cannot connect to {}: no answer within 300ms", hanging.address));
    assert!(took >= limit && took < limit + Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_path_is_connected_to_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("server").display());
    assert_eq!(Client::to(&address).connect().unwrap_err().kind(), ErrorKind::NotFound);

    let kit = Kit::on(Server::bind([&address], Config::default()).unwrap(), services::echo);
    let mut socket = Client::to(&address).connect().unwrap();
    assert_eq!(socket.peer().to_string(), address);
    socket.write_all("안녕".as_bytes()).unwrap();
    let mut answer = [0; 6];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(answer, "안녕".as_bytes());
    socket.finish().unwrap();
    kit.stop();
}

#[test]
fn a_path_whose_backlog_is_full_is_waited_for_like_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(&path).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    listener.set_read_timeout(Some(BOUND)).unwrap();
    let knock = || {
        let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&address).map(|()| socket)
    };
    let _first = knock().unwrap();
    assert_eq!(knock().unwrap_err().kind(), ErrorKind::WouldBlock, "there is still room");

    let client = Client::to(&format!("unix:{}", path.display()));
    let limit = Duration::from_millis(200);
    let began = Instant::now();
    assert_eq!(client.clone().within(limit).connect().unwrap_err().kind(), ErrorKind::TimedOut);
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());

    let connecting = thread::spawn(move || client.within(NEVER).connect());
    listener.accept().unwrap();
    listener.accept().unwrap(); // Now there was room for this one.
    wait_until("it connects", || connecting.is_finished().then_some(()));
    connecting.join().unwrap().unwrap();
}
