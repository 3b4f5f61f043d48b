//! Every way in which a connection ends means what it says: an end arrives after everything that was written,
//! a reset is never taken for an end.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use socket_steps::server::Config;
use socket_steps::socket::Socket;
use socket_steps::stats::{CloseReason, Snapshot};
use support::kit::Kit;
use support::{BOUND, Client, wait_until};

const MUCH: usize = 20_000_000;

/// More than a client with a small window has been sent before it reads, and less than a kernel holds back.
const REPLY: usize = 1_000_000;

/// Waits, in a handler, until this can be said of the connection; reads nothing.
fn wait_for(socket: &Socket, what: PollFlags) {
    let mut watched = [PollFd::new(socket.connection().stream(), what)];
    poll(&mut watched, None).unwrap();
}

/// That the client has reset the connection is always reported, whether asked for or not.
const RESET: PollFlags = PollFlags::empty();

#[test]
fn finish_delivers_twenty_megabytes_though_the_client_has_sent_more_than_was_read() {
    let kit = Kit::serve(Config::default(), |mut socket: Socket| {
        socket.write_all(&vec![b'x'; MUCH])?;
        socket.finish()
    });
    let mut client = kit.client();
    client.send("never read");
    assert_eq!(client.rest().len(), MUCH);
    drop(client);
    assert_eq!(kit.stop().bytes_out, MUCH as u64);
}

#[test]
fn abort_throws_away_what_the_client_has_not_received_and_says_so() {
    let kit = Kit::serve(Config::default(), move |mut socket: Socket| {
        socket.write_all(&vec![b'x'; MUCH])?;
        socket.abort()
    });
    let client = Client::with_a_small_window(kit.socket_addr());
    // The last part is not read before the abort, so it is still with the server's kernel then.
    let mut came = Vec::new();
    let mut end = (&client.0).take((MUCH - REPLY) as u64).read_to_end(&mut came);
    if end.is_ok() {
        client.wait_for_hang_up();
        end = (&client.0).read_to_end(&mut came);
    }
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(came.len() < MUCH, "all of it arrived");
    kit.wait_until_empty();
    assert_eq!(kit.ended(CloseReason::Aborted), 1);
    assert_eq!(kit.stop().bytes_out, MUCH as u64, "all of it was written");
}

/// What becomes of a reply when the server closes without having read what the client sent: how many bytes of
/// it arrive, and whether they are followed by a clean end.
fn reply_to_unread_input(mut client: Client, closed: impl FnOnce()) -> (usize, bool) {
    client.send([b'x'; 1000]);
    closed();
    let (reply, end) = client.rest_and_end();
    (reply.len(), end.is_ok())
}

#[test]
fn closing_with_unread_input_destroys_a_reply_unless_it_is_done_politely() {
    // First without politeness, so that it is certain what is asked for.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..20 {
        let client = Client::with_a_small_window(listener.local_addr().unwrap());
        let (length, is_clean) = reply_to_unread_input(client, || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.peek(&mut [0]).unwrap();
            stream.write_all(&[b'x'; REPLY]).unwrap();
        });
        assert!(length < REPLY && !is_clean, "the fault did not happen");
    }

    let kit = Kit::serve(Config::default(), |mut socket: Socket| {
        wait_for(&socket, PollFlags::IN);
        socket.write_all(&[b'x'; REPLY])
    });
    for _ in 0..20 {
        let client = Client::with_a_small_window(kit.socket_addr());
        let (length, is_clean) = reply_to_unread_input(client, || kit.wait_until_empty());
        assert_eq!((length, is_clean), (REPLY, true));
    }
    assert_eq!(kit.ended(CloseReason::Closed), 20);
}

#[test]
fn a_reply_survives_a_client_that_sends_far_more_than_is_ever_read() {
    let kit = Kit::serve(Config::default(), |mut socket: Socket| socket.write_all(&[b'x'; REPLY]));
    let mut client = Client::with_a_small_window(kit.socket_addr());
    client.0.set_write_timeout(Some(Duration::from_millis(20))).unwrap();
    // Stuck, if all is well: the server has heard enough, and waits. Else an error.
    let error = client.0.write_all(&vec![b'x'; MUCH]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    assert_eq!(client.rest().len(), REPLY);
    // It is not waited for for ever.
    client.0.set_write_timeout(Some(BOUND)).unwrap();
    let error = client.0.write_all(&vec![b'x'; MUCH]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
}

#[test]
fn a_reply_survives_that_someone_looks_at_the_connections_while_it_is_closed() {
    let kit = Kit::serve(Config::default(), |mut socket: Socket| {
        socket.read_exact(&mut [0])?;
        socket.write_all(&[b'x'; REPLY])
    });
    // A look at many takes longer.
    let idle: Vec<Client> = (0..200).map(|_| kit.client()).collect();
    let is_idle = |snapshot: Snapshot| (snapshot.now == idle.len() as u64).then_some(());
    let done = AtomicBool::new(false);
    let results: Vec<(usize, bool)> = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                kit.handle().snapshot();
            }
        });
        let rounds = (0..50).map(|_| {
            let mut client = Client::with_a_small_window(kit.socket_addr());
            client.send([b'x'; 1000]);
            wait_until("it is closed", || is_idle(kit.handle().snapshot()));
            client.send("more");
            let (reply, end) = client.rest_and_end();
            (reply.len(), end.is_ok())
        });
        let results = rounds.collect();
        done.store(true, Ordering::Relaxed);
        results
    });
    assert_eq!(results, [(REPLY, true); 50]);
}

#[test]
fn writing_after_the_end_is_a_broken_pipe_and_the_client_sees_a_clean_end() {
    let (sender, errors) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket: Socket| {
        socket.write_all(b"the end")?;
        socket.end()?;
        let error = socket.write_all(b"one more thing").unwrap_err();
        sender.send(error.kind()).unwrap();
        Err(error)
    });
    let mut client = kit.client();
    assert_eq!(client.rest_as_text(), "the end");
    assert_eq!(errors.recv_timeout(BOUND).unwrap(), ErrorKind::BrokenPipe);
    kit.wait_until_empty();
    assert_eq!(kit.ended(CloseReason::BrokenPipe), 1);
    assert_eq!(kit.stop().bytes_out, 7);
}

#[test]
fn data_and_a_reset_are_read_as_data_and_a_reset() {
    let (sender, results) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket: Socket| {
        wait_for(&socket, RESET);
        let mut bytes = [0; 100];
        let count = socket.read(&mut bytes)?;
        let error = socket.read(&mut bytes);
        sender.send((count, error.as_ref().map_err(std::io::Error::kind).copied())).unwrap();
        error.map(drop)
    });
    for _ in 0..50 {
        let mut client = kit.client();
        client.send("data");
        client.reset();
        assert_eq!(results.recv_timeout(BOUND).unwrap(), (4, Err(ErrorKind::ConnectionReset)));
    }
    kit.wait_until_empty();
    assert_eq!(kit.ended(CloseReason::Reset), 50);
}

#[test]
fn a_reset_that_a_writer_was_told_of_is_no_clean_end_for_the_reader() {
    // The kernel tells only one of them.
    let (sender, results) = channel();
    let kit = Kit::serve(Config::default(), move |mut socket: Socket| {
        wait_for(&socket, RESET);
        let written = socket.write(b"answer").map_err(|error| error.kind());
        let mut bytes = Vec::new();
        let read = socket.read_to_end(&mut bytes);
        sender.send((written, bytes, read.as_ref().map_err(std::io::Error::kind).copied())).unwrap();
        read.map(drop)
    });
    let reset = Err(ErrorKind::ConnectionReset);
    for _ in 0..50 {
        let mut client = kit.client();
        client.send("data");
        client.reset();
        assert_eq!(results.recv_timeout(BOUND).unwrap(), (reset, b"data".to_vec(), reset));
    }
    kit.wait_until_empty();
    assert_eq!(kit.ended(CloseReason::Reset), 50);
}
