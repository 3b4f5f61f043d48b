//! What the two study notes describe, on the finished server as it is started without options.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use support::{PREFIX, Server};

const GREETING: &str = "안녕하세요, 서버님!";

#[test]
fn the_greeting_is_answered_with_the_prefix_and_a_clean_end() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.send(GREETING).expect(format!("{PREFIX}{GREETING}"));
    client.end();
    assert!(client.rest().is_empty());
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.accounts.of("in"), ended.accounts.of("out")), (27, 27 + 15));
}
