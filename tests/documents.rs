//! What the two study notes describe, on the finished server as it is started without options.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use support::needs::{has_ipv6, skip};
use support::{Client, PREFIX, Server, program};

const GREETING: &str = "안녕하세요, 서버님!";

/// The notes' client: sends the greeting, without a newline, takes the answer, and ends.
fn greet(mut client: Client) {
    client.send(GREETING).expect(format!("{PREFIX}{GREETING}"));
    assert!(client.end().rest().is_empty(), "more than an answer and an end");
}

/// The addresses that `localhost` stands for on this machine.
fn loopbacks() -> Vec<&'static str> {
    if has_ipv6() { vec!["[::1]", "127.0.0.1"] } else { vec!["127.0.0.1"] }
}

/// Greets the server on each of its addresses, and stops it.
fn greet_everywhere(mut server: Server) -> Vec<String> {
    let mut addresses = vec![server.address().to_owned()];
    for _ in 1..loopbacks().len() {
        let line = server.next_line().unwrap();
        addresses.push(line.strip_prefix("listening on ").unwrap().to_owned());
    }
    for address in &addresses {
        greet(Client::connect(address.parse().unwrap()));
    }
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    let (clients, greeting, prefix) = (addresses.len() as u64, GREETING.len() as u64, PREFIX.len() as u64);
    assert_eq!(ended.accounts.of("served"), clients);
    assert_eq!(ended.accounts.of("in"), clients * greeting);
    assert_eq!(ended.accounts.of("out"), clients * (prefix + greeting));
    addresses
}

#[test]
fn started_without_options_it_answers_the_greeting_on_port_8080_of_localhost() {
    let server = match Server::try_from_command(&mut program()) {
        Err(why) if why.contains("another program listens there") => {
            return skip("port-8080", why);
        }
        started => started.unwrap(),
    };
    let expected: Vec<String> = loopbacks().iter().map(|ip| format!("{ip}:8080")).collect();
    assert_eq!(greet_everywhere(server), expected);
}

#[test]
fn localhost_is_every_loopback_address_whatever_the_port() {
    let server = Server::listening_on("localhost:0", &[]);
    let addresses = greet_everywhere(server);
    for (address, ip) in addresses.iter().zip(loopbacks()) {
        assert!(address.starts_with(&format!("{ip}:")), "{addresses:?}");
    }
}
