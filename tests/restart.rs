//! A server that has ended can be started again on its port, at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use support::{Client, PREFIX, Server};

/// How many connections wait in TIME_WAIT on this port, as the kernel's table of IPv4 sockets has it.
fn in_time_wait(address: SocketAddr) -> usize {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[1].ends_with(&port) && row[3] == "06").count()
}

#[test]
fn a_port_can_be_had_again_at_once_twenty_times_though_clients_were_connected() {
    // Not the address from which others on this machine connect: one of their ports might be ours.
    let mut address = "127.0.0.5:0".to_owned();
    for _ in 0..20 {
        let server = Server::listening_on(&address, &[]);
        address = server.address().to_owned();
        let mut clients: Vec<Client> = (0..5).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send("hello").expect(format!("{PREFIX}hello"));
        }
        let ended = server.stop();
        assert!(ended.status.success(), "{ended:?}");
        for mut client in clients {
            assert!(client.rest().is_empty());
        }
    }
    // The side that ends first is the one that waits, for a minute: longer than all of this takes.
    let waiting = in_time_wait(address.parse().unwrap());
    assert!(waiting >= 20, "only {waiting} connections were in the way");
}

/// It makes its socket step by step, so nobody but itself asks for the port to be reusable.
#[test]
fn the_server_of_chapter_3_can_be_started_again_at_once() {
    let mut address = "127.0.0.7:0".to_owned();
    for round in 0..3 {
        let mut server = Command::new(env!("CARGO_BIN_EXE_ch03_steps"))
            .args(["server", &address])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        address = line.trim().strip_prefix("listening on ").expect("it listens").to_owned();

        let mut client = TcpStream::connect(&address).unwrap();
        client.set_read_timeout(Some(support::BOUND)).unwrap();
        client.write_all(b"hello").unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        drop(client);
        let waiting = || (in_time_wait(address.parse().unwrap()) > round).then_some(());
        support::wait_until("the connection is in TIME_WAIT", waiting);
        server.kill().unwrap();
        server.wait().unwrap();
    }
}
