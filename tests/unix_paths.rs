//! A server on a path: the file is made, replaced and removed, and never anybody else's.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Barrier;
use std::thread;

use rustix::process::Signal;
use socket_steps::addr::Addr;
use socket_steps::listener::Listener;
use support::{BOUND, PREFIX, Server, after, program, run, wait_until};
use tempfile::TempDir;

/// A folder of its own, and a path in it.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    (folder, path)
}

fn address(path: &Path) -> String {
    format!("unix:{}", path.display())
}

fn start(path: &Path) -> Server {
    Server::listening_on(&address(path), &[])
}

fn connect(path: &Path) -> UnixStream {
    let client = UnixStream::connect(path).unwrap();
    client.set_read_timeout(Some(BOUND)).unwrap();
    client
}

/// A whole conversation, to the clean end.
fn is_served(path: &Path) {
    let mut client = connect(path);
    client.write_all("안녕하세요".as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("{PREFIX}안녕하세요"));
}

/// Leaves the socket file of a server that was killed, and makes sure that it is one.
fn leave_stale_file(path: &Path) {
    let mut server = start(path);
    server.signal(Signal::KILL);
    server.wait_for_status();
    assert_is_stale(path);
}

fn assert_is_stale(path: &Path) {
    assert!(fs::symlink_metadata(path).unwrap().file_type().is_socket());
    assert_eq!(UnixStream::connect(path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// Starts a server that must not start there: one line that names the path, and status 2.
fn is_refused(path: &Path, why: &str) {
    let (status, output, line) = run(program().args(["--listen", &address(path)]), b"");
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{line}");
    assert!(line.contains(&address(path)) && line.contains(why) && !line.contains('\n'), "{line}");
}

/// What a file is, without following a link: anything that is done to it changes some of this.
fn identity(path: &Path) -> (u64, u32, i64, i64, u64) {
    let file = fs::symlink_metadata(path).unwrap();
    (file.ino(), file.mode(), file.ctime(), file.ctime_nsec(), file.nlink())
}

#[test]
fn a_client_on_a_path_is_served_like_any_other_and_the_file_is_gone_in_the_end() {
    let (_folder, path) = folder();
    let server = start(&path);
    assert_eq!(server.address(), address(&path));
    is_served(&path);
    let mut silent = connect(&path);
    let ended = server.stop();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(silent.read(&mut [0]).unwrap(), 0, "ended by the stop");
    assert_eq!((ended.accounts.of("served"), ended.accounts.of("in"), ended.accounts.of("out")), (2, 15, 30));
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn a_client_on_a_path_is_told_when_there_is_no_place() {
    let (_folder, path) = folder();
    let server = Server::listening_on(&address(&path), &["--max-connections", "1"]);
    let mut held = connect(&path);
    held.write_all(b"hello").unwrap();
    held.read_exact(&mut vec![0; PREFIX.len() + 5]).unwrap();
    let mut text = String::new();
    connect(&path).read_to_string(&mut text).unwrap();
    assert!(text.starts_with("busy: all places are taken") && text.ends_with('\n'), "{text:?}");
    assert_eq!(server.stop().accounts.of("refused"), 1);
}

#[test]
fn the_file_of_a_server_that_was_killed_is_replaced() {
    let (_folder, path) = folder();
    leave_stale_file(&path);
    let server = start(&path);
    is_served(&path);
    assert!(server.stop().status.success());
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn the_file_of_a_living_server_is_never_taken() {
    let (_folder, path) = folder();
    let server = start(&path);
    let before = identity(&path);
    is_refused(&path, "another program listens there: end it, or choose another address");
    assert_eq!(identity(&path), before);
    is_served(&path);
    drop(server);

    // Nor that of one that is alive and does not accept, with a backlog that is full.
    let (_folder, path) = folder();
    let other = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    other.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    other.listen(0).unwrap();
    let _waiting = connect(&path);
    is_refused(&path, "another program listens there");
    other.accept().unwrap();
}

#[test]
fn what_is_not_a_socket_is_never_touched() {
    let (folder, path) = folder();
    let why = "a file of that name exists, and is not a socket";
    let in_folder = |name: &str| folder.path().join(name);

    fs::write(&path, "not yours").unwrap();
    let before = identity(&path);
    is_refused(&path, why);
    assert_eq!((identity(&path), fs::read_to_string(&path).unwrap().as_str()), (before, "not yours"));

    let inner = in_folder("folder");
    fs::create_dir(&inner).unwrap();
    let before = identity(&inner);
    is_refused(&inner, why);
    assert_eq!(identity(&inner), before);
}

#[test]
fn a_symbolic_link_is_never_followed() {
    let (folder, link) = folder();
    let why = "a file of that name exists, and is not a socket";
    let [file, nowhere, stale, living] = ["file", "nowhere", "stale", "living"].map(|name| folder.path().join(name));
    fs::write(&file, "not yours").unwrap();
    leave_stale_file(&stale);
    let server = start(&living);

    for target in [&file, &nowhere, &stale, &living] {
        symlink(target, &link).unwrap();
        let before = (identity(&link), fs::exists(target).unwrap().then(|| identity(target)));
        is_refused(&link, why);
        assert_eq!((identity(&link), fs::exists(target).unwrap().then(|| identity(target))), before, "{target:?}");
        assert_eq!(&fs::read_link(&link).unwrap(), target);
        fs::remove_file(&link).unwrap();
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not yours");
    assert_is_stale(&stale);
    is_served(&living);
    drop(server);
}

#[test]
fn whenever_it_can_be_connected_to_only_its_owner_can() {
    let (_folder, path) = folder();
    for round in 0..30 {
        // Nothing but the server itself takes rights away.
        let mut shell = after("umask 0", program().get_program());
        shell.args(["--no-page", "--listen", &address(&path)]);
        // Looks without a pause: the moment to look at is the first.
        let watcher = path.clone();
        let watcher = thread::spawn(move || {
            wait_until_at_once(|| UnixStream::connect(&watcher).is_ok());
            fs::metadata(&watcher).unwrap().permissions().mode() & 0o7777
        });
        let mut server = Server::from_command(&mut shell);
        assert_eq!(watcher.join().unwrap(), 0o600, "in round {round}");
        server.signal(Signal::KILL);
        server.wait_for_status();
    }
}

/// As `wait_until`, without any pause between two looks.
fn wait_until_at_once(is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < BOUND, "waited in vain");
        thread::yield_now();
    }
}

#[test]
fn a_file_that_somebody_else_has_put_in_its_place_stays() {
    let (_folder, path) = folder();
    let server = start(&path);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine now").unwrap();
    assert!(server.stop().status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine now");

    fs::remove_file(&path).unwrap();
    let server = start(&path);
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    assert!(server.stop().status.success());
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_server_that_ends_leaves_the_file_of_the_one_that_follows() {
    let (_folder, path) = folder();
    let address = Addr::Unix(Some(path.clone()));
    for round in 0..1500 {
        let old = Listener::bind(&address).unwrap();
        let both = Barrier::new(2);
        let new = thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                drop(old);
            });
            both.wait();
            loop {
                match Listener::bind(&address) {
                    Ok(listener) => break listener,
                    Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}"),
                }
                // Both need the folder's lock.
                thread::yield_now();
            }
        });
        // The old one is gone for good now.
        assert!(UnixStream::connect(&path).is_ok(), "cut off in round {round}");
        drop(new);
        assert!(!fs::exists(&path).unwrap(), "left behind in round {round}");
    }
}

/// Processes that are killed in the end, whatever happens.
struct Rivals(Vec<Child>);

impl Drop for Rivals {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn of_two_servers_that_race_for_one_stale_file_exactly_one_gets_it() {
    let (_folder, path) = folder();
    leave_stale_file(&path);
    for round in 0..20 {
        assert_is_stale(&path);
        let rival = || {
            let mut command = program();
            command.args(["--no-page", "--listen", &address(&path)]).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::null()).spawn().unwrap()
        };
        let mut rivals = Rivals(vec![rival(), rival()]);
        let loser = wait_until("one of them gives up", || {
            rivals.0.iter_mut().position(|child| child.try_wait().unwrap().is_some())
        });
        assert_eq!(rivals.0[loser].wait().unwrap().code(), Some(2), "in round {round}");
        // The other has it, and keeps it.
        is_served(&path);
        assert!(rivals.0[1 - loser].try_wait().unwrap().is_none(), "in round {round}");
    }
}
