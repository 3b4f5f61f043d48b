//! The live page shows what is true, as soon as it is; it costs the server nothing, and ends with it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use support::needs::skip;
use support::web::{FIN, PING, PONG, Site, Ws};
use support::{
    BOUND, Client, PREFIX, STOPPING, Server, after, descriptors, has_program, program, run, threads, wait_until,
};

const FIELDS: [&str; 13] = [
    "accepted",
    "bytes_in",
    "bytes_out",
    "connections",
    "ended",
    "events_dropped",
    "failed",
    "now",
    "peak",
    "refused",
    "served",
    "threads",
    "uptime_s",
];

fn numbers(site: &Site) -> Value {
    serde_json::from_str(&site.get("/stats.json").body).unwrap()
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The next state that a viewer is told.
fn told(viewer: &mut Ws) -> Value {
    serde_json::from_str(&viewer.hear()).unwrap()
}

/// Reads on until the viewer is told this.
fn told_that(viewer: &mut Ws, is_so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let state = told(viewer);
        if is_so(&state) {
            return state;
        }
        assert!(began.elapsed() < BOUND, "never told: {state}");
    }
}

#[test]
fn the_numbers_are_those_of_the_server_under_exactly_these_names() {
    let site = Site::start(&["--service", "lines"]);
    let mut stays = site.server.client();
    stays.say_hello();
    let mut goes = site.server.client();
    goes.say_hello();
    goes.end();
    assert!(goes.rest().is_empty());
    let mut resets = site.server.client();
    resets.send("half");
    wait_until("it has arrived", || (numbers(&site)["bytes_in"] == 16).then_some(()));
    resets.reset();
    let state = wait_until("two have ended", || {
        let state = numbers(&site);
        (state["ended"] == json!({"finished": 1, "reset": 1})).then_some(state)
    });
    assert_eq!(keys(&state), BTreeSet::from(FIELDS));
    for (name, value) in [("now", 1), ("peak", 2), ("accepted", 3), ("served", 3), ("refused", 0), ("failed", 0)] {
        assert_eq!(state[name], value, "{name} in {state}");
    }
    assert_eq!(
        (&state["bytes_in"], &state["bytes_out"], &state["events_dropped"]),
        (&json!(16), &json!(42), &json!(0))
    );
    assert!(state["threads"].as_u64() >= Some(4) && state["uptime_s"].as_f64() > Some(0.0));
    let one = &state["connections"][0];
    assert_eq!(keys(one), BTreeSet::from(["age_s", "bytes_in", "bytes_out", "id", "peer", "state"]));
    assert_eq!(one["peer"], stays.0.local_addr().unwrap().to_string());
    assert_eq!(
        (&one["id"], &one["state"], &one["bytes_in"], &one["bytes_out"]),
        (&json!(1), &json!("idle"), &json!(6), &json!(21))
    );
    let seconds = |object: &Value, name: &str| object[name].as_f64().unwrap();
    // The one is looked at a moment after the other.
    assert!(seconds(one, "age_s") > 0.0 && seconds(one, "age_s") < seconds(&state, "uptime_s") + 1.0);
    // Whoever watches is told the same.
    let mut viewer = Ws::connect(site.page, "/live");
    let mut live = told(&mut viewer);
    let mut state = numbers(&site);
    for object in [&mut live, &mut state] {
        object["uptime_s"] = json!(0);
        object["connections"][0]["age_s"] = json!(0);
        object["threads"] = json!(0);
    }
    assert_eq!(live, state);
}

#[test]
fn whoever_watches_is_told_within_a_second_or_so() {
    let site = Site::start(&[]);
    let mut viewer = Ws::connect(site.page, "/live");
    assert_eq!(told(&mut viewer)["now"], 0);
    for round in 1..=3 {
        let began = Instant::now();
        let client = site.server.client();
        let peer = client.0.local_addr().unwrap().to_string();
        let state = told_that(&mut viewer, |state| state["now"] == 1);
        assert_eq!((&state["connections"][0]["peer"], &state["served"]), (&json!(peer), &json!(round)));
        drop(client);
        let state = told_that(&mut viewer, |state| state["now"] == 0);
        assert_eq!((&state["ended"]["finished"], &state["connections"]), (&json!(round), &json!([])));
        // Two states; a busy machine may take its time.
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
}

#[test]
fn while_nobody_watches_nothing_is_done() {
    let site = Site::start(&[]);
    let mut viewer = Ws::connect(site.page, "/live");
    told(&mut viewer);
    drop(viewer);
    let pid = site.server.pid();
    // What is looked for is that nothing happens.
    let quiet = || {
        let before = support::wake_ups(pid);
        thread::sleep(Duration::from_secs(1));
        support::wake_ups(pid) - before
    };
    wait_until("it is quiet", || (quiet() <= 10).then_some(()));
}

#[test]
fn a_full_server_can_still_be_watched() {
    let site = Site::start(&["--service", "echo", "--min-workers", "1", "--max-connections", "1"]);
    let mut only = site.server.client();
    only.send("in").expect("in");
    let mut viewer = Ws::connect(site.page, "/live");
    for _ in 0..5 {
        assert!(site.server.client().rest_as_text().starts_with("busy: "));
    }
    let state = told_that(&mut viewer, |state| state["refused"] == 5);
    assert_eq!((&state["now"], &state["served"], &state["accepted"]), (&json!(1), &json!(1), &json!(6)));
    assert_eq!(site.get("/").status, 200);
    only.send("still").expect("still");
}

#[test]
fn a_full_page_leaves_the_server_alone() {
    let site = Site::start(&["--service", "echo"]);
    let mut viewers: Vec<Ws> = (0..32).map(|_| Ws::connect(site.page, "/live")).collect();
    assert!(Client::connect(site.page).rest_as_text().starts_with("busy: "));
    let mut client = site.server.client();
    client.send("hello").expect("hello");
    for viewer in &mut viewers {
        told_that(viewer, |state| state["now"] == 1);
    }
    drop(viewers);
    wait_until("there is room again", || {
        let mut client = Client::connect(site.page);
        client.send("GET /stats.json HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.rest_and_end().0.starts_with(b"HTTP/1.1 200").then_some(())
    });
    let ended = site.server.stop();
    assert_eq!((ended.accounts.of("accepted"), ended.accounts.of("refused")), (1, 0), "the page is not counted");
}

#[test]
fn a_viewer_that_does_not_read_is_ended_at_the_write_deadline_and_costs_the_others_nothing() {
    const WRITE: Duration = Duration::from_secs(1);
    let site = Site::start(&["--service", "echo", "--write-timeout", "1s", "--idle-timeout", "5m"]);
    let mut clients: Vec<Client> = (0..200).map(|_| site.server.client()).collect();
    let mut viewer = Ws::connect(site.page, "/live");
    told_that(&mut viewer, |state| state["now"] == 200);
    let began = Instant::now();
    // On an ordinary connection over loopback, the kernels have room for a minute's worth of states.
    let slow: Vec<Ws> = (0..10).map(|_| Ws::with_little_room_on_the_way(site.page, "/live")).collect();
    let ending = thread::spawn(move || {
        slow.iter().for_each(|slow| slow.0.wait_for_hang_up());
        (slow, began.elapsed())
    });
    // Meanwhile the others are told and answered as if nothing were.
    let mut heard = 0;
    while !ending.is_finished() {
        let state = viewer.hear();
        heard += state.len();
        let state: Value = serde_json::from_str(&state).unwrap();
        assert_eq!(state["connections"].as_array().unwrap().len(), 200);
        clients[0].send("hello").expect("hello");
    }
    let (slow, took) = ending.join().unwrap();
    // Not because nothing was heard of them: that would be after a minute.
    assert!(took >= WRITE && took < BOUND / 2, "{took:?}");
    for mut slow in slow {
        let (came, end) = slow.0.rest_and_end();
        assert!(came.len() < heard, "{} bytes, and who reads has had {heard}: it was not behind", came.len());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "what it was told has a gap");
    }
    assert_eq!(told(&mut viewer)["now"], 200);
}

#[test]
fn a_stop_with_pages_chats_and_transfers_is_as_clean_as_without() {
    let site = Site::start(&["--service", "echo", "--drain", "60s", "--write-timeout", "60s"]);
    let mut viewers: Vec<Ws> =
        ["/live", "/chat", "/live", "/chat"].iter().map(|path| Ws::connect(site.page, path)).collect();
    let mut client = site.server.client();
    client.send("hello").expect("hello");
    // A transfer that goes on: until its client reads, the server is in the middle of an answer.
    let mut transfers = Client::with_a_small_window(site.server.socket_addr());
    let mut writer = transfers.0.try_clone().unwrap();
    writer.set_nonblocking(true).unwrap();
    let mut sent = 0_u64;
    let mut earlier = Value::Null;
    wait_until("neither side can write", || {
        let piece = [b'x'; 64 * 1024];
        let before = sent;
        while let Ok(count) = std::io::Write::write(&mut writer, &piece) {
            sent += count as u64;
        }
        thread::sleep(Duration::from_millis(100));
        let mut now = numbers(&site)["connections"][1].take();
        now["age_s"] = json!(0);
        let is_stuck = sent == before && now["state"] == "active" && now == earlier;
        earlier = now;
        is_stuck.then_some(())
    });
    writer.set_nonblocking(false).unwrap();

    site.server.signal(Signal::TERM);
    site.server.wait_for_log(STOPPING);
    // Until all have gone, one can watch them go.
    let state = told_that(&mut viewers[0], |state| state["now"] == 1);
    assert_eq!(state["ended"]["stopped"], 1);
    assert_eq!(site.get("/stats.json").status, 200);
    assert!(client.rest().is_empty());
    let (echoed, end) = transfers.rest_and_end();
    assert!(end.is_ok() && echoed.len() as u64 <= sent && echoed.len() > 1_000_000, "{} {end:?}", echoed.len());
    for viewer in &mut viewers {
        assert_eq!(viewer.close_code(), 1001);
    }
    drop(viewers);
    let ended = site.server.wait();
    assert!(ended.status.success(), "{ended:?}");
    let echoed = echoed.len() as u64;
    assert_eq!((ended.accounts.of("closed"), ended.accounts.of("out")), (2, echoed + 5));
    assert!(!ended.log.contains("does not return"), "{}", ended.log);
}

#[test]
fn viewers_that_have_gone_leave_no_thread_and_no_descriptor() {
    let site = Site::start(&[]);
    let pid = site.server.pid();
    // Both of its servers have begun, and have what they need.
    assert_eq!(site.get("/").status, 200);
    site.server.client().send("hello").expect(format!("{PREFIX}hello"));
    let count = || (threads(pid), descriptors(pid));
    let before = wait_until("nothing changes", || {
        let earlier = count();
        thread::sleep(Duration::from_millis(100));
        (count() == earlier).then_some(earlier)
    });
    let mut viewers: Vec<Ws> = (0..20).map(|_| Ws::connect(site.page, "/live")).collect();
    viewers.iter_mut().for_each(|viewer| drop(told(viewer)));
    assert!(threads(pid) >= before.0 + 30, "two a viewer, one of them perhaps ready before");
    // Some say goodbye, some hang up, some reset.
    for (at, mut viewer) in viewers.into_iter().enumerate() {
        match at % 3 {
            0 => {
                viewer.send(FIN | support::web::CLOSE, [3, 232]);
                assert_eq!(viewer.close_code(), 1000);
            }
            1 => drop(viewer),
            _ => viewer.0.reset(),
        }
    }
    // A spare thread stays for five seconds.
    wait_until("all is as before", || {
        let now = count();
        (now.0 <= before.0 && now.1 <= before.1).then_some(())
    });
}

#[test]
fn where_its_usual_port_is_taken_the_server_does_without_a_page() {
    // Either this has it, or somebody else.
    let _other = TcpListener::bind("127.0.0.1:8081");
    let mut server = Server::from_command(program().args(["--listen", "127.0.0.1:0", "--service", "echo"]));
    let line = server.wait_for_log("no live page");
    assert!(line.contains("cannot listen on 127.0.0.1:8081") && line.contains("WARN"), "{line}");
    server.client().send("hello").expect("hello");
    server.signal(Signal::TERM);
    assert!(server.next_line().unwrap().starts_with("accepted 1 = "), "no page is announced");
    assert!(server.wait_for_status().success());
}

#[test]
fn a_page_that_is_asked_for_and_cannot_be_had_is_an_error() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap().to_string();
    for (options, texts) in [
        (&["--page", taken.as_str()][..], &["the live page", "cannot listen on", taken.as_str()][..]),
        (&["--page", "unix:/tmp/page"], &["the live page", "a browser needs HOST:PORT"]),
        (&["--page", "8081"], &["the live page", "the port is missing"]),
        (&["--page", "192.0.2.1:8081"], &["the live page", "not an address of this machine"]),
        (&["--page", "127.0.0.1:0", "--no-page"], &["--page", "--no-page"]),
        (&["--page-host", "a.example", "--no-page"], &["--page-host", "--no-page"]),
    ] {
        let (status, output, errors) = run(program().args(["--listen", "127.0.0.1:0"]).args(options), b"");
        assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{options:?}: {errors}");
        for text in texts {
            assert!(errors.lines().last().unwrap().contains(text), "{options:?}: no {text:?} in {errors}");
        }
    }
}

#[test]
fn a_machine_without_room_for_the_page_is_served_without_it() {
    let with_few_descriptors = |options: &[&str]| {
        let mut shell = after("ulimit -n 250", program().get_program());
        shell.args(["--listen", "127.0.0.1:0"]).args(options);
        shell
    };
    let server = Server::from_command(&mut with_few_descriptors(&[]));
    server.wait_for_log("no live page: this machine's limits leave no room for it");
    assert!(server.stop().status.success());
    let (status, _, errors) = run(&mut with_few_descriptors(&["--page", "127.0.0.1:0"]), b"");
    assert_eq!(status.code(), Some(2));
    assert!(errors.contains("the live page: this machine's limits"), "{errors}");
}

#[test]
fn the_page_needs_nothing_from_elsewhere_and_puts_in_nothing_but_text() {
    let site = Site::start(&[]);
    let [page, style, script] = ["/", "/page.css", "/page.js"].map(|path| site.get(path).body);
    for text in [&page, &style, &script] {
        let from_elsewhere = text.match_indices("//").filter(|(at, _)| text[..*at].ends_with(':')).count();
        assert_eq!(from_elsewhere, 0, "an address of another host");
        for word in ["@import", "url(", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!text.contains(word), "{word}");
        }
    }
    // What the policy forbids is not there to be blocked.
    assert!(!page.contains("style=") && !page.contains("onclick") && !page.contains("<style"));
    for landmark in
        ["<header>", "<main>", "<footer>", "lang=\"en\"", "scope=\"col\"", "role=\"status\"", "role=\"log\""]
    {
        assert!(page.contains(landmark), "{landmark}");
    }
}

#[test]
fn nodes_own_websocket_watches_and_talks() {
    // Node 20 has it behind this flag; later ones have it, and still know the flag.
    const NODE: [&str; 3] = ["--experimental-websocket", "--no-warnings", "-e"];
    if !has_program("node") {
        return;
    }
    let (_, found, _) = run(Command::new("node").args(NODE).arg("console.log(typeof WebSocket)"), b"");
    if found != "function" {
        return skip("node-websocket", "Node has one from 20.10 on");
    }
    let site = Site::start(&[]);
    let mut talks = Ws::connect(site.page, "/chat");
    let mut command = Command::new("node");
    command.args(NODE).arg(format!(
        "const live = new WebSocket('ws://{0}/live');
         live.onmessage = (event) => {{
             console.log(JSON.parse(event.data).now, JSON.stringify(live.extensions));
             live.close(1000);
         }};
         live.onclose = (event) => {{
             console.log('close', event.code, event.wasClean);
             const chat = new WebSocket('ws://{0}/chat');
             chat.onopen = () => chat.send('안녕');
             chat.onmessage = (event) => {{ console.log(event.data); chat.close(); }};
             chat.onclose = (event) => console.log('close', event.wasClean);
         }};",
        site.page
    ));
    let running = thread::spawn(move || run(&mut command, b""));
    assert_eq!(talks.hear(), "안녕");
    talks.say("녕안").send(FIN | PING, "");
    assert_eq!(talks.next().first, FIN | PONG);
    let (status, output, errors) = running.join().unwrap();
    assert!(status.success(), "{errors}");
    assert_eq!(output, "0 \"\"\nclose 1000 true\n녕안\nclose true");
}
