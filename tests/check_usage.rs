//! What `check` promises besides its judgement: exit statuses, one clear line when there is nothing to judge,
//! JSON, an end in bounded time, and nothing left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Server, has_program, run, wait_until};

fn check() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_check"));
    command.env_remove("NO_COLOR");
    command
}

fn finished(options: &str) -> String {
    format!("{} --no-page --listen 127.0.0.1:0 {options}", env!("CARGO_BIN_EXE_socket-steps"))
}

/// Exit status 2, nothing on standard output, and one line that contains the text.
fn refuses(options: &[&str], text: &str) {
    let (status, output, errors) = run(check().args(options), b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{options:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{options:?}: {errors}");
    assert!(errors.contains(text), "{options:?}: no {text:?} in {errors}");
}

#[test]
fn wrong_usage_is_one_line_and_status_2() {
    refuses(&[], "--addr HOST:PORT");
    refuses(&["--addr", "8080"], "the port is missing");
    refuses(&["--addr", "localhost:http"], "not a port");
    refuses(&["--addr", "127.0.0.1:0"], "port 0");
    refuses(&["--addr", "unix:"], "the path is missing");
    refuses(&["--addr", "http://127.0.0.1:8080/"], "HOST:PORT");
    refuses(&["--addr", "127.0.0.1:8080", "--spawn", "true"], "cannot be used with");
    refuses(&["--addr", "127.0.0.1:8080", "--port", "8080"], "--port");
    refuses(&["--spawn", ""], "empty");
    refuses(&["--spawn", "'half a quote"], "quote");
    refuses(&["--spawn", "true", "--until", "ch22"], "not a chapter");
    refuses(&["--spawn", "true", "--until", "ch02"], "no stage is left");
    refuses(&["--spawn", "true", "--stage", "greetings"], "is it greeting?");
    refuses(&["--spawn", "true", "--deadline", "30"], "unit");
    refuses(&["--spawn", "true", "--deadline", "0s"], "unit");
    // As large as a duration gets, and then a little more.
    refuses(&["--spawn", "true", "--deadline", "18446744073709551615s 1000ms"], "unit");
    refuses(&["--spawn", "true", "--limit", "0"], "0");
    refuses(&["--spawn", "true", "--seed", "many"], "seed");
}

#[test]
fn nothing_to_connect_to_is_one_line_and_status_2() {
    // Bound, and not listening: nobody else gets this port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    refuses(&["--addr", &address], "nobody listens");
    refuses(&["--addr", "unix:/nowhere/at/all"], "no such file");
    // What is on the line moves no cursor, and makes no second line.
    refuses(&["--addr", "unix:/nowhere/a\nb\u{1b}[2J"], r"/nowhere/a\nb\u{1b}[2J");
}

#[test]
fn a_command_that_does_not_come_to_listen_is_one_line_and_status_2() {
    refuses(&["--spawn", "no-such-command-anywhere --port 1"], "there is no such command");
    refuses(&["--spawn", "sh -c 'echo what a pity >&2; exit 3'"], "exit status 3; last words: what a pity");
    refuses(&["--spawn", "sh -c 'kill -9 $$'"], "SIGKILL");
    refuses(&["--spawn", "true"], "without a word");
    refuses(&["--spawn", "sleep 60", "--patience", "100ms"], "flush");
    refuses(&["--spawn", "sh -c 'echo listening on nothing; sleep 60'", "--patience", "100ms"], "the port is missing");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    refuses(&["--spawn", "sleep 60", "--port", &port], "already listens");
    drop(free);
    refuses(&["--spawn", "sleep 60", "--port", &port, "--patience", "100ms"], "nothing listened on port");
}

#[test]
fn the_port_may_be_told_instead_of_printed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let command =
        format!("sh -c '{} --no-page --listen 127.0.0.1:{port} >/dev/null'", env!("CARGO_BIN_EXE_socket-steps"));
    let (status, output, errors) = run(check().args(["--spawn", &command, "--port", &port, "--until", "ch06"]), b"");
    assert!(status.success(), "{output} {errors}");
}

#[test]
fn the_report_ends_with_the_counts_and_the_next_chapter() {
    let command = finished("--service lines");
    let (status, output, _) = run(check().args(["--spawn", &command, "--until", "ch05", "--seed", "5"]), b"");
    assert!(status.success(), "{output}");
    assert!(output.starts_with("check: the server at 127.0.0.1:"), "{output}");
    assert!(output.lines().next().unwrap().ends_with("seed 5"), "{output}");
    assert_eq!(output.lines().filter(|line| line.starts_with("  ✓ ")).count(), 10, "{output}");
    assert_eq!(
        output.lines().last().unwrap(),
        "10 passed, 0 failed, 0 skipped; next: chapter 6, tutorial/en/06-threads.md"
    );
    assert!(!output.contains('\x1b'), "colours belong on a terminal");
}

#[test]
fn a_failure_tells_its_steps_the_difference_and_how_to_repeat_it() {
    // A prefix of two lines with the time of day would do as well: this one differs with each answer.
    let command = "python3 -u -c 'import socket; s = socket.create_server((\"127.0.0.1\", 0)); \
                   print(\"listening on 127.0.0.1:%d\" % s.getsockname()[1])\n\
                   while True:\n c = s.accept()[0]\n c.sendall(c.recv(100).replace(\"서버\".encode(), \"손님\".encode()))\n c.close()'";
    if !has_program("python3") {
        return;
    }
    let (status, output, _) = run(check().args(["--spawn", command, "--stage", "greeting", "--seed", "5"]), b"");
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("  ✗ greeting "), "{output}");
    assert!(output.contains("     1. client A: connected\n     2. client A: sent 안녕하세요, 서버님! "), "{output}");
    let lines: Vec<&str> = output.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("      expected  안녕하세요, 서버님!")).unwrap();
    assert!(lines[at + 1].starts_with("      received  안녕하세요, 손님님!"), "{output}");
    // Five characters and a comma, a space: two columns for each of the Korean ones.
    assert_eq!(lines[at + 2], format!("{}^", " ".repeat(16 + 5 * 2 + 2)), "{output}");
    assert!(output.contains("      read      chapter 4, tutorial/en/04-reply.md\n"), "{output}");
    assert!(output.contains(" --seed 5 --stage greeting\n"), "{output}");
    assert_eq!(lines.last(), Some(&"0 passed, 1 failed, 0 skipped; next: chapter 4, tutorial/en/04-reply.md"));
}

#[test]
fn json_is_one_object_with_everything_in_it() {
    let command = finished("--service lines");
    let (status, output, _) =
        run(check().args(["--spawn", &command, "--json", "--seed", "5", "--until", "ch07_pool"]), b"");
    assert!(status.success(), "{output}");
    let report: Value = serde_json::from_str(&output).unwrap();
    assert_eq!((&report["seed"], &report["failed"], &report["next"]), (&5.into(), &0.into(), &"ch07_pool".into()));
    assert!(report["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(report["repeat"].as_str().unwrap().starts_with("check --spawn "));
    let stages = report["stages"].as_array().unwrap();
    assert_eq!(stages[0]["name"], "connects");
    for stage in stages {
        assert!(stage["requirement"].is_string() && stage["took_ms"].is_u64(), "{stage}");
        assert!(stage["chapter"].as_str().unwrap() <= "ch07_pool", "{stage}");
        match stage["outcome"].as_str().unwrap() {
            "passed" => {}
            "skipped" => assert!(stage["why"].as_str().unwrap().contains("--limit"), "{stage}"),
            outcome => panic!("{outcome}: {stage}"),
        }
    }
}

#[test]
fn the_list_shows_every_stage_with_its_chapter_and_needs_no_server() {
    let (status, text, _) = run(check().arg("--list"), b"");
    assert!(status.success());
    let (_, output, _) = run(check().args(["--list", "--json"]), b"");
    let list: Value = serde_json::from_str(&output).unwrap();
    let stages = list["stages"].as_array().unwrap();
    assert!(stages.len() >= 25, "{text}");
    for stage in stages {
        for what in ["name", "chapter", "requirement"] {
            assert!(text.contains(stage[what].as_str().unwrap()), "{what} of {stage}");
        }
    }
    let (_, some, _) = run(check().args(["--list", "--until", "ch05"]), b"");
    assert!(some.contains("cut-anywhere") && !some.contains("second-client"), "{some}");
}

#[test]
fn the_same_seed_sends_the_same() {
    let sent = |seed: &str| {
        let server = Server::start(&["--service", "lines"]);
        let options = ["--addr", server.address(), "--seed", seed, "--until", "ch05"];
        let (status, output, _) = run(check().args(options), b"");
        assert!(status.success(), "{output}");
        server.stop().accounts.of("in")
    };
    assert_eq!(sent("1"), sent("1"));
    assert_ne!(sent("1"), sent("2"));
}

/// Whatever a `check` starts inherits its environment, and can be found by this.
const MARK: &str = "CHECK_TEST_MARK";

/// Every process that carries the mark.
fn marked(mark: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mark = format!("{MARK}={mark}\0");
    let carries = |pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&mark)
    };
    pids.filter(carries).collect()
}

#[test]
fn what_was_spawned_is_ended_however_it_hides() {
    let server = finished("--service lines");
    let ways = [
        server.clone(),
        format!("sh -c '{server}; true'"),
        // In the background, in a session of its own, and without a parent.
        format!("sh -c 'setsid {server} & wait'"),
        format!("sh -c '(setsid {server} &) ; sleep 60'"),
        // It takes no notice of a polite request.
        format!("sh -c 'trap \"\" TERM INT; {server} & while :; do sleep 60; done'"),
    ];
    thread::scope(|scope| {
        for (number, command) in ways.iter().enumerate() {
            scope.spawn(move || {
                let mark = format!("{}-{number}", std::process::id());
                let options = ["--spawn", command, "--until", "ch04"];
                let (status, output, errors) = run(check().env(MARK, &mark).args(options), b"");
                assert!(status.success(), "{command}: {output} {errors}");
                assert_eq!(marked(&mark), Vec::<u32>::new(), "{command} is still there");
            });
        }
    });
}

#[test]
fn an_interrupted_check_ends_its_server_too() {
    let mark = format!("{}-interrupted", std::process::id());
    let command = finished("--service lines");
    let mut check = check()
        .env(MARK, &mark)
        .args(["--spawn", &command, "--deadline", "5s", "--stage", "silent-let-go"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(check.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("seed"), "{line}");
    assert!(marked(&mark).len() >= 2, "the server runs");
    kill_process(Pid::from_child(&check), Signal::INT).unwrap();
    let status = wait_until("check ends", || check.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    wait_until("its server ends", || marked(&mark).is_empty().then_some(()));
}

#[test]
fn a_server_that_does_not_behave_is_reported_in_bounded_time() {
    if !has_program("python3") {
        return;
    }
    thread::scope(|scope| {
        for (what, body, text) in [
            ("accepts and says nothing", "time.sleep(60)", "nothing came"),
            ("says something without end", "while True: c.sendall(b'x' * 65536)", "speaks before it is asked"),
            ("repeats a prefix without end", "c.recv(100)\n while True: c.sendall(b'> ' * 1000)", "greeting"),
            ("answers something else", "c.recv(100); c.sendall(bytes(range(256)) * 100); time.sleep(60)", "greeting"),
            ("dies", "c.recv(100); raise SystemExit('no more')", "last words: no more"),
            ("never accepts", "", "nothing came"),
        ] {
            scope.spawn(move || is_reported(what, body, text));
        }
    });
}

/// A server in Python that accepts, and does this with each client `c`.
fn is_reported(what: &str, body: &str, text: &str) {
    let then = match body {
        "" => "time.sleep(60)".to_owned(),
        body => format!("while True:\n c = s.accept()[0]\n {body}"),
    };
    let program = format!(
        "import socket, time\ns = socket.create_server((\"127.0.0.1\", 0))\n\
         print(\"listening on 127.0.0.1:%d\" % s.getsockname()[1])\n{then}"
    );
    let command = format!("python3 -c {}", shell_words::quote(&program));
    let began = Instant::now();
    let (status, output, errors) = run(check().args(["--spawn", &command]), b"");
    assert_eq!(status.code(), Some(1), "{what}: {output} {errors}");
    assert!(output.contains(text), "{what}: no {text:?} in {output}");
    assert!(began.elapsed() < Duration::from_secs(30), "{what}: {:?}\n{output}", began.elapsed());
}
