//! Through a bad way, whatever arrives is right, byte for byte, as far as the way has let it; what the way destroys is
//! the business of nobody else, and leaves nothing behind.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket_steps::connection::State;
use socket_steps::room::Room;
use socket_steps::server::Config;
use socket_steps::services;

use crate::proxy::{Done, Fate, Faults, Proxy, Way};
use crate::random::{Random, seed};
use crate::support::kit::Kit;
use crate::support::web::{CLOSE, FIN, Site, Ws, get, handshake};
use crate::support::{Client, PREFIX, Server, descriptors, threads, wait_until};

/// Splits and delays, and lets everything through.
const BUMPY: Faults = Faults { piece: 99, late: 2, late_by: Duration::from_millis(5), cut: 0, reset: 0, within: 0 };

/// Threads do not come and go when as many are kept ready as there may be connections.
const ALL_READY: [&str; 4] = ["--min-workers", "24", "--max-connections", "24"];

/// Connections on a way that ends many of them early, and how long what is said there is at least.
const TALKS: u64 = 60;
const MESSAGE: usize = 5000;

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

fn threads_and_descriptors(pid: u32) -> [usize; 2] {
    [threads(pid), descriptors(pid)]
}

/// The page's threads stay ready for some seconds after the last of a crowd.
fn only_descriptors(pid: u32) -> [usize; 2] {
    [0, descriptors(pid)]
}

/// Does something to a server while two clients talk with it, and looks whether they get their answers, and
/// whether the server holds what it held before. How many bytes the two have said.
fn beside_two_others(server: &Server, what_it_holds: fn(u32) -> [usize; 2], something: impl FnOnce()) -> u64 {
    let held = || what_it_holds(server.pid());
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let others = [(); 2].map(|()| {
            let (mut other, over) = (server.client(), &over);
            other.send("hello\n").expect("hello\n");
            scope.spawn(move || {
                let mut said = 6;
                while !over.load(Ordering::Relaxed) {
                    other.send("hello\n").expect("hello\n");
                    said += 6;
                }
                (other, said)
            })
        });
        let before = held();
        // A failure must end the others, too, or the scope would wait for them for ever.
        let result = panic::catch_unwind(AssertUnwindSafe(something));
        over.store(true, Ordering::Relaxed);
        let others = others.map(|other| other.join().unwrap());
        result.unwrap_or_else(|failure| panic::resume_unwind(failure));
        wait_until("what was held is released", || (held() == before).then_some(()));
        let end = |(mut other, said): (Client, u64)| {
            assert!(other.end().rest().is_empty(), "an answer to nothing");
            said
        };
        others.into_iter().map(end).sum()
    })
}

/// Several at a time talk through a way that ends many of them early. What became of each, and of how many bytes.
fn talk_through(proxy: &Proxy, seed: u64) -> Vec<(Fate, u64)> {
    thread::scope(|scope| {
        let talking = [0, 1, 2, 3].map(|lane| {
            scope.spawn(move || {
                let mut random = Random::new(seed, lane);
                let one = |_| {
                    let (client, fate) = proxy.client();
                    let said = text(&mut random, MESSAGE);
                    talk(client, fate, said.as_bytes(), <[u8]>::to_vec);
                    (fate, said.len() as u64)
                };
                (0..TALKS / 4).map(one).collect::<Vec<_>>()
            })
        });
        talking.into_iter().flat_map(|talking| talking.join().unwrap()).collect()
    })
}

/// Every connection for which the seed had a fault met it, in both directions.
fn assert_met(fault: [u64; 2], meant: impl Iterator<Item = Way> + Clone) {
    let meant = [Way::There, Way::Back].map(|way| meant.clone().filter(|other| *other == way).count() as u64);
    assert!(meant.iter().all(|count| *count > 0), "the seed has nothing for one of the ways: {meant:?}");
    assert_eq!(fault, meant);
}

#[test]
fn what_is_cut_is_answered_as_far_as_it_came_and_nobody_else_notices() {
    let seed = seed();
    for service in ["echo", "lines"] {
        let server = Server::start(&[&["--service", service, "--prefix", ""][..], &ALL_READY].concat());
        let proxy = Proxy::to(server.socket_addr(), Faults { cut: 60, within: MESSAGE as u64, ..BUMPY }, seed);
        let mut talks = Vec::new();
        let beside = beside_two_others(&server, threads_and_descriptors, || talks = talk_through(&proxy, seed));
        assert_met(proxy.done().cut, talks.iter().filter_map(|(fate, _)| fate.is_cut()));
        let ended = server.stop();
        assert!(ended.status.success(), "{ended:?}");
        let passed = talks.iter().map(|(fate, said)| if let Fate::Cut(Way::There, at) = fate { at } else { said });
        assert_eq!(ended.accounts.of("in"), beside + passed.sum::<u64>(), "{service}");
        assert_eq!(ended.accounts.of("out"), ended.accounts.of("in"), "{service}");
        assert_eq!(ended.log.matches("ended (finished)").count() as u64, TALKS + 2, "{service}");
    }
}

#[test]
fn what_is_reset_on_the_way_is_the_business_of_nobody_else() {
    let seed = seed();
    for service in ["echo", "lines"] {
        let server = Server::start(&[&["--service", service, "--prefix", ""][..], &ALL_READY].concat());
        let proxy = Proxy::to(server.socket_addr(), Faults { reset: 60, within: MESSAGE as u64, ..BUMPY }, seed);
        let mut talks = Vec::new();
        beside_two_others(&server, threads_and_descriptors, || talks = talk_through(&proxy, seed));
        let done = proxy.done();
        assert_met(done.reset, talks.iter().filter_map(|(fate, _)| fate.is_reset()));
        let ended = server.stop();
        assert!(ended.status.success(), "{ended:?}");
        assert_eq!(ended.accounts.of("served"), TALKS + 2);
        // In the middle of a message the server must notice; at the end of an answer it may have gone already.
        let noticed = ["ended (reset)", "ended (broken-pipe)"].map(|end| ended.log.matches(end).count() as u64);
        let noticed = noticed.iter().sum::<u64>();
        assert!(noticed >= done.reset[0] && noticed <= done.reset[0] + done.reset[1], "{noticed} of {done:?}");
    }
}

#[test]
fn pages_and_conversations_that_are_cut_or_reset_leave_nothing_behind() {
    let (seed, site) = (seed(), Site::start(&["--service", "lines", "--prefix", ""]));
    let faults = Faults { piece: 99, cut: 45, reset: 45, within: 400, ..Faults::default() };
    let proxy = Proxy::to(site.page, faults, seed);
    let (mut staying, mut met) = (Ws::connect(site.page, "/chat"), Vec::new());
    beside_two_others(&site.server, only_descriptors, || {
        for number in 0..40 {
            let (mut client, fate) = proxy.client();
            met.push(fate);
            // Longer than anything ends early: a page, and a handshake with all that is said after it.
            let request = if number % 2 == 0 {
                format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Filler: {}\r\n\r\n", "x".repeat(400))
            } else {
                handshake("/live", &format!("X-Filler: {}\r\n", "x".repeat(400)))
            };
            let sent = client.0.write_all(request.as_bytes());
            if fate == Fate::Whole {
                sent.unwrap();
                assert!(client.read(12).starts_with(b"HTTP/1.1 "));
            } else {
                let _ = client.rest_and_end();
            }
        }
    });
    staying.say("nobody else is here");
    staying.send(FIN | CLOSE, 1000u16.to_be_bytes());
    assert_eq!(staying.close_code(), 1000);
    assert_met(proxy.done().cut, met.iter().filter_map(Fate::is_cut));
    assert_met(proxy.done().reset, met.iter().filter_map(Fate::is_reset));
    assert!(site.server.stop().status.success());
}

#[test]
fn the_same_seed_breaks_the_same_places_and_another_breaks_others() {
    let server = Server::start(&["--service", "echo"]);
    let breaks = |seed| {
        let proxy = Proxy::to(server.socket_addr(), Faults { cut: 50, within: 900, ..BUMPY }, seed);
        let said = text(&mut Random::new(1, 1), 1000);
        let one = |_| {
            let (client, fate) = proxy.client();
            talk(client, fate, said.as_bytes(), <[u8]>::to_vec);
            fate
        };
        ((0..20).map(one).collect::<Vec<Fate>>(), proxy.done())
    };
    let first = breaks(1);
    assert_eq!(first, breaks(1));
    assert_ne!(first.0, breaks(2).0);
}
