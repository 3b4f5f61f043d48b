//! Chapter 18: up the layers. A browser is a client too; its messages have a head, and the head must end.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use log::info;
use socket_steps::chapter::{Part, give_up, part};
use socket_steps::deadline::Timeouts;
use socket_steps::narrate;
use socket_steps::server::{Config, Server};
use socket_steps::socket::{OnStop, Socket};

/// How many bytes a head may have.
const MOST: usize = 8 * 1024;

const PAGE: &str = "<!doctype html>\n<title>Chapter 18</title>\n<h1>서버 응답: 안녕하세요, 브라우저님!</h1>\n";

fn main() -> io::Result<()> {
    match part("ch18_http [server [ADDR] | client [ADDR]]") {
        Part::Scene => scene(),
        Part::Server(options) => server(&options.address).map_err(give_up),
        Part::Client(address) => client(&address).map_err(give_up),
    }
}

// ANCHOR: read_head
/// Reads up to the empty line that ends a head. All of it has to come before the message deadline.
fn read_head(socket: &mut Socket) -> io::Result<Vec<u8>> {
    socket.begin_message(OnStop::Interrupt);
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match socket.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => head.extend_from_slice(&piece[..count]),
        }
        if head.len() > MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok(head)
}
// ANCHOR_END: read_head

// ANCHOR: respond
/// Finds out what the first line asks for, and answers that.
fn respond(head: &str) -> String {
    let line = head.lines().next().unwrap_or_default();
    info!(target: "server", "a head of {} bytes: {line}", head.len());
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["GET", "/", "HTTP/1.1"] => response("200 OK", "text/html; charset=utf-8", PAGE),
        ["GET", _, "HTTP/1.1"] => response("404 Not Found", "text/plain", "there is nothing by this name\n"),
        [_, _, "HTTP/1.1"] => response("501 Not Implemented", "text/plain", "this server knows only GET\n"),
        _ => response("400 Bad Request", "text/plain", "this is not HTTP/1.1\n"),
    }
}
// ANCHOR_END: respond

// ANCHOR: response
/// A head of our own, and the content. Its length says where it ends.
fn response(status: &str, content_type: &str, content: &str) -> String {
    info!(target: "server", "answering {status}");
    let length = content.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{content}"
    )
}
// ANCHOR_END: response

// ANCHOR: answer
/// One request, one response, and the end.
fn answer(mut socket: Socket) -> io::Result<()> {
    let response = match read_head(&mut socket) {
        Ok(head) => respond(&String::from_utf8_lossy(&head)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            response("431 Request Header Fields Too Large", "text/plain", "too long: 8192 bytes at most\n")
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            response("408 Request Timeout", "text/plain", "too slow\n")
        }
        Err(error) => return Err(error),
    };
    socket.write_all(response.as_bytes())
}
// ANCHOR_END: answer

fn config(patience: Duration) -> Config {
    let timeouts = Timeouts { message: Some(patience), ..Timeouts::default() };
    Config { timeouts, log_level: log::Level::Debug, ..Config::default() }
}

fn server(address: &str) -> io::Result<()> {
    narrate::aside();
    let server = Server::bind([address], config(Duration::from_secs(5)))?;
    println!("listening on {}", server.local_addrs()[0]);
    server.serve(answer);
    Ok(())
}

fn client(address: &str) -> io::Result<()> {
    narrate::aside();
    let mut stream = TcpStream::connect(address)?;
    info!(target: "client", "asking for /");
    let response = ask(&mut stream, &get("/"))?;
    let (_head, content) = response.split_once("\r\n\r\n").unwrap_or_default();
    print!("{content}");
    Ok(())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
}

/// Sends a request, and reads to the end of the connection.
fn ask(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    io::read_to_string(stream)
}

fn scene() -> io::Result<()> {
    narrate::scene(&["browser", "server"]);
    let server = Server::bind(["127.0.0.1:0"], config(Duration::from_secs(1)))?;
    let address = server.local_addrs()[0].to_string();
    let handle = server.handle();
    let serving = std::thread::spawn(move || server.serve(answer));

    a_page(&address)?;
    nothing_by_this_name(&address)?;
    a_head_without_end(&address)?;
    a_head_byte_by_byte(&address)?;

    handle.stop();
    serving.join().map_err(|_| io::Error::other("the server has panicked"))?;
    Ok(())
}

/// What goes out when a browser asks, from the top of the seven layers to the bottom.
fn a_page(address: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let (from, to) = (stream.local_addr()?, stream.peer_addr()?);
    let request = get("/");
    info!(target: "browser", "7 to 5: GET / HTTP/1.1 and a field, {} bytes", request.len());
    info!(target: "browser", "4, TCP, and 3, IP: from {from}");
    info!(target: "browser", "4, TCP, and 3, IP: to {to}");
    info!(target: "browser", "2 and 1: the loopback, without a wire");
    let response = ask(&mut stream, &request)?;
    tell(&response);
    Ok(())
}

/// The first line of a response, and its last.
fn tell(response: &str) {
    info!(target: "browser", "received {}", response.lines().next().unwrap_or_default());
    info!(target: "browser", "content: {}", response.lines().next_back().unwrap_or_default());
}

fn nothing_by_this_name(address: &str) -> io::Result<()> {
    info!(target: "browser", "asking for /../secret.txt");
    let response = ask(&mut TcpStream::connect(address)?, &get("/../secret.txt"))?;
    tell(&response);
    Ok(())
}

fn a_head_without_end(address: &str) -> io::Result<()> {
    info!(target: "browser", "sending a field of 10000 bytes, and no end");
    let request = format!("GET / HTTP/1.1\r\nHost: {}", "x".repeat(10_000));
    let response = ask(&mut TcpStream::connect(address)?, &request)?;
    tell(&response);
    Ok(())
}

fn a_head_byte_by_byte(address: &str) -> io::Result<()> {
    info!(target: "browser", "sending ten bytes a second");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut first = [0];
    for byte in get("/").bytes().cycle().take(100).map(|byte| if byte == b'\r' { b' ' } else { byte }) {
        stream.write_all(&[byte])?;
        match stream.read(&mut first) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let rest = io::read_to_string(&mut stream)?;
    tell(&format!("{}{rest}", char::from(first[0])));
    Ok(())
}
