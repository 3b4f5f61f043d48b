//! `check` speaks WebSocket: it finds nothing wrong with what is right, and what is wrong with one fault a server, by
//! exactly the stages that explain it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;
#[path = "wrong_server/websocket.rs"]
mod wrong_server;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use serde_json::Value;
use support::web::Site;
use support::{BOUND, run};

const HANDSHAKE: &str = "ws-handshake";
const ECHO: &str = "ws-echo";
const PING: &str = "ws-ping";
const CLOSE: &str = "ws-close";
const FRAGMENTS: &str = "ws-fragments";
const REFUSED: &str = "ws-refused";
const ALL: [&str; 6] = [HANDSHAKE, ECHO, PING, CLOSE, FRAGMENTS, REFUSED];

/// The seeds of a fault: the first with all stages, the others with those that must fail.
const SEEDS: u64 = 3;

/// How many servers are judged at the same time: nearly all of it is waiting.
const AT_ONCE: usize = 12;

/// A fault, the stages that must fail, those that then cannot be judged, and what one of those that fail says.
struct Wrong {
    fault: &'static str,
    fails: &'static [&'static str],
    skips: &'static [&'static str],
    says: &'static str,
}

const fn wrong(fault: &'static str, fails: &'static [&'static str], says: &'static str) -> Wrong {
    Wrong { fault, fails, skips: &[], says }
}

impl Wrong {
    const fn skips(self, skips: &'static [&'static str]) -> Wrong {
        Wrong { skips, ..self }
    }
}

const WRONG: &[Wrong] = &[
    wrong("at another path", &[HANDSHAKE], "another path").skips(&[ECHO, PING, CLOSE, FRAGMENTS, REFUSED]),
    wrong("not HTTP", &[HANDSHAKE], "HTTP/1.1 101 Switching").skips(&[ECHO, PING, CLOSE, FRAGMENTS, REFUSED]),
    wrong("another key", &[HANDSHAKE], "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"),
    wrong("no word of an upgrade", &[HANDSHAKE], "has both fields"),
    wrong("an extension", &[HANDSHAKE], "offered no extension"),
    wrong("case matters", &[HANDSHAKE], "upper or lower"),
    wrong("a list is no word", &[HANDSHAKE], "may be a list"),
    wrong("the request in one read", &[HANDSHAKE], "may come in pieces"),
    wrong("any version", &[HANDSHAKE], "before you answer 101"),
    wrong("no key", &[HANDSHAKE], "before you answer 101"),
    wrong("any key", &[HANDSHAKE], "before you answer 101"),
    wrong("a WebSocket for everybody", &[HANDSHAKE], "before you answer 101"),
    wrong("no answer to a wrong request", &[HANDSHAKE], "refused has an answer, too"),
    wrong("says nothing", &[ECHO], "says nothing at all").skips(&[FRAGMENTS]),
    wrong("leaves the mask on", &[ECHO, PING, CLOSE], "once the mask is off").skips(&[FRAGMENTS, REFUSED]),
    wrong("masks what it sends", &[ECHO, PING, CLOSE], "Only a client masks").skips(&[FRAGMENTS, REFUSED]),
    wrong("short lengths", &[ECHO], "over 125"),
    wrong("cuts long texts", &[ECHO], "is to be heard as one"),
    wrong("no long texts", &[ECHO], "the highest first"),
    wrong("no pong", &[PING], "as soon as it is read").skips(&[REFUSED]),
    wrong("an empty pong", &[PING], "byte for byte").skips(&[REFUSED]),
    wrong("answers a pong", &[PING], "byte for byte"),
    wrong("a pong behind the message", &[PING], "between two fragments"),
    wrong("no close back", &[CLOSE], "answered with a close"),
    wrong("always 1000", &[CLOSE], "has the same code"),
    wrong("waits for the client to end", &[CLOSE], "the server, not the client, ends"),
    wrong("speaks after its close", &[CLOSE], "nothing more is said"),
    wrong("never leaves", &[CLOSE, REFUSED], "still open"),
    wrong("a message for each fragment", &[FRAGMENTS, REFUSED], "Put them together"),
    wrong("looks at each fragment", &[FRAGMENTS], "in the middle of a character"),
    wrong("only the last fragment", &[FRAGMENTS], "Put them together"),
    wrong("no fragments", &[PING, FRAGMENTS, REFUSED], "Put them together"),
    wrong("no mask", &[REFUSED], "Every frame of a client is masked"),
    wrong("reserved bits", &[REFUSED], "None was agreed on"),
    wrong("any opcode", &[REFUSED], "Opcodes 3 to 7"),
    wrong("pings in fragments", &[REFUSED], "never in fragments"),
    wrong("long pings", &[REFUSED], "at most 125 bytes"),
    wrong("opcode 0 begins", &[REFUSED], "where none has begun"),
    wrong("mixes messages", &[REFUSED], "messages are not mixed"),
    wrong("bytes as text", &[REFUSED], "A text is UTF-8"),
    wrong("mends what is no text", &[REFUSED], "is not mended"),
    wrong("reads for ever", &[REFUSED], "A server without a limit"),
    wrong("one code for all", &[REFUSED], "Every frame of a client is masked"),
    wrong("a close, and no end", &[REFUSED], "still open"),
    wrong("closes everybody", &[REFUSED], "ends its own connection"),
    wrong("dies of a wrong frame", &[REFUSED], "exit status 101"),
];

/// Played when this program is started again as a server.
#[test]
fn play_the_wrong_server() {
    if let Ok(fault) = std::env::var("WRONG_WEBSOCKET") {
        wrong_server::play(&fault);
    }
}

fn check(command: &mut Command) -> Value {
    let (status, output, errors) = run(command.arg("--json"), b"");
    assert!(matches!(status.code(), Some(0 | 1)), "{status} {errors}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_check"))
}

fn check_wrong(fault: &str, options: &[&str]) -> Value {
    let ours = std::env::current_exe().unwrap();
    let spawn = format!("{} --exact play_the_wrong_server --nocapture", shell_words::quote(ours.to_str().unwrap()));
    let mut command = program();
    command.env("WRONG_WEBSOCKET", fault).args(["--spawn", &spawn, "--path", "/", "--patience", "1200ms"]);
    check(command.args(options))
}

fn with(outcome: &str, report: &Value) -> BTreeSet<String> {
    let stages = report["stages"].as_array().unwrap().iter();
    stages.filter(|stage| stage["outcome"] == outcome).map(|stage| stage["name"].as_str().unwrap().to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn notes(report: &Value) -> Vec<&str> {
    report["stages"].as_array().unwrap().iter().filter_map(|stage| stage["note"].as_str()).collect()
}

/// Exactly the stages of WebSocket, and all of them passed.
fn passes(report: &Value) {
    assert_eq!(with("passed", report), set(&ALL), "{report:#}");
    assert_eq!(report["stages"].as_array().unwrap().len(), ALL.len(), "{report:#}");
}

#[test]
fn without_a_fault_it_passes() {
    let report = check_wrong("", &["--seed", "1"]);
    passes(&report);
    assert!(notes(&report).contains(&"a text comes back, with \"> \" in front"), "{report:#}");
}

#[test]
fn every_fault_is_found_by_the_stages_that_it_explains_with_every_seed() {
    let queue = Mutex::new((0..SEEDS).flat_map(|seed| WRONG.iter().map(move |wrong| (wrong, seed))));
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((wrong, seed)) = { queue.lock().unwrap().next() } {
                    if let Err(failure) = judge_one(wrong, seed) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} faults:\n{}", failures.len(), WRONG.len(), failures.join("\n"));
}

fn judge_one(wrong: &Wrong, seed: u64) -> Result<(), String> {
    let fault = wrong.fault;
    let seed_text = seed.to_string();
    let mut options = vec!["--seed", &seed_text];
    if seed > 0 {
        options.extend(wrong.fails.iter().flat_map(|name| ["--stage", name]));
    }
    let report = check_wrong(fault, &options);
    let failed = with("failed", &report);
    let skipped = with("skipped", &report);
    if failed != set(wrong.fails) || seed == 0 && skipped != set(wrong.skips) {
        return Err(format!("{fault:?}, seed {seed}: failed {failed:?}, skipped {skipped:?}\n{report:#}"));
    }
    let told = report["stages"].as_array().unwrap().iter().any(|stage| {
        let parts = [&stage["cause"], &stage["steps"], &stage["received"]];
        stage["outcome"] == "failed" && parts.iter().any(|part| part.to_string().contains(wrong.says))
    });
    if !told {
        return Err(format!("{fault:?}, seed {seed}: nowhere {:?}\n{report:#}", wrong.says));
    }
    Ok(())
}

#[test]
fn a_server_that_does_not_behave_is_reported_in_bounded_time() {
    let faults = [
        ("a flood of messages", "messages without end"),
        ("a flood of pings", "nothing for 1.2 s"),
        ("a flood of pongs", "byte for byte"),
        ("fragments without end", "ends with a frame that has FIN"),
        ("drips its handshake", "nothing for 1.2 s"),
        ("drips a message", "nothing for 1.2 s"),
    ];
    thread::scope(|scope| {
        for (fault, says) in faults {
            scope.spawn(move || {
                let began = Instant::now();
                let report = check_wrong(fault, &["--seed", "1"]);
                assert!(report["failed"].as_u64().unwrap() > 0, "{fault}: {report:#}");
                assert!(report.to_string().contains(says), "{fault}: no {says:?} in {report:#}");
                assert!(began.elapsed() < BOUND, "{fault}: {:?}", began.elapsed());
            });
        }
    });
}

#[test]
fn the_finished_servers_chat_and_live_page_pass() {
    let site = Site::start(&[]);
    for (path, how) in [("/chat", "the others hear"), ("/live", "it speaks unasked")] {
        let address = format!("ws://{}{path}", site.page);
        let report = check(program().args(["--addr", &address, "--seed", "7"]));
        passes(&report);
        assert_eq!(report["address"], address.as_str());
        assert!(notes(&report).iter().any(|note| note.contains(how)), "{report:#}");
    }
    let ended = site.server.stop();
    assert!(ended.status.success() && ended.accounts.of("accepted") == 0, "the service was not asked");
}

#[test]
fn a_server_that_check_starts_is_judged_at_a_path_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let command = format!("{} --listen 127.0.0.1:0 --page 127.0.0.1:{port}", env!("CARGO_BIN_EXE_socket-steps"));
    let report = check(program().args(["--spawn", &command, "--port", &port, "--path", "/chat", "--seed", "7"]));
    passes(&report);
    assert!(report["address"].as_str().unwrap().ends_with(&format!(":{port}/chat")), "{report:#}");
    assert!(report["repeat"].as_str().unwrap().contains(" --path /chat "), "{report:#}");
}

/// A server in this process, of a library that none of us has written; it serves to its end, and is left behind.
fn tungstenites() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("ws://{}/any/path?at=all", listener.local_addr().unwrap());
    thread::spawn(move || {
        for client in listener.incoming() {
            thread::spawn(move || {
                let Ok(mut websocket) = tungstenite::accept(client.unwrap()) else { return };
                while let Ok(message) = websocket.read() {
                    if message.is_text() {
                        let _ = websocket.send(message);
                    }
                }
            });
        }
    });
    address
}

#[test]
fn tungstenites_own_server_passes_but_that_it_does_not_answer_a_wrong_handshake() {
    let report = check(program().args(["--addr", &tungstenites(), "--seed", "7"]));
    assert_eq!(with("failed", &report), set(&[HANDSHAKE]), "{report:#}");
    assert_eq!(with("passed", &report), set(&ALL[1..]), "{report:#}");
    // RFC 6455, section 4.2.1: "return an HTTP response with an appropriate error code".
    let steps = &report["stages"][0]["steps"];
    assert!(steps.to_string().contains("sent a request with version 12"), "{report:#}");
    assert!(notes(&report).contains(&"a text comes back"), "{report:#}");
}

#[test]
fn lines_and_frames_are_each_asked_of_those_who_speak_them() {
    let site = Site::start(&["--service", "lines"]);
    let report = check(program().args(["--addr", site.server.address(), "--until", "ch19", "--stage", ECHO]));
    assert!(report["stages"][0]["why"].as_str().unwrap().contains("ws://HOST:PORT/PATH"), "{report:#}");
    let address = format!("ws://{}/chat", site.page);
    let report = check(program().args(["--addr", &address, "--stage", "greeting", "--stage", PING]));
    assert_eq!((with("skipped", &report), with("passed", &report)), (set(&["greeting"]), set(&[PING])), "{report:#}");
}

#[test]
fn one_client_at_a_time_is_judged_as_far_as_it_can_be() {
    let report = check_wrong("", &["--limit", "1", "--seed", "1"]);
    assert_eq!(with("skipped", &report), set(&[REFUSED]), "{report:#}");
    assert_eq!(with("failed", &report), set(&[]), "{report:#}");
}

/// Exit status 2, nothing on standard output, and one line that contains the text.
fn refuses(options: &[&str], text: &str) {
    let (status, output, errors) = run(program().args(options), b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{options:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{options:?}: {errors}");
    assert!(errors.contains(text), "{options:?}: no {text:?} in {errors}");
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    refuses(&["--addr", "wss://127.0.0.1:8080/"], "does not speak TLS");
    refuses(&["--addr", "ws://127.0.0.1/chat"], "the port is missing");
    refuses(&["--addr", "ws:///chat"], "the port is missing");
    refuses(&["--addr", "ws://127.0.0.1:0/chat"], "port 0");
    refuses(&["--addr", "ws://me@127.0.0.1:8080/chat"], "not an address");
    refuses(&["--addr", "ws://127.0.0.1:8080/a b"], "write %20");
    refuses(&["--addr", "ws://127.0.0.1:8080/#top"], "write %23");
    refuses(&["--addr", "ws://127.0.0.1:8080/방"], "write %EB%B0%A9");
    refuses(&["--addr", "ws://127.0.0.1:8080/a\r\nHost: b"], "write %0D");
    refuses(&["--addr", "ws://127.0.0.1:8080", "--path", "/chat"], "--path goes with --spawn");
    refuses(&["--spawn", "true", "--path", "chat"], "begins with a slash");
    refuses(&["--addr", "ws://127.0.0.1:8080/", "--until", "ch18"], "no stage is left");
    refuses(&["--spawn", "sh -c 'echo listening on ws://127.0.0.1:8080/chat; sleep 60'"], "say --path PATH");
    refuses(&["--spawn", "sh -c 'echo listening on unix:/tmp/nowhere; sleep 60'", "--path", "/"], "HOST:PORT");
}
