//! The head of an HTTP/1 request: bytes in, and either a request or the status that refuses it.
//!
//! `httparse` takes it apart. It forgives what two programs may understand in two ways, and where the one in front
//! of us (a proxy, say) reads another request than we do, an attacker hides one inside another. So whatever can be
//! read in two ways is refused here (RFC 9112, section 11.2). Nothing touches a socket.

use std::net::{IpAddr, Ipv6Addr};

use crate::web::refusal::Refusal;

/// How long a head may be, the request line and the empty line at its end included.
pub const MOST_BYTES: usize = 8 * 1024;

/// How many fields it may have.
pub const MOST_FIELDS: usize = 64;

/// What is asked for; nothing else can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A resource.
    Get,
    /// A resource without its content.
    Head,
}

/// A request's head.
///
/// ```
/// use socket_steps::web::head::Head;
///
/// let bytes = b"GET /stats.json?now HTTP/1.1\r\nHost: localhost:8081\r\n\r\n";
/// let (head, length) = Head::parse(bytes)?.expect("it is complete");
/// assert_eq!((head.path.as_str(), head.authority.as_deref(), length), ("/stats.json", Some("localhost:8081"), 54));
///
/// assert_eq!(Head::parse(&bytes[..40])?, None); // more is needed
/// assert_eq!(Head::parse(b"GET / HTTP/1.1\n").unwrap_err().status, 400); // a line ends with \r\n
/// # Ok::<(), socket_steps::web::refusal::Refusal>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// What is to be done.
    pub method: Method,
    /// The path, as it was sent: nothing is decoded, and `/a/../b` is not `/b`.
    pub path: String,
    /// Whom the client believes to talk to: `HOST` or `HOST:PORT`. HTTP/1.0 need not say.
    pub authority: Option<String>,
    /// Whether it is HTTP/1.1.
    pub is_1_1: bool,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Takes the head out of what has arrived; also says how many bytes it was. `None`: more is needed.
    ///
    /// # Errors
    /// As soon as it is clear that this becomes no request that could be served.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, Refusal> {
        // An empty line before the request is left over from an old client's last one (RFC 9112, section 2.2).
        let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
        // What lies beyond is not looked at: the answer must not depend on how much a read has brought.
        let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
        let Some(end) = end_of_head(&bytes[skipped..])?.map(|end| skipped + end) else {
            let has_a_line = bytes[skipped..].contains(&b'\n');
            return match (bytes.len() == MOST_BYTES, has_a_line) {
                (false, _) => Ok(None),
                (true, true) => Err(Refusal::new(431, format!("a head may have {MOST_BYTES} bytes"))),
                (true, false) => Err(Refusal::new(414, format!("a head may have {MOST_BYTES} bytes"))),
            };
        };
        Ok(Some((Head::from_whole(&bytes[skipped..end])?, end)))
    }

    fn from_whole(bytes: &[u8]) -> Result<Head, Refusal> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(bytes) {
            Ok(status) if status.is_complete() => {}
            Ok(_) => return Err(Refusal::bad("the request has no lines")),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::new(431, format!("a head may have {MOST_FIELDS} fields")));
            }
            Err(httparse::Error::Version) if names_a_version(bytes) => {
                return Err(Refusal::new(505, "this server speaks HTTP/1.1"));
            }
            Err(error) => return Err(Refusal::bad(format!("not a request: {error}"))),
        }
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let fields = request.headers.iter().map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect();
        let mut head = Head {
            method: Method::Get,
            path: String::new(),
            authority: None,
            is_1_1: request.version == Some(1),
            fields,
        };
        // First what makes it unclear where the request ends; then what is asked.
        let has_body = head.announces_a_body()?;
        head.method = method(request.method.unwrap_or_default())?;
        if has_body {
            return Err(Refusal::bad("nothing that can be asked for takes a body"));
        }
        let (authority, path) = target(request.path.unwrap_or_default())?;
        let host = head.field("host")?;
        if host.is_none() && head.is_1_1 {
            return Err(Refusal::bad("the Host field is missing"));
        }
        // Both: a good target is no excuse for a bad Host (RFC 9112, section 3.2).
        if [authority, host].into_iter().flatten().any(|authority| host_of(authority).is_none()) {
            return Err(Refusal::bad("the Host is not HOST or HOST:PORT"));
        }
        let authority = authority.or(host).map(str::to_owned);
        head.path = path.to_owned();
        head.authority = authority;
        Ok(head)
    }

    /// The value of a field that may be there once.
    ///
    /// # Errors
    /// When it is there twice: which one counts?
    pub fn field(&self, name: &str) -> Result<Option<&str>, Refusal> {
        let mut values = self.values(name);
        let value = values.next();
        match values.next() {
            Some(_) => Err(Refusal::bad(format!("the field {name} is there twice"))),
            None => Ok(value),
        }
    }

    /// Whether a field that is a list, such as `Connection: keep-alive, Upgrade`, has this word.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        // Only these two are blanks here (RFC 9110, section 5.6.3); `trim` knows those of other scripts, too.
        let blank = [' ', '\t'];
        let mut items = self.values(name).flat_map(|value| value.split(','));
        items.any(|item| item.trim_matches(blank).eq_ignore_ascii_case(word))
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// When it is not clear how long the body is (RFC 9112, section 6.3).
    fn announces_a_body(&self) -> Result<bool, Refusal> {
        let length = self.field("content-length")?;
        // Digits and nothing else: `+5` and `5, 5` mean 5 to some.
        let is_number = |value: &str| !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        if length.is_some_and(|value| !is_number(value)) {
            return Err(Refusal::bad("the Content-Length is not a number"));
        }
        let is_encoded = self.values("transfer-encoding").next().is_some();
        if is_encoded && length.is_some() {
            return Err(Refusal::bad("Content-Length and Transfer-Encoding exclude each other"));
        }
        if is_encoded && !self.is_1_1 {
            return Err(Refusal::bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        Ok(is_encoded || length.is_some_and(|value| value.bytes().any(|byte| byte != b'0')))
    }

    /// Refuses a request that was meant for another host. A page elsewhere can have its own name point to this
    /// machine (DNS rebinding): the browser then believes that we are a part of that page, and lets it read what
    /// we answer. Only the Host gives it away. An IP address has no name to point with.
    ///
    /// # Errors
    /// 421, unless the host is an IP address, `localhost`, or one of `names`.
    pub fn check_host(&self, names: &[String]) -> Result<(), Refusal> {
        let Some(host) = self.authority.as_deref().and_then(host_of) else { return Ok(()) };
        let is_ours = match host.strip_prefix('[') {
            Some(_) => true, // Only an IPv6 address stands in brackets.
            None => {
                let mut names = names.iter().map(String::as_str).chain(["localhost"]);
                host.parse::<IpAddr>().is_ok() || names.any(|name| name.eq_ignore_ascii_case(host))
            }
        };
        if is_ours {
            return Ok(());
        }
        Err(Refusal::new(421, format!("this server is not {host}; --page-host {host} would make it so")))
    }
}

/// Where the empty line is that ends a head, and after it.
///
/// # Errors
/// At the first byte that cannot be part of one.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut line = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if at == 0 || bytes[at - 1] != b'\r' => return Err(Refusal::bad("a line ends with \\r\\n")),
            b'\n' if at == line + 1 => return Ok(Some(at + 1)),
            b'\n' => line = at + 1,
            b'\r' if bytes.get(at + 1).is_none_or(|next| *next == b'\n') => {}
            b'\t' | b' '..=b'~' | 0x80.. => {}
            _ => return Err(Refusal::bad("a control character")),
        }
    }
    Ok(None)
}

/// Whether the first line is right but for its version, which is not ours.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let [_, _, version] = line.split(|byte| *byte == b' ').collect::<Vec<_>>()[..] else { return false };
    let number = version.strip_prefix(b"HTTP/");
    matches!(number, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn method(name: &str) -> Result<Method, Refusal> {
    match name {
        "GET" => Ok(Method::Get),
        "HEAD" => Ok(Method::Head),
        "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => {
            Err(Refusal::new(405, "this can only be read").with("Allow", "GET, HEAD"))
        }
        _ => Err(Refusal::new(501, "this server knows GET and HEAD")),
    }
}

/// The authority, if the target has one, and the path.
fn target(target: &str) -> Result<(Option<&str>, &str), Refusal> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return Err(Refusal::bad("the target has a character that a URI has not"));
    }
    let (authority, rest) = match target.strip_prefix("http://") {
        Some(rest) => {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), if path.starts_with('/') { path } else { "/" })
        }
        None => (None, target),
    };
    let path = rest.split('?').next().unwrap_or_default();
    if !path.starts_with('/') {
        return Err(Refusal::bad("the target is not a path"));
    }
    Ok((authority, path))
}

/// The host of `HOST` or `HOST:PORT`; an IPv6 address keeps its brackets.
fn host_of(authority: &str) -> Option<&str> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')?;
            rest[..end].parse::<Ipv6Addr>().ok()?;
            end + 2
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let is_port = match port.strip_prefix(':') {
        Some(port) => {
            port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok())
        }
        None => port.is_empty(),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_host = host.starts_with('[') || (!host.is_empty() && host.bytes().all(is_name));
    (is_port && is_host).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for (authority, host) in [
            ("localhost", Some("localhost")),
            ("localhost:8081", Some("localhost")),
            ("127.0.0.1:", Some("127.0.0.1")),
            ("[::1]:8081", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("::1", None),
            ("[::1", None),
            ("[localhost]", None),
            ("localhost:65536", None),
            ("localhost:+1", None),
            ("user@localhost", None),
            ("a b", None),
            (":8081", None),
            ("", None),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_what_comes_later_changes_no_head(
            before in "(GET|HEAD|POST|X)? ?[ -~]{0,20} HTTP/1.[0-2]\r\n(([!-~]{1,8}|Host|Content-Length): ?[ -~]{0,10}\r\n){0,5}(\r\n)?",
            noise in prop::collection::vec(any::<u8>(), 0..200),
            at in any::<prop::sample::Index>(),
        ) {
            let mut bytes = before.into_bytes();
            let whole = Head::parse(&bytes);
            if let Ok(Some((_, length))) = &whole {
                let length = *length;
                bytes.extend_from_slice(&noise);
                prop_assert_eq!(Head::parse(&bytes), whole);
                // Of a good head, every beginning is one that needs more.
                for end in 0..length {
                    prop_assert_eq!(Head::parse(&bytes[..end]), Ok(None));
                }
            }
            let at = at.index(bytes.len() + 1);
            bytes.splice(at..at, noise);
            let _ = Head::parse(&bytes);
        }

        #[test]
        fn any_bytes_are_a_head_or_a_refusal_or_unfinished(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            if let Err(refusal) = Head::parse(&bytes) {
                prop_assert!(refusal.phrase() != "Unknown");
            }
        }
    }
}
