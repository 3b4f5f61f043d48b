//! The design of the finished server as a sketch: accept, a channel, and a thread for each connection, kept for the next.
//! No deadlines, no statistics, no log.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, unbounded};

fn serve(mut client: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        let count = client.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..count])?;
    }
}

fn work(clients: &Receiver<TcpStream>, free: &AtomicUsize) {
    for client in clients {
        let _ = serve(client);
        free.fetch_add(1, Ordering::SeqCst);
    }
}

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let (sender, receiver) = unbounded::<TcpStream>();
    let free = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming().flatten() {
        if free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1)).is_err() {
            let (receiver, free) = (receiver.clone(), Arc::clone(&free));
            thread::spawn(move || work(&receiver, &free));
        }
        let _ = sender.send(client);
    }
    Ok(())
}
