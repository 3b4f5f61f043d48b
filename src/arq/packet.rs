//! What travels: a packet, its bytes, and how damage is found.

use std::fmt;

/// How many bytes a packet has before its data. An answer has no data, so an answer is never larger than the
/// packet that it answers.
pub const HEADER: usize = 21;

/// How many bytes of data a packet carries at most. With the headers of UDP and IPv6 it stays below 1280 bytes, which
/// every IPv6 link carries in one piece (RFC 8200, section 5). Nothing is cut up on its way.
pub const MAX_DATA: usize = 1200;

/// How many packets may be on the way at once, at most: what a receiver has room for.
pub const MAX_WINDOW: usize = 64;

/// What a packet is for. The client asks and the server answers, and nobody answers an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client: "I have something for you. May I?" Its number is the number of the first packet to come.
    Hello = 1,
    /// Server: "If you can read this, you are where you say you are. Show me this cookie with all that you send."
    Cookie = 2,
    /// Client: a piece of the message.
    Data = 3,
    /// Client: the last piece of the message.
    Last = 4,
    /// Server: "I have everything before this number."
    Ack = 5,
}

impl Kind {
    /// Whether the server says this. Whoever answers these may be talking to itself, or to its like, for ever.
    pub fn is_answer(self) -> bool {
        matches!(self, Kind::Cookie | Kind::Ack)
    }
}

/// A packet. On the wire, numbers with the most significant byte first:
///
/// ```text
/// 0          4      5          9          13                21
/// ┌──────────┬──────┬──────────┬──────────┬─────────────────┬────────
/// │ checksum │ kind │ number   │ echo     │ cookie          │ data …
/// └──────────┴──────┴──────────┴──────────┴─────────────────┴────────
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is for.
    pub kind: Kind,
    /// Its place among the packets of the message; in an acknowledgement, the place that is waited for.
    pub number: u32,
    /// In an acknowledgement, the number of the packet that it answers: so its sender knows how long that took.
    pub echo: u32,
    /// Shows that the sender has read what the server sent it; 0 in the first packet.
    pub cookie: u64,
    /// A piece of the message; nothing in an answer.
    pub data: Vec<u8>,
}

/// Why something is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is shorter than a header.
    Short,
    /// It is longer than any packet.
    Long,
    /// Its checksum is another: some of it has changed on its way.
    Damaged,
    /// The checksum is right, and there is no such kind.
    Kind,
    /// It carries data, and its kind has none.
    Data,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Malformed::Short => "too short",
            Malformed::Long => "too long",
            Malformed::Damaged => "damaged",
            Malformed::Kind => "of an unknown kind",
            Malformed::Data => "with data where none belongs",
        })
    }
}

impl std::error::Error for Malformed {}

impl Packet {
    /// A packet without data.
    pub fn bare(kind: Kind, number: u32, cookie: u64) -> Packet {
        Packet { kind, number, echo: 0, cookie, data: Vec::new() }
    }

    /// The acknowledgement of this packet, when everything before `expected` has come.
    pub fn acknowledged(&self, expected: u32) -> Packet {
        Packet { echo: self.number, ..Packet::bare(Kind::Ack, expected, self.cookie) }
    }

    /// Its bytes on the wire.
    ///
    /// ```
    /// use socket_steps::arq::packet::{Kind, Malformed, Packet};
    ///
    /// let packet = Packet { data: "안녕".into(), ..Packet::bare(Kind::Last, 7, 42) };
    /// let mut bytes = packet.encode();
    /// assert_eq!(Packet::decode(&bytes), Ok(packet));
    ///
    /// bytes[22] ^= 1;
    /// assert_eq!(Packet::decode(&bytes), Err(Malformed::Damaged));
    /// ```
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.push(self.kind as u8);
        bytes.extend(self.number.to_be_bytes());
        bytes.extend(self.echo.to_be_bytes());
        bytes.extend(self.cookie.to_be_bytes());
        bytes.extend(&self.data);
        let checksum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Reads what has arrived.
    ///
    /// The checksum is CRC-32, as in Ethernet. It finds every change of one bit, and every change that touches no more
    /// than 32 bits in a row; of all others it misses one in four thousand million. It is no protection from
    /// someone who changes a packet on purpose, and computes a new checksum.
    ///
    /// # Errors
    /// [`Malformed`]: whoever receives it drops it, as if it had been lost.
    pub fn decode(bytes: &[u8]) -> Result<Packet, Malformed> {
        let (header, data) = bytes.split_first_chunk::<HEADER>().ok_or(Malformed::Short)?;
        if data.len() > MAX_DATA {
            return Err(Malformed::Long);
        }
        let [c0, c1, c2, c3, kind, n0, n1, n2, n3, e0, e1, e2, e3, cookie @ ..] = *header;
        if crc32fast::hash(&bytes[4..]) != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(Malformed::Damaged);
        }
        let kind = match kind {
            1 => Kind::Hello,
            2 => Kind::Cookie,
            3 => Kind::Data,
            4 => Kind::Last,
            5 => Kind::Ack,
            _ => return Err(Malformed::Kind),
        };
        if !matches!(kind, Kind::Data | Kind::Last) && !data.is_empty() {
            return Err(Malformed::Data);
        }
        let number = u32::from_be_bytes([n0, n1, n2, n3]);
        let echo = u32::from_be_bytes([e0, e1, e2, e3]);
        Ok(Packet { kind, number, echo, cookie: u64::from_be_bytes(cookie), data: data.to_vec() })
    }
}

/// How far `to` is ahead of `from`; negative if it is behind.
///
/// Numbers begin again at 0 after 4,294,967,295. So nobody can say which of two is larger; but which of the two is
/// ahead can be said, as long as they are less than half the circle apart (RFC 1982). Hours are like that: 1 o'clock is
/// two hours after 11, although 1 is less than 11.
///
/// ```
/// use socket_steps::arq::packet::distance;
/// assert_eq!(distance(4, 6), 2);
/// assert_eq!(distance(u32::MAX, 1), 2);
/// assert_eq!(distance(1, u32::MAX), -2);
/// ```
pub fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from) as i32
}
