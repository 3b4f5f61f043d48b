//! Row B23: after an hour of everything at once the server is as it was.

use std::env;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket_steps::deadline::Timeouts;
use socket_steps::lines::LineBuffer;
use socket_steps::server::Config;
use socket_steps::socket::Socket;

use crate::proxy::{Faults, Proxy};
use crate::random::Random;
use crate::support::figures::figure;
use crate::support::figures::seed;
use crate::support::kit::{is_to_serve, serve};
use crate::support::web::{Site, get};
use crate::support::{Server, program, resident};
use crate::visitors::{DEADLINE, IDLE, MAX_MESSAGE, MESSAGE, PER_SOURCE, QUICK, SLOW, Tally, Town};
use crate::watched::Watched;

const TASTE: &str = "soak::a_taste_of_the_soak";

/// Quick visits a second, and how many share them. With the floods they are 5 million connections an hour.
const RATE: u32 = 1300;
const AT_ONCE: u64 = 16;

/// How often it is said how far it has got.
const NEWS: Duration = Duration::from_secs(30);

/// The finished server, one of the kit with a handler that panics, and everyone who visits them.
struct Soak {
    town: Town,
    servers: [Watched; 2],
    began: Instant,
    wholly: bool,
}

impl Soak {
    /// `wholly`: so that threads come and go, and are waited for.
    fn new(seed: u64, wholly: bool) -> Soak {
        let (deadline, limit, per_source) = (format!("{DEADLINE:?}"), MAX_MESSAGE.to_string(), PER_SOURCE.to_string());
        let mut command: Command = program();
        command.args(["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--service", "lines"]);
        command.args(["--max-message", &limit, "--per-source", &per_source, "--max-connections", "128"]);
        command.args(["--message-timeout", &deadline, "--write-timeout", &deadline]);
        let site = Site::of(Server::from_command(&mut command));
        let panics = Server::of_test(TASTE);
        let faults = Faults {
            piece: 200,
            late: 5,
            late_by: Duration::from_millis(3),
            cut: 15,
            reset: 15,
            within: MESSAGE as u64,
        };
        let town = Town {
            lines: site.server.socket_addr(),
            page: site.page,
            panics: panics.socket_addr(),
            proxy: Proxy::to(site.server.socket_addr(), faults, seed),
            seed,
            tally: Tally::default(),
            over: false.into(),
            slow_left: 0.into(),
        };
        // Whatever is made for the first client has been made then.
        drop(get(town.page, "/stats.json"));
        let servers = [Watched::of("the server", site.server), Watched::of("the one that panics", panics)];
        for count in [&town.tally.to_lines, &town.tally.to_panics] {
            count.fetch_add(1, Relaxed);
        }
        Soak { town, servers, began: Instant::now(), wholly }
    }

    /// Everyone comes, for so long; each of them at least once. How long it took.
    fn go_on(&mut self, time: Duration) -> Duration {
        let (town, began) = (&self.town, Instant::now());
        town.over.store(false, SeqCst);
        town.slow_left.store(SLOW.iter().map(|(count, ..)| count).sum(), SeqCst);
        thread::scope(|scope| {
            for lane in 0..AT_ONCE {
                scope.spawn(move || come_quickly(town, lane));
            }
            for (kind, (count, who, what)) in SLOW.into_iter().enumerate() {
                for one in 0..count {
                    scope.spawn(move || {
                        let _guard = EndsForAll(town);
                        let _here = IsHere(town);
                        let mut random = Random::new(town.seed, 1000 * (kind as u64 + 1) + one);
                        let source = Ipv4Addr::new(127, 0, 2 + kind as u8, 1 + one as u8);
                        while {
                            town.visit(who, what, &mut random, source);
                            !town.over.load(SeqCst)
                        } {}
                    });
                }
            }
            let mut next = Instant::now() + NEWS;
            while began.elapsed() < time && !town.over.load(SeqCst) {
                thread::sleep(Duration::from_millis(100).min(time));
                self.servers.iter_mut().for_each(Watched::read_the_log);
                if Instant::now() > next {
                    next += NEWS;
                    tell_the_news(town, &self.servers, self.began);
                }
            }
            town.over.store(true, SeqCst);
        });
        began.elapsed()
    }

    fn quiet(&mut self) -> [u64; 2] {
        self.servers.iter_mut().for_each(Watched::read_the_log);
        [0, 1].map(|one| self.servers[one].quiet(self.wholly))
    }

    /// Stops both servers. Their books must balance, and say what the visitors say. A line about all of it.
    fn end(self) -> String {
        let Soak { town, servers, .. } = self;
        let stats: Value = serde_json::from_str(&get(town.page, "/stats.json").body).unwrap();
        let [(accounts, _), (of_panics, endings)] = servers.map(Watched::stop);
        let (tally, done) = (&town.tally, town.proxy.done());
        assert_eq!(accounts.of("accepted"), tally.to_lines.load(Relaxed) + done.carried);
        assert_eq!((accounts.of("refused"), accounts.of("failed")), (tally.told.load(Relaxed), 0));
        assert_eq!(of_panics.of("accepted"), tally.to_panics.load(Relaxed));
        assert_eq!(of_panics.of("served"), tally.to_panics.load(Relaxed));

        let visits = tally.visits.lock().unwrap();
        let of = |who: &str| visits.get(who).copied().unwrap_or_default();
        for (_, who, _) in QUICK.iter().chain(&SLOW) {
            assert!(of(who) > 0, "the fault did not happen: {who}: {visits:?}");
        }
        let on_the_way = [done.pieces, done.late, done.cut[0], done.cut[1], done.reset[0], done.reset[1]];
        assert!(on_the_way.iter().all(|count| *count > 0), "a fault did not happen: {done:?}");
        assert_eq!(endings, [of("panic"), of("silence")]);
        let ended = |reason: &str| stats["ended"][reason].as_u64().unwrap_or_default();
        if stats["events_dropped"] == 0 {
            assert_eq!(ended("message"), of("drip") + of("half a line, then silence"), "{stats}");
            assert_eq!(ended("rejected"), of("endless line"), "{stats}");
            assert!(ended("write") >= of("never reading") && ended("reset") >= of("reset in a message"), "{stats}");
        }
        let visits: Vec<String> = visits.iter().map(|(who, count)| format!("{count} {who}")).collect();
        let [cut, reset] = [done.cut, done.reset].map(|count| count[0] + count[1]);
        format!("{}; on the way {cut} cut, {reset} reset, {} late", visits.join(", "), done.late)
    }

    fn connections(&self) -> u64 {
        let tally = &self.town.tally;
        tally.to_lines.load(Relaxed) + tally.to_panics.load(Relaxed) + self.town.proxy.done().carried
    }
}

/// A visitor who fails ends it for all, or the others would go on to the end of the hour.
struct EndsForAll<'a>(&'a Town);

impl Drop for EndsForAll<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.over.store(true, SeqCst);
        }
    }
}

/// One of those who take their time: the quick ones come until the last of them has gone.
struct IsHere<'a>(&'a Town);

impl Drop for IsHere<'_> {
    fn drop(&mut self) {
        self.0.slow_left.fetch_sub(1, SeqCst);
    }
}

/// Each of the quick ones once, and then whoever the dice say.
fn come_quickly(town: &Town, lane: u64) {
    let _guard = EndsForAll(town);
    let (mut random, source) = (Random::new(town.seed, lane), Ipv4Addr::new(127, 0, 1, 1 + lane as u8));
    for (_, who, what) in QUICK {
        town.visit(who, what, &mut random, source);
    }
    let mut due = Instant::now();
    while town.slow_left.load(SeqCst) > 0 {
        let mut dice = random.within(0..=QUICK.iter().map(|(share, ..)| share).sum::<u64>() - 1);
        let (_, who, what) =
            QUICK.iter().find(|(share, ..)| dice.checked_sub(*share).map(|rest| dice = rest).is_none()).unwrap();
        town.visit(who, *what, &mut random, source);
        // Not to wait for anything: this is the rate.
        due += Duration::from_secs(AT_ONCE) / RATE;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn tell_the_news(town: &Town, servers: &[Watched; 2], began: Instant) {
    let visits: u64 = town.tally.visits.lock().unwrap().values().sum();
    let memory = servers.each_ref().map(|one| resident(one.pid()));
    eprintln!("soak: {:.0} s, {visits} visits, {memory:?} KiB resident", began.elapsed().as_secs_f64());
}

fn echo_or_panic(mut socket: Socket) -> std::io::Result<()> {
    let mut lines = LineBuffer::new(100);
    while lines.read_from(&mut socket)? > 0 {
        while let Some(line) = lines.next_line()? {
            assert_ne!(line, b"panic\n", "on purpose");
        }
    }
    Ok(())
}

#[test]
fn a_taste_of_the_soak() {
    if is_to_serve(TASTE) {
        // The log says how many there were; that is enough.
        std::panic::set_hook(Box::new(|panic| log::debug!("{panic}")));
        let timeouts = Timeouts { idle: Some(IDLE), ..Timeouts::default() };
        serve(Config { timeouts, ..Config::default() }, echo_or_panic);
    }
    let mut soak = Soak::new(seed(), false);
    soak.go_on(Duration::from_millis(100));
    soak.quiet();
    println!("{} connections: {}", soak.connections(), soak.end());
}

#[test]
#[ignore = "takes as many minutes as it is told: tests/faults/run --soak 60"]
fn after_an_hour_of_everything_at_once_it_is_as_it_was() {
    let minutes: f64 =
        env::var("SOAK_MINUTES").map_or(1.0, |minutes| minutes.parse().expect("SOAK_MINUTES is a number"));
    let time = Duration::from_secs_f64(60.0 * minutes);
    let seed = seed();
    let mut soak = Soak::new(seed, true);
    let before = soak.servers[0].before;
    // In a short one, the first sixth is not enough for every thread's memory to have been used once.
    let warm_up = (time / 6).max(Duration::from_secs(30).min(time / 2));
    let first = soak.go_on(warm_up);
    let at_first = soak.quiet();
    let took = first + soak.go_on(time - warm_up);
    let in_the_end = soak.quiet();
    let connections = soak.connections();
    let what = soak.end();
    let more = [0, 1].map(|one| in_the_end[one] as i64 - at_first[one] as i64);
    let an_hour = connections as f64 / took.as_secs_f64() * 3600.0 / 1e6;
    let held = more.iter().all(|more| *more <= 1024) && an_hour >= 5.0;
    let what = format!(
        "{connections} connections in {:.1} min, {an_hour:.1} million an hour; [descriptors, threads] {before:?} again; \
         memory {:+} KiB since {:.1} min ({} KiB), and {:+} KiB where handlers panic; books balanced; {what}; seed {seed}",
        took.as_secs_f64() / 60.0,
        more[0],
        warm_up.as_secs_f64() / 60.0,
        in_the_end[0],
        more[1]
    );
    figure("B23", held, what);
}
