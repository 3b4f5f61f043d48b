//! Addresses: TCP or a path in the file system, one type for both.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr};

use crate::output::harmless;

/// The address of one end of a connection: what the kernel knows, not what a person typed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Addr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A path, or nothing: the client's end of a Unix socket usually has no name.
    Unix(Option<PathBuf>),
}

impl Addr {
    /// Turns what a person typed into addresses: `HOST:PORT` into every address of that name,
    /// `unix:PATH` into that path.
    ///
    /// `localhost` is always both loopback addresses, `::1` and `127.0.0.1`, whatever the machine's hosts
    /// file says (RFC 6761, section 6.3). Other names are looked up, which may take as long as the
    /// machine's resolver likes.
    ///
    /// # Errors
    /// Says what is wrong with the text and what would be right, or that the name has no address.
    ///
    /// ```
    /// use socket_steps::addr::Addr;
    ///
    /// let both = Addr::resolve("localhost:8080")?;
    /// assert_eq!(both.len(), 2);
    /// assert!(Addr::resolve("8080").unwrap_err().to_string().contains("localhost:8080"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn resolve(text: &str) -> io::Result<Vec<Addr>> {
        let wrong = |what: &str| {
            let right = "write HOST:PORT, such as localhost:8080 or [::1]:8080, or unix:PATH";
            io::Error::new(io::ErrorKind::InvalidInput, format!("'{text}' is not an address: {what}; {right}"))
        };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(wrong("the path is missing")),
                _ => Ok(vec![Addr::Unix(Some(path.into()))]),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let number = port.parse().ok().filter(|_| !port.starts_with('+'));
        let port: u16 = number.ok_or_else(|| wrong("the port is a number from 0 to 65535"))?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match bare {
            None if host.is_empty() => return Err(wrong("the host is missing")),
            None if host.contains(':') => return Err(wrong("an IPv6 address stands in brackets")),
            Some(bare) if !bare.contains(':') => return Err(wrong("only an IPv6 address stands in brackets")),
            _ => {}
        }
        if host.eq_ignore_ascii_case("localhost") {
            let loopbacks = [IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), IpAddr::from([127, 0, 0, 1])];
            return Ok(loopbacks.map(|ip| Addr::Tcp(SocketAddr::new(ip, port))).to_vec());
        }
        let found = (bare.unwrap_or(host), port).to_socket_addrs().map_err(|error| {
            io::Error::new(error.kind(), format!("'{text}': no address is known for {host}: {error}"))
        })?;
        let mut addresses: Vec<Addr> = Vec::new();
        for address in found.map(Addr::Tcp) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }

    /// The IP address, for an address that has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Addr::Tcp(address) => Some(address.ip()),
            Addr::Unix(_) => None,
        }
    }

    /// The address as the kernel's calls want it.
    ///
    /// # Errors
    /// When a path is too long for a socket address, 107 bytes on Linux, or has a zero byte, at which the
    /// kernel would cut it in silence.
    pub(crate) fn to_raw(&self) -> io::Result<SockAddr> {
        match self {
            Addr::Tcp(address) => Ok((*address).into()),
            Addr::Unix(path) => {
                let path = path.as_deref().unwrap_or_else(|| Path::new(""));
                let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
                if path.as_os_str().as_bytes().contains(&0) {
                    return Err(wrong("the path has a zero byte in it".to_owned()));
                }
                SockAddr::unix(path).map_err(|_| {
                    let length = path.as_os_str().len();
                    wrong(format!("the path has {length} bytes; a socket's path may have 107 at most"))
                })
            }
        }
    }

    pub(crate) fn domain(&self) -> Domain {
        match self {
            Addr::Tcp(address) => Domain::for_address(*address),
            Addr::Unix(_) => Domain::UNIX,
        }
    }

    /// A dual-stack listener sees IPv4 clients as `::ffff:127.0.0.1`. People, logs and limits should see
    /// the address that the client has.
    pub(crate) fn canonical(address: SocketAddr) -> Addr {
        match address.ip().to_canonical() {
            v4 @ IpAddr::V4(_) => Addr::Tcp(SocketAddr::new(v4, address.port())),
            IpAddr::V6(_) => Addr::Tcp(address), // Whole: a link-local one says by which interface, too.
        }
    }
}

/// As [`Addr::resolve`] reads it, but for control characters in a path: a client chooses its own path, and this
/// goes into logs.
impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(address) => address.fmt(f),
            Addr::Unix(Some(path)) => write!(f, "unix:{}", harmless(&path.to_string_lossy(), &[])),
            Addr::Unix(None) => f.write_str("unix"),
        }
    }
}

/// An error's message without the ` (os error 98)` that std adds: whom the number would help, the words tell
/// as much.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_forge_a_line_of_the_log() {
        let path = Addr::Unix(Some("/tmp/안녕\n#7 connected\u{1b}[2J".into()));
        assert_eq!(path.to_string(), "unix:/tmp/안녕\\n#7 connected\\u{1b}[2J");
    }

    #[test]
    fn ipv4_in_ipv6s_clothes_is_undressed_and_nothing_else_is_changed() {
        let canonical = |text: &str| Addr::canonical(text.parse().unwrap()).to_string();
        assert_eq!(canonical("[::ffff:192.0.2.1]:5"), "192.0.2.1:5");
        for same in ["192.0.2.1:5", "[2001:db8::1]:5", "[fe80::1%2]:5", "[::1]:5"] {
            assert_eq!(canonical(same), same);
        }
    }
}
