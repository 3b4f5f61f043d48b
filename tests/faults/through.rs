//! Through a way that splits and delays, every service answers right, byte for byte.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use socket_steps::connection::State;
use socket_steps::room::Room;
use socket_steps::server::Config;
use socket_steps::services;

use crate::proxy::{Done, Fate, Faults, Proxy, Way};
use crate::random::Random;
use crate::support::figures::seed;
use crate::support::kit::Kit;
use crate::support::web::{CLOSE, FIN, Site, Ws, get};
use crate::support::{Client, PREFIX, Server, wait_until};

/// Splits and delays, and lets everything through.
pub(crate) const BUMPY: Faults =
    Faults { piece: 99, late: 2, late_by: Duration::from_millis(5), cut: 0, reset: 0, within: 0 };

/// A message: lines of text, some empty, with characters of several bytes.
pub(crate) fn text(random: &mut Random, least: usize) -> String {
    let mut text = String::new();
    while text.len() < least {
        let words = ["소켓", "연결", "hello", "🙂", " ", "\n", "\r\n", "바람"];
        text.push_str(words[random.within(0..=words.len() as u64 - 1) as usize]);
    }
    text.push('\n');
    text
}

/// What the service `lines` answers: to what the way has let through, too.
pub(crate) fn answer_in_lines(said: &[u8]) -> Vec<u8> {
    said.split_inclusive(|byte| *byte == b'\n').flat_map(|line| [PREFIX.as_bytes(), line].concat()).collect()
}

/// Says everything, ends, and hears everything: right to the byte, as far as its fate allows.
pub(crate) fn talk(mut client: Client, fate: Fate, said: &[u8], answer: impl Fn(&[u8]) -> Vec<u8>) {
    let sent = client.0.write_all(said).and_then(|()| client.0.shutdown(Shutdown::Write));
    let (came, end) = client.rest_and_end();
    match fate {
        Fate::Whole => {
            sent.unwrap();
            assert_same(&came, &answer(said));
        }
        Fate::Cut(Way::There, at) => assert_same(&came, &answer(&said[..at as usize])),
        Fate::Cut(Way::Back, at) => assert_same(&came, &answer(said)[..at as usize]),
        Fate::Reset(way, at) => {
            assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{fate:?}");
            let most = if way == Way::Back { at as usize } else { usize::MAX };
            let whole = answer(said);
            assert!(came.len() <= most.min(whole.len()), "{fate:?}: {} bytes", came.len());
            return assert_same(&came, &whole[..came.len()]);
        }
    }
    end.unwrap();
}

/// Fails with the place of the first difference, not with pages of text.
fn assert_same(came: &[u8], expected: &[u8]) {
    let differs = came.iter().zip(expected).position(|(one, other)| one != other);
    assert_eq!((differs, came.len()), (None, expected.len()), "the first byte that differs, and the length");
}

fn assert_bumpy(done: Done) {
    assert!(done.pieces > 50 * done.carried && done.late > 0, "the fault did not happen: {done:?}");
    assert_eq!((done.cut, done.reset), ([0, 0], [0, 0]));
}

fn through_splits_and_delays(service: &str, answer: impl Fn(&[u8]) -> Vec<u8> + Sync) {
    let (seed, server) = (seed(), Server::start(&["--service", service]));
    let proxy = Proxy::to(server.socket_addr(), BUMPY, seed);
    let talks: Vec<_> = (0..10).map(|number| (proxy.client(), text(&mut Random::new(seed, number), 9000))).collect();
    let said: u64 = talks.iter().map(|(_, text)| text.len() as u64).sum();
    thread::scope(|scope| {
        for ((client, fate), text) in talks {
            let answer = &answer;
            scope.spawn(move || talk(client, fate, text.as_bytes(), answer));
        }
    });
    assert_bumpy(proxy.done());
    let accounts = server.stop().accounts;
    assert_eq!((accounts.of("served"), accounts.of("in")), (10, said));
}

#[test]
fn echo_comes_back_as_it_was_through_splits_and_delays() {
    through_splits_and_delays("echo", <[u8]>::to_vec);
}

#[test]
fn lines_are_answered_each_through_splits_and_delays() {
    through_splits_and_delays("lines", answer_in_lines);
}

#[test]
fn a_reply_has_every_character_whole_through_splits_and_delays() {
    let (seed, server) = (seed(), Server::start(&["--service", "reply"]));
    let proxy = Proxy::to(server.socket_addr(), BUMPY, seed);
    for number in 0..5 {
        let said = text(&mut Random::new(seed, number), 9000);
        let (mut client, _) = proxy.client();
        let came = client.send(&said).end().rest_as_text();
        // How many pieces the server saw is up to the kernel, but it was more than one.
        assert!(came.matches(PREFIX).count() > 1, "the splits did not reach the server");
        assert_same(came.replace(PREFIX, "").as_bytes(), said.as_bytes());
    }
    assert_bumpy(proxy.done());
    assert_eq!(server.stop().accounts.of("served"), 5);
}

#[test]
fn everyone_in_the_chat_hears_everyone_through_splits_and_delays() {
    const LINES: usize = 200;
    let seed = seed();
    let kit = Kit::serve(Config::default(), services::chat(Room::default(), 1000));
    let proxy = Proxy::to(kit.socket_addr(), BUMPY, seed);
    let clients = [(); 3].map(|()| proxy.client().0);
    wait_until("all are in", || {
        let connections = kit.handle().snapshot().connections;
        (connections.len() == 3 && connections.iter().all(|one| one.state == State::Idle)).then_some(())
    });
    let line = |speaker: usize, number: usize| format!("{speaker}번: {number}번째 줄\n");
    let hear = |listener: usize, client: &mut Client| {
        let mut next = [0; 3];
        next[listener] = LINES;
        while next != [LINES; 3] {
            let mut heard = Vec::new();
            while heard.last() != Some(&b'\n') {
                heard.extend(client.read(1));
            }
            let speaker = usize::from(heard[0] - b'0');
            assert_eq!(String::from_utf8(heard).unwrap(), line(speaker, next[speaker]));
            next[speaker] += 1;
        }
    };
    thread::scope(|scope| {
        for (member, mut client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                client.send((0..LINES).map(|number| line(member, number)).collect::<String>());
                hear(member, &mut client);
            });
        }
    });
    assert_bumpy(proxy.done());
    kit.wait_until_empty();
    assert_eq!(kit.stop().served, 3);
}

#[test]
fn the_page_and_its_conversations_are_the_same_through_splits_and_delays() {
    let (seed, site) = (seed(), Site::start(&[]));
    let proxy = Proxy::to(site.page, BUMPY, seed);
    for path in ["/", "/page.css", "/page.js", "/nothing"] {
        let (direct, through) = (site.get(path), get(proxy.address(), path));
        assert_eq!((direct.status, direct.body), (through.status, through.body), "{path}");
    }
    // The room: one comes as browsers usually do, the other on the bad way.
    let (mut near, mut far) = (Ws::connect(site.page, "/chat"), Ws::connect(proxy.address(), "/chat"));
    for number in 0..5 {
        // What is said in the room is one line.
        let said = text(&mut Random::new(seed, number), 9000).replace(['\r', '\n'], " ");
        far.say(&said);
        assert_same(near.hear().as_bytes(), said.as_bytes());
        near.say(&said);
        assert_same(far.hear().as_bytes(), said.as_bytes());
    }
    let mut watching = Ws::connect(proxy.address(), "/live");
    for _ in 0..2 {
        assert!(serde_json::from_str::<serde_json::Value>(&watching.hear()).unwrap()["served"].is_u64());
    }
    for mut one in [near, far, watching] {
        one.send(FIN | CLOSE, 1000u16.to_be_bytes());
        assert_eq!(one.close_code(), 1000);
    }
    assert_bumpy(proxy.done());
    assert!(site.server.stop().status.success());
}
