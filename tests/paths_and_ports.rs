//! What is the same on a path and on a port, and what is not, as chapter 15 says; and its program.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod support;

use std::fs::{self, Permissions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use rustix::process::{Signal, Uid, getgid, getpid, getuid};
use rustix::thread::set_thread_res_uid;
use socket2::SockRef;
use support::{BOUND, Server, run};
use tempfile::TempDir;

/// Both ends of a connection on a path.
fn on_a_path() -> (UnixStream, UnixStream, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let client = UnixStream::connect(&path).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(BOUND)).unwrap();
    }
    (client, server, folder)
}

/// Both ends of a connection on a port.
fn on_a_port() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(BOUND)).unwrap();
    }
    (client, server)
}

/// Reads to the end or to an error.
fn rest(mut stream: impl Read) -> (String, io::Result<()>) {
    let mut bytes = Vec::new();
    let end = stream.read_to_end(&mut bytes).map(drop);
    (String::from_utf8(bytes).unwrap(), end)
}

#[test]
fn half_a_path_can_be_ended_like_half_a_port() {
    let (mut client, mut server, _folder) = on_a_path();
    client.write_all("안녕".as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&server).0, "안녕");
    server.write_all("네".as_bytes()).unwrap();
    drop(server);
    assert_eq!(rest(&client).0, "네");
}

#[test]
fn writes_are_merged_on_a_path_too() {
    let (mut client, mut server, _folder) = on_a_path();
    for piece in ["하나", "둘"] {
        client.write_all(piece.as_bytes()).unwrap();
    }
    let mut bytes = [0; 100];
    let count = server.read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], "하나둘".as_bytes());
}

#[test]
fn a_close_with_unread_input_is_an_error_on_both_and_destroys_nothing_on_a_path() {
    let (mut client, mut server, _folder) = on_a_path();
    client.write_all(b"never read").unwrap();
    server.write_all(b"the answer").unwrap();
    drop(server);
    let (came, end) = rest(&client);
    assert_eq!(came, "the answer");
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let (mut client, mut server) = on_a_port();
    client.write_all(b"never read").unwrap();
    server.peek(&mut [0]).unwrap();
    server.write_all(b"the answer").unwrap();
    drop(server);
    let (came, end) = rest(&client);
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(came.is_empty() || came == "the answer", "{came}");
}

#[test]
fn a_reset_cannot_be_asked_for_on_a_path() {
    let (client, server, _folder) = on_a_path();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert!(rest(&server).1.is_ok(), "an end");

    let (client, server) = on_a_port();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(rest(&server).1.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn the_client_has_no_address_but_the_kernel_knows_who_it_is() {
    let (client, server, _folder) = on_a_path();
    assert!(server.peer_addr().unwrap().is_unnamed());
    let who = socket_peercred(&server).unwrap();
    assert_eq!(who.pid, getpid());
    assert_eq!((who.uid, who.gid), (getuid(), getgid()));
    drop(client);
    // It is what was so when it connected.
    assert_eq!(socket_peercred(&server).unwrap().pid, getpid());
}

#[test]
fn an_open_file_can_be_handed_over_on_a_path() {
    let (client, server, _folder) = on_a_path();
    let (mut reader, writer) = io::pipe().unwrap();
    let handed = [writer.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&handed)));
    sendmsg(&client, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    drop(writer);

    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&server, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let received = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    let mut file = std::fs::File::from(received.expect("a descriptor"));
    file.write_all("안녕".as_bytes()).unwrap();
    drop(file);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "안녕");
}

#[test]
fn a_path_may_have_107_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let room = 107 - folder.path().as_os_str().len() - 1;
    UnixListener::bind(folder.path().join("x".repeat(room))).unwrap();
    let error = UnixListener::bind(folder.path().join("x".repeat(room + 1))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn whoever_may_not_write_to_the_file_may_not_connect() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o555)).unwrap();
    let connecting = thread::spawn({
        let path = path.clone();
        move || {
            if getuid().is_root() {
                // To the administrator everything is allowed, so this thread becomes somebody else.
                let nobody = Uid::from_raw(65534);
                set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            UnixStream::connect(path).map(drop)
        }
    });
    assert_eq!(connecting.join().unwrap().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    UnixStream::connect(&path).unwrap();
}

// From here on: the chapter's program.

fn program(words: &[&str]) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_socket-steps")).parent().unwrap();
    let mut command = Command::new(folder.join("ch15_ipc"));
    command.args(words).env_remove("RUST_LOG");
    command
}

#[test]
fn the_chapters_server_is_found_on_a_path_says_who_came_and_takes_its_file_along() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let address = format!("unix:{}", path.display());
    let mut server = Server::from_command(&mut program(&["server", &address]));
    assert_eq!(server.address(), address);
    let (status, output, errors) = run(&mut program(&["client", &address]), b"");
    assert_eq!((status.code(), output.trim_end()), (Some(0), "서버 응답: 안녕하세요, 서버님!"), "{errors}");
    let client = server.wait_for_log("the client is process ");
    assert!(!client.ends_with(&format!(" {}", server.pid())), "it takes the client for itself: {client}");
    server.wait_for_log("and its user is mine");
    server.signal(Signal::INT);
    assert_eq!(server.wait_for_status().code(), Some(0));
    assert!(!fs::exists(&path).unwrap());
}

#[test]
fn an_address_that_cannot_be_had_is_one_line_and_status_2() {
    let folder = tempfile::tempdir().unwrap();
    let taken = format!("unix:{}", folder.path().join("socket").display());
    let _server = Server::from_command(&mut program(&["server", &taken]));
    for (address, why) in [(taken.as_str(), "another program listens there"), ("unix:", "the path is missing")] {
        let (status, output, errors) = run(&mut program(&["server", address]), b"");
        assert_eq!((status.code(), output.as_str(), errors.lines().count()), (Some(2), "", 1), "{errors}");
        assert!(errors.contains(why), "{errors}");
    }
}
