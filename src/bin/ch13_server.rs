//! Chapter 13: chapter 12's server again, on the kit.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process;
use std::thread;

use log::info;
use socket_steps::chapter::{Actor, Part, ServerOptions, give_up, part};
use socket_steps::deadline::Timeouts;
use socket_steps::narrate;
use socket_steps::server::{Config, Server};
use socket_steps::services;

fn main() -> io::Result<()> {
    match part("ch13_server [server [ADDR] [--limit N] [--idle D] [--message D]]") {
        Part::Server(options) => server(&options).map_err(give_up),
        _ => scene(),
    }
}

// ANCHOR: server
fn server(options: &ServerOptions) -> io::Result<()> {
    narrate::aside();
    let timeouts = Timeouts { idle: Some(options.idle), message: Some(options.message), ..Timeouts::default() };
    let config = Config { max_connections: options.limit, timeouts, ..Config::default() };
    let server = Server::bind([&options.address], config)?;

    let handle = server.handle();
    ctrlc::set_handler(move || {
        if handle.is_stopping() {
            process::exit(130); // The second time: at once.
        }
        handle.stop();
    })
    .map_err(io::Error::other)?;

    for address in server.local_addrs() {
        println!("listening on {address}");
    }
    let summary = server.serve(services::lines("서버 응답: ", 64 * 1024));
    println!("{summary}");
    process::exit(if summary.is_clean() { 0 } else { 1 })
}
// ANCHOR_END: server

fn scene() -> io::Result<()> {
    narrate::scene(&["server", "client", "client-b"]);
    let config = Config { max_connections: 2, ..Config::default() };
    let server = Server::bind(["127.0.0.1:0"], config)?;
    let address = server.local_addrs()[0].to_string().parse().map_err(io::Error::other)?;
    let handle = server.handle();
    info!(target: "server", "two places");
    let serving = thread::spawn(|| server.serve(services::lines("서버 응답: ", 64 * 1024)));

    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;
    let mut client_b = Actor::connect("client-b", address)?;
    info!(target: "client-b", "sending a line, and the beginning of another");
    client_b.stream().write_all("안녕하세요, 서버님!\n안녕히 ".as_bytes())?;
    client_b.hear()?;
    refused(address)?;

    info!(target: "server", "stopping");
    handle.stop();
    client.hear()?;
    client_b.say("계세요")?;
    client_b.hear()?;
    client_b.hear()?;
    drop((client, client_b));
    let summary = serving.join().expect("serving does not panic");
    for part in summary.to_string().split("; ") {
        info!(target: "server", "{part}");
    }
    many_lines()
}

/// The end of chapter 12's scene: what had arrived when the stop came.
fn many_lines() -> io::Result<()> {
    let server = Server::bind(["127.0.0.1:0"], Config::default())?;
    let address = server.local_addrs()[0].to_string().parse().map_err(io::Error::other)?;
    let handle = server.handle();
    let serving = thread::spawn(|| server.serve(services::lines("서버 응답: ", 64 * 1024)));
    let mut client = Actor::connect("client", address)?;
    client.say("안녕하세요, 서버님!")?;
    client.hear()?;

    info!(target: "client", "sending 20,000 short lines");
    client.stream().write_all(&b"\n".repeat(20_000))?;
    handle.stop();
    let answers = BufReader::new(client.stream()).lines().count();
    info!(target: "client", "{}", if answers == 20_000 { "20,000 answers" } else { "fewer answers, and the end" });
    drop(client);
    serving.join().expect("serving does not panic");
    Ok(())
}

/// A third client, which leaves again.
fn refused(address: SocketAddr) -> io::Result<()> {
    let mut client = Actor::connect("client", address)?;
    client.hear()?;
    client.hear()?;
    Ok(())
}
