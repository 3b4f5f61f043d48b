//! A server that has ended can be started again on its port, at once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::net::SocketAddr;

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
