//! A server of the kit's reliable datagrams, on a thread of this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket_steps::arq::endpoint::Server;
use socket_steps::arq::peers::Counts;

/// A server in a thread, until it is told to stop; then it returns what it was sent.
pub struct Receiving {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    serving: JoinHandle<(Vec<Vec<u8>>, Counts)>,
}

impl Receiving {
    pub fn on(mut server: Server) -> Receiving {
        let address = server.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let serving = thread::spawn(move || {
            let mut messages = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                messages.extend(server.receive(Duration::from_millis(20)).unwrap().map(|(_, message)| message));
            }
            (messages, server.counts())
        });
        Receiving { address, stop, serving }
    }

    pub fn stop(self) -> (Vec<Vec<u8>>, Counts) {
        self.stop.store(true, Ordering::Relaxed);
        self.serving.join().unwrap()
    }
}
