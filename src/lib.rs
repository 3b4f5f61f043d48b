//! A synchronous server kit: one thread for each connection, deadlines that hold, books that balance, and a
//! stop that loses nothing. It is what the chapters of *Sockets, Step by Step* arrive at.
//!
//! ```
//! use socket_steps::server::{Config, Server};
//! use std::io::{Read, Write};
//!
//! let server = Server::bind(["127.0.0.1:0"], Config::default())?;
//! let address = server.local_addrs()[0].to_string();
//! let stop = server.handle();
//! let serving = std::thread::spawn(|| server.serve(socket_steps::services::echo));
//!
//! let mut client = std::net::TcpStream::connect(address)?;
//! client.write_all("안녕하세요".as_bytes())?;
//! let mut answer = [0; 15];
//! client.read_exact(&mut answer)?;
//! assert_eq!(answer, "안녕하세요".as_bytes());
//!
//! stop.stop();
//! println!("{}", serving.join().unwrap()); // accepted 1 = served 1 + refused 0 + failed 0; …
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The map
//!
//! In reading order; each module uses only those above it. What has no link is private, and the business of its
//! neighbours alone.
//!
//! | module | what is in it |
//! |---|---|
//! | [`backoff`] | how long to wait before the next try |
//! | [`lines`] | lines with a limit; characters that arrive in pieces |
//! | [`output`] | writing to a stream without ever waiting for it; control characters made harmless |
//! | [`options`] | durations, sizes and one-line errors for the command lines |
//! | [`wake`] | a pipe that ends a `poll` |
//! | [`pool`] | a small pool of threads, permits, a channel without room |
//! | [`addr`] [`stream`] `socket_file` [`listener`] | addresses, streams and listeners, TCP or Unix |
//! | [`limits`] | what this machine can hold |
//! | [`deadline`] [`connection`] | how long for what; what is known of one connection |
//! | [`farewell`] | closing politely |
//! | [`writer`] [`socket`] | one connection, with its deadlines: write; read and write |
//! | `waiting` [`outbox`] [`room`] | what others say to a connection, and the thread that writes it; who hears the same |
//! | `log_limit` [`stats`] | the central stats thread, and how it keeps its log short |
//! | [`shutdown`] | the stop flag; the registry of open connections |
//! | `config` `handle` `worker` `trouble` `accept` [`server`] | what it is to do; what it can be asked; the life of a connection; what is wrong when accept fails; the accept loop; and everything together |
//! | [`client`] | connecting, with a deadline and retries |
//! | [`services`] | `reply`, `echo`, `lines`, `chat` |
//! | [`web`] | the live page: HTTP, WebSocket, and a server beside the one that is watched |
//! | [`narrate`] [`chapter`] | for the chapters' programs: lanes; the command line and the clients of a scene |
//! | [`arq`] | an island, of chapters 16 and 17: a bad link, and a message that gets through it |
//!
//! # The threads
//!
//! | thread | waits for | ends when |
//! |---|---|---|
//! | accept: the caller of [`serve`](server::Server::serve) | a client, a free place, the stop; all in one `poll` | the server is stopped |
//! | worker, at least `min_workers`, at most `max_connections` | a connection; then its bytes | the server ends, or after 5 s without work above the minimum |
//! | writer, one for each connection that others speak to, in the chat and on the live page | its outbox; the socket | the outbox is closed, or the write deadline has passed |
//! | stats, one | an event, a question | nobody can ask any more |
//! | farewell, one | the last bytes of those who leave | the server ends |
//! | output, one for each stream | something to write | the program ends |
//! | page, one, and publisher, one, with workers, stats and farewell of the page's own | a browser; the next half second, while anyone watches | the server has ended |
//! | signals, one, in the finished server | SIGINT, SIGTERM, SIGHUP | the program ends |
//!
//! # How a connection walks
//!
//! ```text
//! accept ─ Stream ─► registry ─► pool ─► worker: handler(Socket) ─► result ─► CloseReason ─► farewell
//!                       │                  │ reads and writes under deadlines     │
//!                       │                  └─ Event::Connected ─┬─ Event::Disconnected
//!                       │                                       ▼
//!                       └── exact totals ──► Snapshot ◄── stats thread
//! ```

mod accept;
pub mod addr;
pub mod arq;
pub mod backoff;
pub mod chapter;
pub mod client;
mod config;
pub mod connection;
pub mod deadline;
pub mod farewell;
mod handle;
pub mod limits;
pub mod lines;
pub mod listener;
mod log_limit;
pub mod narrate;
pub mod options;
pub mod outbox;
pub mod output;
pub mod pool;
pub mod room;
pub mod server;
pub mod services;
pub mod shutdown;
pub mod socket;
mod socket_file;
pub mod stats;
pub mod stream;
mod trouble;
mod waiting;
pub mod wake;
pub mod web;
mod worker;
pub mod writer;

/// The README's example is compiled and run like every other.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
