//! Connecting thousands of times leaves nothing behind. Alone in its program, because it counts the program's
//! descriptors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{self, Write};

use socket_steps::client::Client;
use socket_steps::server::Config;
use support::kit::Kit;
use support::{descriptors, wait_until};

#[test]
fn thousands_of_connects_in_a_row_are_as_many_hellos_and_no_descriptor_is_left_open() {
    let own = std::process::id();
    let before = descriptors(own);
    let kit = Kit::serve(Config::default(), |mut socket| socket.write_all(b"hello"));
    let client = Client::to(&kit.address().to_string());
    let hello = || assert_eq!(io::read_to_string(client.connect().unwrap()).unwrap(), "hello");

    (0..51).for_each(|_| hello());
    let settled = |most| wait_until("both sides are closed", || (descriptors(own) <= most).then_some(()));
    let serving = before + 20; // Its pipes and its listener, and nothing for each client.
    settled(serving);
    (0..3000).for_each(|_| hello());
    settled(serving);

    let summary = kit.stop();
    assert_eq!((summary.served, summary.closed, summary.bytes_out), (3051, 3051, 3051 * 5));
    settled(before);
}
