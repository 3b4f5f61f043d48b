//! Chapter 15: the same server on a path, for programs on one machine.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use log::info;
use socket_steps::addr::Addr;
use socket_steps::chapter;
use socket_steps::client::Client;
use socket_steps::listener::Listener;
use socket_steps::narrate;
use socket_steps::options::{count, duration, exit_with};
use socket_steps::server::{Config, Server};
use socket_steps::services;
use socket_steps::socket::Socket;

const HERE: &str = "unix:/tmp/ch15_ipc.sock";
const PREFIX: &str = "서버 응답: ";
const LIMIT: usize = 64 * 1024;

fn main() -> io::Result<()> {
    let words = chapter::words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => scene(),
        ["server", ref words @ ..] => {
            let (address, config) = address_and_config(words);
            server(address, config)
        }
        ["client"] => client(HERE),
        ["client", address] => client(address),
        _ => usage(),
    }
}

fn address_and_config<'a>(words: &[&'a str]) -> (&'a str, Config) {
    let mut address = None;
    let mut config = Config::default();
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--limit" => config.max_connections = value(words.next(), count),
            "--idle" => config.timeouts.idle = Some(value(words.next(), duration)),
            "--message" => config.timeouts.message = Some(value(words.next(), duration)),
            _ if address.is_none() && !word.starts_with('-') => address = Some(word),
            _ => usage(),
        }
    }
    (address.unwrap_or(HERE), config)
}

fn value<T>(word: Option<&&str>, read: fn(&str) -> Result<T, String>) -> T {
    word.and_then(|word| read(word).ok()).unwrap_or_else(|| usage())
}

fn usage() -> ! {
    eprintln!("usage: ch15_ipc [server [ADDR] [--limit N] [--idle D] [--message D] | client [ADDR]]");
    std::process::exit(2);
}

fn server(address: &str, config: Config) -> io::Result<()> {
    narrate::aside();
    let server = Server::bind([address], config).unwrap_or_else(|error| exit_with(2, &format!("ch15_ipc: {error}")));
    let handle = server.handle();
    ctrlc::set_handler(move || handle.stop()).map_err(io::Error::other)?;
    println!("listening on {}", server.local_addrs()[0]);
    serve(server);
    Ok(())
}

// ANCHOR: serve
fn serve(server: Server) {
    let lines = services::lines(PREFIX, LIMIT);
    let summary = server.serve(move |socket| {
        say_who_it_is(&socket)?;
        lines(socket)
    });
    info!(target: "server", "served {}", summary.served);
}
// ANCHOR_END: serve

/// The kernel knows which program has connected on a path.
#[cfg(target_os = "linux")]
fn say_who_it_is(socket: &Socket) -> io::Result<()> {
    // ANCHOR: who
    let Addr::Unix(_) = socket.peer() else { return Ok(()) };
    let who = rustix::net::sockopt::socket_peercred(socket.connection().stream())?;
    info!(target: "server", "the client is process {}", who.pid);
    let is_ours = who.uid == rustix::process::getuid();
    info!(target: "server", "and its user is {}", if is_ours { "mine" } else { "not mine" });
    // ANCHOR_END: who
    Ok(())
}

/// Elsewhere the call has another name.
#[cfg(not(target_os = "linux"))]
fn say_who_it_is(_: &Socket) -> io::Result<()> {
    Ok(())
}

fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let socket = Client::to(address).connect().unwrap_or_else(|error| exit_with(1, &format!("ch15_ipc: {error}")));
    info!(target: "client", "connected");
    println!("{}", greet(socket)?);
    Ok(())
}

fn greet(mut socket: Socket) -> io::Result<String> {
    info!(target: "client", "sending 안녕하세요, 서버님!");
    socket.write_all("안녕하세요, 서버님!\n".as_bytes())?;
    socket.end()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "server-b", "client"]);
    let path = std::env::temp_dir().join(format!("ch15_ipc-{}", std::process::id()));
    let path = path.as_path();
    // One that had our number before us may have left its file.
    let _ = fs::remove_file(path);
    let stolen_from = a_file_that_stays(path)?;
    a_path_that_is_stolen(path, &stolen_from)?;
    drop(stolen_from);
    let address = Addr::Unix(Some(path.to_owned()));
    a_path_that_is_kept(&address, path)?;
    a_conversation(&address)
}

/// The standard library's listener, killed: dropping it closes the socket and does nothing else, as the kernel
/// does for a program that is killed.
fn a_file_that_stays(path: &Path) -> io::Result<UnixListener> {
    info!(target: "server", "binding to {}", path.display());
    // ANCHOR: naive
    let listener = UnixListener::bind(path)?;
    drop(listener);
    info!(target: "server", "killed");
    info!(target: "server", "is the file there? {}", fs::exists(path)?);
    let error = UnixStream::connect(path).expect_err("nobody listens");
    info!(target: "client", "connect: {error}");
    let error = UnixListener::bind(path).expect_err("the name is taken");
    info!(target: "server-b", "bind: {error}");
    // ANCHOR_END: naive

    // ANCHOR: remove
    info!(target: "server-b", "removing the file first");
    fs::remove_file(path)?;
    let listener = UnixListener::bind(path)?;
    info!(target: "server-b", "bind: listening");
    // ANCHOR_END: remove
    Ok(listener)
}

/// The same once more, while somebody listens.
fn a_path_that_is_stolen(path: &Path, living: &UnixListener) -> io::Result<()> {
    info!(target: "server", "again; removing the file first");
    fs::remove_file(path)?;
    let thief = UnixListener::bind(path)?;
    info!(target: "server", "bind: listening");

    info!(target: "client", "connecting");
    let _client = UnixStream::connect(path)?;
    thief.accept()?;
    info!(target: "server", "accepted a client");
    living.set_nonblocking(true)?;
    let error = living.accept().expect_err("the client is with the other");
    info!(target: "server-b", "accept: {error}");
    info!(target: "server-b", "it listens; no way leads to it");
    Ok(())
}

fn a_path_that_is_kept(address: &Addr, path: &Path) -> io::Result<()> {
    info!(target: "server", "killed; now with the kit");
    let listener = Listener::bind(address)?;
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    info!(target: "server", "listening, and the mode is {mode:o}");

    let error = Listener::bind(address).expect_err("somebody lives there");
    info!(target: "server-b", "bind: {}", error.kind());

    drop(listener);
    info!(target: "server", "closed in good order");
    info!(target: "server", "is the file there? {}", fs::exists(path)?);
    Ok(())
}

fn a_conversation(address: &Addr) -> io::Result<()> {
    let address = address.to_string();
    let server = Server::bind([&address], Config::default())?;
    info!(target: "server", "listening");
    let handle = server.handle();
    let serving = thread::spawn(|| serve(server));

    narrate::share_row(&["server", "client"]);
    narrate::share_row(&["server", "client"]);
    let socket = Client::to(&address).connect()?;
    info!(target: "client", "connected");
    let answer = greet(socket)?;
    info!(target: "client", "received {answer}");
    handle.stop();
    serving.join().expect("serving does not panic");
    Ok(())
}
