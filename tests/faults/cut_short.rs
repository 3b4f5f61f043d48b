//! What a bad way cuts short or resets is right as far as it came, is the business of nobody else, and leaves nothing
//! behind.

use std::io::Write;
use std::thread;

use crate::proxy::{Fate, Faults, Proxy, Way};
use crate::random::Random;
use crate::support::bystanders::{ALL_READY, beside_two_others, threads_and_descriptors};
use crate::support::figures::seed;
use crate::support::web::{CLOSE, FIN, Site, Ws, handshake};
use crate::support::{Client, Server, descriptors};
use crate::through::{BUMPY, talk, text};

/// Connections on a way that ends many of them early, and how long what is said there is at least.
const TALKS: u64 = 60;
const MESSAGE: usize = 5000;

/// The page's threads stay ready for some seconds after the last of a crowd.
fn only_descriptors(pid: u32) -> [usize; 2] {
    [0, descriptors(pid)]
}

const HELLO: &str = "hello\n";

fn say_hello(client: &mut Client) {
    client.send(HELLO).expect(HELLO);
}

/// Ends what the two have said in good order; how many bytes that was.
fn end_politely(others: [(Client, u64); 2]) -> u64 {
    let end = |(mut other, talked): (Client, u64)| {
        assert!(other.end().rest().is_empty(), "an answer to nothing");
        talked * HELLO.len() as u64
    };
    others.into_iter().map(end).sum()
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
        let others =
            beside_two_others(&server, threads_and_descriptors, say_hello, || talks = talk_through(&proxy, seed));
        let beside = end_politely(others);
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
        let others =
            beside_two_others(&server, threads_and_descriptors, say_hello, || talks = talk_through(&proxy, seed));
        end_politely(others);
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
    let others = beside_two_others(&site.server, only_descriptors, say_hello, || {
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
    end_politely(others);
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
