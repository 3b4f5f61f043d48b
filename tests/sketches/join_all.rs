//! Chapter 12: the tempting graceful stop. A flag, a connection to oneself, and waiting for every thread.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Long enough for everything that is not stuck.
const BOUND: Duration = Duration::from_secs(60);
const A_MOMENT: Duration = Duration::from_millis(300);

// ANCHOR: serve
fn serve(listener: &TcpListener, stopping: &AtomicBool) -> io::Result<()> {
    let mut threads = Vec::new();
    while !stopping.load(Ordering::SeqCst) {
        let (stream, _peer) = listener.accept()?;
        threads.push(thread::spawn(move || answer(stream)));
    }
    for thread in threads {
        let _ = thread.join(); // Waits until this client has gone.
    }
    Ok(())
}

fn stop(address: SocketAddr, stopping: &AtomicBool) -> io::Result<()> {
    stopping.store(true, Ordering::SeqCst);
    TcpStream::connect(address)?; // So that accept returns, and the loop looks at the flag.
    Ok(())
}
// ANCHOR_END: serve

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = [0; 1024];
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => stream.write_all(&bytes[..count])?,
        }
    }
}

/// Starts it; the receiver is told when it has ended.
fn started() -> (SocketAddr, Arc<AtomicBool>, std::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stopping = Arc::new(AtomicBool::new(false));
    let (tell, has_ended) = channel();
    let flag = Arc::clone(&stopping);
    thread::spawn(move || {
        serve(&listener, &flag).unwrap();
        tell.send(()).unwrap();
    });
    (address, stopping, has_ended)
}

#[test]
fn one_silent_client_holds_the_exit_for_as_long_as_it_likes() {
    let (address, stopping, has_ended) = started();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap(); // It is served, and silent from now on.
    stop(address, &stopping).unwrap();
    assert_eq!(has_ended.recv_timeout(A_MOMENT), Err(RecvTimeoutError::Timeout), "it did not wait for the client");
    drop(client);
    has_ended.recv_timeout(BOUND).expect("with the last client, it ends");
}

#[test]
fn without_a_client_it_stops() {
    let (address, stopping, has_ended) = started();
    stop(address, &stopping).unwrap();
    has_ended.recv_timeout(BOUND).unwrap();
}

const CHILD: &str = "SKETCH_WITHOUT_DESCRIPTORS";
const NAME: &str = "join_all::without_descriptors_connecting_to_oneself_wakes_nobody";
const ASLEEP: i32 = 77;

/// Runs itself a second time: the limit is the whole process's.
#[test]
fn without_descriptors_connecting_to_oneself_wakes_nobody() {
    if std::env::var_os(CHILD).is_some() {
        let (address, stopping, has_ended) = started();
        // One client, so that the server is surely in its loop by now.
        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        let lowest_free = File::open("/dev/null").unwrap().as_raw_fd() as u64;
        let limit = Rlimit { current: Some(lowest_free), ..getrlimit(Resource::Nofile) };
        setrlimit(Resource::Nofile, limit).unwrap();
        let error = stop(address, &stopping).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{error}");
        drop(client); // Nobody is left to wait for.
        let is_asleep = has_ended.recv_timeout(A_MOMENT).is_err();
        std::process::exit(if is_asleep { ASLEEP } else { 0 });
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    let output = again.args(["--exact", NAME, "--nocapture"]).env(CHILD, "1").output().unwrap();
    assert_eq!(output.status.code(), Some(ASLEEP), "{}", String::from_utf8_lossy(&output.stderr));
}
