//! The service `chat`: a line goes to everyone else in the room, whether they have come over a plain socket or with
//! a browser; and one who does not listen is ended, alone.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::thread;
use std::time::{Duration, Instant};

use socket_steps::connection::State;
use socket_steps::deadline::Timeouts;
use socket_steps::room::Room;
use socket_steps::server::Config;
use socket_steps::services;
use socket_steps::stats::CloseReason;
use support::kit::Kit;
use support::trace::Trace;
use support::web::{FIN, PING, PONG, Site, TEXT, Ws};
use support::{BOUND, Client, wait_until};

const GREETING: &str = "안녕하세요, 여러분!\n";

/// A room in this process.
fn room(config: Config, limit: usize) -> Kit {
    Kit::serve(config, services::chat(Room::default(), limit))
}

/// Clients that are in the room: whoever waits for its next line has come in.
fn members<const COUNT: usize>(kit: &Kit) -> [Client; COUNT] {
    let members = std::array::from_fn(|_| kit.client());
    wait_until_in(kit, COUNT);
    members
}

fn wait_until_in(kit: &Kit, count: usize) {
    wait_until("all are in", || {
        let connections = kit.handle().snapshot().connections;
        (connections.len() == count && connections.iter().all(|one| one.state == State::Idle)).then_some(())
    });
}

#[test]
fn a_line_goes_to_everyone_else_and_to_nobody_twice() {
    let kit = room(Config::default(), 1000);
    let [mut one, mut two, mut three] = members(&kit);
    one.send(GREETING);
    two.expect(GREETING);
    three.expect(GREETING);
    two.send("two\n\nlines\n");
    one.expect("two\n\nlines\n");
    three.expect("two\n\nlines\n");
    // A line in pieces, cut in the middle of a character, is one line; the last needs no newline.
    let bytes = GREETING.as_bytes();
    three.send(&bytes[..4]);
    one.send("meanwhile\n");
    two.expect("meanwhile\n");
    three.send(&bytes[4..]).send("the last").end();
    one.expect(GREETING).expect("the last\n");
    two.expect(GREETING).expect("the last\n");
    // It has heard what the others said, and not itself.
    assert_eq!(three.rest_as_text(), "meanwhile\n");
    assert!(one.end().rest().is_empty() && two.end().rest().is_empty());
    kit.wait_for_end(CloseReason::Finished, 3);
    let summary = kit.stop();
    assert_eq!((summary.served, summary.closed), (3, 3));
}

#[test]
fn sockets_and_browsers_are_in_the_same_room() {
    let site = Site::start(&["--service", "chat"]);
    let mut browser = Ws::connect(site.page, "/chat");
    let mut other = Ws::connect(site.page, "/chat");
    let mut plain = site.server.client();
    // What it says arrives only once it is in: then it hears the others, too.
    plain.send(GREETING);
    assert_eq!(browser.hear(), GREETING.trim_end());
    assert_eq!(other.hear(), GREETING.trim_end());
    browser.say("안녕!");
    plain.expect("안녕!\n");
    assert_eq!(other.hear(), "안녕!");
    // A message with newlines is lines; an empty one is an empty line; what is no text is shown as well as it goes.
    other.say("one\ntwo\n").say("");
    plain.expect("one\ntwo\n\n");
    assert_eq!([browser.hear(), browser.hear(), browser.hear()], ["one", "two", ""]);
    plain.send(b"caf\xe9 \x1b[2J\r\n");
    assert_eq!(browser.hear(), "caf\u{fffd} \u{1b}[2J\r");
    // In fragments it is one message.
    browser.send(TEXT, "in ").send(FIN | PING, "").send(FIN, "parts");
    assert_eq!(browser.next().first, FIN | PONG);
    plain.expect("in parts\n");
    assert!(plain.end().rest().is_empty());
    let ended = site.server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((ended.accounts.of("accepted"), ended.accounts.of("closed")), (1, 1), "browsers are not counted");
}

#[test]
fn on_a_server_of_another_service_the_room_has_browsers_only() {
    let site = Site::start(&["--service", "echo"]);
    let (mut one, mut two) = (Ws::connect(site.page, "/chat"), Ws::connect(site.page, "/chat"));
    let mut plain = site.server.client();
    plain.send(GREETING).expect(GREETING);
    one.say("hello");
    assert_eq!(two.hear(), "hello");
}

#[test]
fn a_member_that_does_not_read_is_ended_and_the_others_miss_nothing() {
    // Nobody waits for the write deadline here.
    let timeouts = Timeouts { write: Some(4 * BOUND), ..Timeouts::default() };
    let kit = room(Config { timeouts, ..Config::default() }, 100_000);
    let [mut says, mut hears] = members(&kit);
    let slow = Client::with_a_small_window(kit.socket_addr());
    wait_until_in(&kit, 3);
    let text = "x".repeat(60_000);
    let mut lines = 0;
    while kit.ended(CloseReason::Write) == 0 {
        let line = format!("{lines} {text}\n");
        says.send(&line);
        hears.expect(&line);
        lines += 1;
        assert!(lines < 10_000, "it is never ended");
    }
    assert!(lines > 10, "it was not slow: {lines} lines");
    // It is told by a reset that it has missed something.
    slow.wait_for_hang_up();
    let mut slow = slow;
    assert!(slow.rest_and_end().1.is_err());
    says.send(GREETING);
    hears.expect(GREETING);
    drop((says, hears));
    let summary = kit.stop();
    assert_eq!((summary.served, summary.closed), (3, 3));
}

#[test]
fn many_who_do_not_read_silence_the_room_no_longer_than_one() {
    const MUTE: usize = 40;
    let timeouts = Timeouts { write: Some(4 * BOUND), ..Timeouts::default() };
    let kit = room(Config { timeouts, ..Config::default() }, 100_000);
    let [mut says, mut hears] = members(&kit);
    let mute: Vec<Client> = (0..MUTE).map(|_| Client::with_a_small_window(kit.socket_addr())).collect();
    wait_until_in(&kit, MUTE + 2);
    let line = "x".repeat(60_000) + "\n";
    // They fill up together. A moment for each of them would be four seconds.
    let mut longest = Duration::ZERO;
    while kit.ended(CloseReason::Write) < MUTE as u64 {
        let began = Instant::now();
        says.send(&line);
        hears.expect(&line);
        longest = longest.max(began.elapsed());
        assert!(longest < Duration::from_secs(2), "the room was silent for {longest:?}");
    }
    drop(mute);
    drop((says, hears));
    kit.stop();
}

#[test]
fn a_member_that_stalls_is_ended_at_the_write_deadline() {
    let limit = Duration::from_millis(500);
    let timeouts = Timeouts { write: Some(limit), ..Timeouts::default() };
    let kit = room(Config { timeouts, ..Config::default() }, 1 << 20);
    let [mut says, mut hears] = members(&kit);
    let slow = Client::with_a_small_window(kit.socket_addr());
    wait_until_in(&kit, 3);
    let began = Instant::now();
    // More than the kernel holds for it, but not more than its outbox may hold.
    let line = "x".repeat(1_000_000) + "\n";
    let mut said = 0;
    while kit.ended(CloseReason::Write) == 0 {
        if said < 8 {
            says.send(&line);
            hears.expect(&line);
            said += 1;
        }
        assert!(began.elapsed() < BOUND, "it is never ended");
    }
    assert!(began.elapsed() >= limit);
    says.send(GREETING);
    hears.expect(GREETING);
    drop(slow);
    drop((says, hears));
    kit.stop();
}

#[test]
fn a_burst_reaches_everyone_who_reads() {
    let kit = room(Config::default(), 1000);
    let [mut says, one, two] = members(&kit);
    let burst: String =
        (0..60_000).map(|line| format!("line {line} of a long text that somebody has pasted\n")).collect();
    let hears = |mut client: Client| {
        let length = burst.len();
        thread::spawn(move || {
            let bytes = client.read(length);
            (bytes, client)
        })
    };
    let (one, two) = (hears(one), hears(two));
    says.send(&burst);
    for listener in [one, two] {
        let (heard, mut client) = listener.join().unwrap();
        assert!(heard == burst.as_bytes(), "not what was said");
        assert!(client.end().rest().is_empty());
    }
}

#[test]
fn a_line_that_is_too_long_or_too_slow_ends_its_speaker_alone() {
    let timeouts = Timeouts { message: Some(Duration::from_millis(300)), ..Timeouts::default() };
    let kit = room(Config { timeouts, ..Config::default() }, 10);
    let [mut one, mut two, mut three] = members(&kit);
    one.send("0123456789\n");
    two.expect("0123456789\n");
    three.expect("0123456789\n");
    assert_eq!(one.send("0123456789x").rest_as_text(), "too long: a line may have at most 10 bytes\n");
    kit.wait_for_end(CloseReason::Rejected, 1);
    let began = Instant::now();
    assert!(two.send("half").rest().is_empty());
    assert!(began.elapsed() >= Duration::from_millis(300));
    kit.wait_for_end(CloseReason::Message, 1);
    // What was said of that line is not the others' business.
    let mut four = kit.client();
    wait_until_in(&kit, 2);
    four.send("4\n");
    three.expect("4\n");
    drop((three, four));
    kit.stop();
}

#[test]
fn a_silent_member_stays_while_it_is_spoken_to() {
    let limit = Duration::from_millis(600);
    let timeouts = Timeouts { idle: Some(limit), ..Timeouts::default() };
    let kit = room(Config { timeouts, ..Config::default() }, 1000);
    let [mut hears, mut says] = members(&kit);
    let began = Instant::now();
    // Three times as long as it may be silent, it is, but for what it is told.
    while began.elapsed() < 3 * limit {
        says.send("tick\n");
        hears.expect("tick\n");
        thread::sleep(limit / 10);
    }
    // Then nobody says anything, and both go.
    assert!(hears.rest().is_empty() && says.rest().is_empty());
    kit.wait_for_end(CloseReason::Idle, 2);
    kit.stop();
}

#[test]
fn a_stop_ends_the_silent_and_lets_a_line_be_finished() {
    let kit = room(Config { drain: BOUND, ..Config::default() }, 1000);
    let [mut says, mut silent, mut other] = members(&kit);
    says.send("half a li");
    wait_until("it has arrived", || {
        let connections = kit.handle().snapshot().connections;
        // Not idle: what is waited for now is the rest of a line.
        connections.iter().any(|one| one.bytes_in == 9 && one.state == State::Active).then_some(())
    });
    let began = Instant::now();
    kit.handle().stop();
    assert!(silent.rest().is_empty() && other.rest().is_empty());
    assert_eq!(kit.handle().snapshot().now, 1, "the one that is in the middle of a line");
    says.send("ne\n");
    assert!(says.rest().is_empty());
    let summary = kit.stop();
    assert!(began.elapsed() < BOUND);
    assert_eq!((summary.served, summary.closed, summary.bytes_in), (3, 3, 12));
}

#[test]
fn a_member_for_whom_no_thread_can_be_started_is_told_and_its_place_is_given_back() {
    // Counted for each thread by itself. The only worker starts a thread for each client; at the start of the server
    // no thread starts so many.
    const CLIENT: usize = 40;
    let fault = format!("clone3,clone:error=EAGAIN:when={CLIENT}");
    let options = ["--service=chat", "--min-workers=1", "--max-connections=1", "--when-full=wait"];
    let Some((server, trace)) = Trace::of_a_server(&fault, &options) else { return };
    for number in 1..=CLIENT + 5 {
        let told = server.client().end().rest_as_text();
        let expected = if number == CLIENT { "busy: no thread could be started, try again later\n" } else { "" };
        assert_eq!(told, expected, "{number}");
    }
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ended.accounts.of("served"), CLIENT as u64 + 5);
    assert!(ended.log.contains(&format!("#{CLIENT} ended (error)")), "{}", ended.log);
    trace.assert_injected(1..);
}
