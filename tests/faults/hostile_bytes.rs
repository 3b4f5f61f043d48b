//! Whatever bytes a client sends, or calls itself by: the services give them back as they are, and nothing of them
//! moves a terminal's cursor, forges a line of the log, or becomes more than text on the page.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::web::{Site, Ws, ask};
use crate::support::{PREFIX, Server, program, wait_until};

/// Every byte there is, a newline in the middle of them among them.
fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

/// What a terminal would obey, and what looks like a line of the log.
const HOSTILE: &[u8] = b"\x1b[2J\x1b]0;title\x07 \0 \x7f \xc2\x9b31m \x9b \xff\xfe \xed\xa0\x80 \r\
    [2026-01-01T00:00:00.000Z INFO  socket_steps::stats] #7 forged\r\n\
    [2026-01-01T00:00:00.000Z INFO  socket_steps::stats] #8 forged\n\n";

/// What a client calls itself that has bound its own end to a path.
const NAME: &str = "\u{1b}[2J\u{9b}31m\u{7}\n#9 <b>named";

/// A client of this name.
fn client_of_that_name(folder: &Path, server: &Path) -> UnixStream {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::unix(folder.join(NAME)).unwrap()).unwrap();
    socket.connect(&SockAddr::unix(server).unwrap()).unwrap();
    UnixStream::from(socket)
}

/// The characters that do something, of which there should be none.
fn controls(text: &str) -> Vec<char> {
    text.chars().filter(|character| character.is_control()).collect()
}

#[test]
fn no_control_character_of_a_client_is_obeyed_in_the_log_or_on_the_page() {
    for service in ["reply", "echo", "lines", "chat"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let mut command = program();
        command.args(["--listen", "127.0.0.1:0", "--page", "127.0.0.1:0", "--service", service]);
        command.arg("--listen").arg(format!("unix:{}", path.display())).env("RUST_LOG", "trace");
        let mut server = Server::from_command(&mut command);
        assert!(server.next_line().unwrap().starts_with("listening on unix:"));
        let site = Site::of(server);

        let mut client = site.server.client();
        let mut named = client_of_that_name(folder.path(), &path);
        let bytes = 2 * HOSTILE.len() as u64;
        client.send(HOSTILE).send("half a line \u{1b}[31m");
        named.write_all(HOSTILE).unwrap();
        let numbers = || site.get("/stats.json").body;
        let state = wait_until("both are there, and were heard", || {
            let state = numbers();
            let heard = |state: &serde_json::Value| state["bytes_in"].as_u64() > Some(bytes) && state["now"] == 2;
            heard(&serde_json::from_str(&state).unwrap()).then_some(state)
        });
        assert_eq!(controls(&state), [], "{state}");
        assert!(state.contains(r"\\u{1b}[2J\\u{9b}31m\\u{7}\\n#9"), "its name is not shown: {state}");
        assert_eq!(controls(&Ws::connect(site.page, "/live").hear()), []);

        // A page is asked for, from a place and with a path that no one should print.
        for request in [
            "GET /\u{1b}[2J\u{7} HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: \u{1b}[2J\u{9b}\r\n\r\n",
            "GET /chat HTTP/1.1\r\nHost: localhost\r\nOrigin: http://\u{1b}[2J\r\nUpgrade: websocket\r\n\r\n",
            "\u{1b}[2J\u{7} / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: \u{1b}[2J\0\r\n\r\n",
        ] {
            let refused = ask(site.page, request.as_bytes());
            assert!(refused.status >= 400, "{request:?}: {refused:?}");
            assert_eq!(controls(refused.body.trim_end()), [], "{request:?}: {refused:?}");
        }

        client.reset();
        drop(named);
        let log = site.server.stop().log;
        assert!(log.contains("TRACE") && log.contains("<b>named connected"), "it was not logged: {log}");
        assert!(!log.contains("forged"), "what was said is in the log: {log}");
        for line in log.lines() {
            assert!(line.starts_with('['), "a line that is not the log's own: {line:?}");
            assert_eq!(controls(line), [], "{line:?}");
        }
        let (hostile, lines) = (HOSTILE.iter().filter(|byte| byte.is_ascii_control()).count(), log.lines().count());
        println!("{service}: {hostile} control characters, twice; 0 in {lines} lines of log, 0 on the page");
    }
}

#[test]
fn every_byte_comes_back_from_echo_and_from_lines_in_one_piece_and_one_at_a_time() {
    let bytes = [&every_byte()[..], HOSTILE, b"\n\n\0\n\r\n", "안녕".as_bytes(), b"\xec\x95"].concat();
    let with_prefix = |line: &[u8]| [PREFIX.as_bytes(), line].concat();
    let as_lines = bytes.split_inclusive(|byte| *byte == b'\n').flat_map(with_prefix).collect();
    for (service, answer) in [("echo", bytes.clone()), ("lines", as_lines)] {
        let server = Server::start(&["--service", service]);
        for size in [bytes.len(), 1, 2, 7] {
            let mut client = server.client();
            for piece in bytes.chunks(size) {
                client.send(piece);
            }
            assert_eq!(client.end().rest(), answer, "{service}, {size} at a time");
            println!("{service}: {} bytes, {size} at a time, 0 changed", bytes.len());
        }
    }
}
