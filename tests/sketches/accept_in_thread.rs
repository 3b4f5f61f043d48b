//! Chapter 6, exercise 1: a loop that waits for nothing.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

static STARTED: AtomicUsize = AtomicUsize::new(0);

/// Stops the wrong loop before the computer does.
const ENOUGH: usize = 200;

// ANCHOR: accept_in_thread
fn serve(listener: Arc<TcpListener>) {
    loop {
        let listener = Arc::clone(&listener);
        thread::spawn(move || {
            let (stream, _peer) = listener.accept()?;
            answer(&stream)
        });
        // ANCHOR_END: accept_in_thread
        if STARTED.fetch_add(1, Ordering::Relaxed) == ENOUGH {
            return;
        }
    }
}

fn answer(_stream: &TcpStream) -> io::Result<()> {
    Ok(())
}

#[test]
fn it_starts_threads_although_nobody_comes() {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
    serve(Arc::clone(&listener));
    assert!(STARTED.load(Ordering::Relaxed) > ENOUGH, "and not one client has connected");
    // Lets the threads that wait in accept go.
    for _ in 0..=ENOUGH {
        TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    }
}
