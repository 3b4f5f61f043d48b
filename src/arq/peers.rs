//! The server's side, without its socket: whom it knows, and what it answers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::cookie::{Cookies, LIFETIME};
use super::packet::{HEADER, Kind, Malformed, Packet};
use super::receiver::{Receipt, Receiver};

/// What a server allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many messages it keeps a note of, at most: those that are coming, and those that have come lately. One
    /// address may take all places; a server for the open internet would count by address, too.
    pub peers: usize,
    /// How many bytes a message may have, at most.
    pub message: usize,
    /// A message of which nothing comes for so long is forgotten.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { peers: 1024, message: 64 * 1024, idle: Duration::from_secs(30) }
    }
}

/// What a datagram was to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Somebody greets. They get a cookie, and nothing is remembered of them.
    Greeted,
    /// A packet of a message that is coming, or has come.
    Packet(Receipt),
    /// No packet: dropped.
    Malformed(Malformed),
    /// An answer, which is never answered: dropped.
    Answer,
    /// A packet of a message that is not known, without a good cookie or not the first: dropped.
    Unknown,
    /// The first packet of a message, and there is no place for another one: dropped.
    Full,
    /// A packet with which the message would be longer than is allowed: dropped, and the message with it.
    TooLong,
}

/// What has become of all datagrams so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes that have come, whatever they were.
    pub bytes_in: u64,
    /// Bytes of answers: never more than have come.
    pub bytes_out: u64,
    /// Greetings.
    pub greeted: u64,
    /// Packets of messages, with those that had come before.
    pub packets: u64,
    /// Not packets.
    pub malformed: u64,
    /// Answers.
    pub answers: u64,
    /// Of unknown messages.
    pub unknown: u64,
    /// For want of a place.
    pub full: u64,
    /// Of messages that were too long.
    pub too_long: u64,
    /// Messages that came to an end.
    pub whole: u64,
    /// Messages that were forgotten, for nothing came any more.
    pub forgotten: u64,
}

/// What the server does about a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reaction {
    /// What it was.
    pub news: News,
    /// What to send back, to where it came from.
    pub answer: Option<Packet>,
    /// The whole message, once.
    pub message: Option<Vec<u8>>,
}

/// Those who send messages, and how far each is. It has no socket and no clock.
///
/// ```
/// use socket_steps::arq::packet::{Kind, Packet};
/// use socket_steps::arq::peers::{Limits, Peers};
/// use std::time::Duration;
///
/// let (now, client) = (Duration::ZERO, ([192, 0, 2, 1], 5000).into());
/// let mut peers = Peers::new(Limits::default());
/// let cookie = peers.receive(now, client, &Packet::bare(Kind::Hello, 7, 0).encode()).answer.unwrap().cookie;
/// assert_eq!(peers.known(), 0); // nothing is remembered yet
///
/// let packet = Packet { data: "안녕!".into(), ..Packet::bare(Kind::Last, 7, cookie) };
/// let reaction = peers.receive(now, client, &packet.encode());
/// assert_eq!(reaction.answer, Some(packet.acknowledged(8)));
/// assert_eq!(reaction.message, Some("안녕!".into()));
/// ```
#[derive(Debug)]
pub struct Peers {
    limits: Limits,
    cookies: Cookies,
    /// By where they come from, and the cookie that they were begun with.
    transfers: HashMap<(SocketAddr, u64), Transfer>,
    counts: Counts,
    next_look: Duration,
}

/// How often those that are gone are looked for.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

impl Peers {
    /// Nobody is known yet.
    pub fn new(limits: Limits) -> Peers {
        let (transfers, cookies) = (HashMap::new(), Cookies::default());
        Peers { limits, cookies, transfers, counts: Counts::default(), next_look: Duration::ZERO }
    }

    /// Takes in a datagram. Every answer is a bare header: nobody is sent more than came from their address.
    pub fn receive(&mut self, now: Duration, from: SocketAddr, datagram: &[u8]) -> Reaction {
        self.forget(now);
        let reaction = match Packet::decode(datagram) {
            Err(malformed) => Reaction::dropped(News::Malformed(malformed)),
            Ok(packet) => match packet.kind {
                Kind::Cookie | Kind::Ack => Reaction::dropped(News::Answer),
                Kind::Hello => {
                    let cookie = self.cookies.make(now, from, packet.number);
                    let answer = Packet::bare(Kind::Cookie, packet.number, cookie);
                    Reaction { news: News::Greeted, answer: Some(answer), message: None }
                }
                Kind::Data | Kind::Last => self.take_in(now, from, &packet).unwrap_or_else(Reaction::dropped),
            },
        };
        self.counts.count(datagram.len(), &reaction);
        reaction
    }

    /// Takes in a packet of a message, and acknowledges what has come of it so far.
    fn take_in(&mut self, now: Duration, from: SocketAddr, packet: &Packet) -> Result<Reaction, News> {
        let id = (from, packet.cookie);
        if !self.transfers.contains_key(&id) {
            self.begin(now, id, packet)?;
        }
        let transfer = self.transfers.get_mut(&id).ok_or(News::Unknown)?;
        let (receipt, message) = transfer.take_in(now, packet, self.limits.message)?;
        let answer = packet.acknowledged(transfer.receiver.expected());
        Ok(Reaction { news: News::Packet(receipt), answer: Some(answer), message })
    }

    /// Remembers whoever has brought a cookie back with the first packet of a message: from here on, they cost memory.
    fn begin(&mut self, now: Duration, id: (SocketAddr, u64), first: &Packet) -> Result<(), News> {
        if !self.cookies.is_good(now, id.0, first.number, first.cookie) {
            return Err(News::Unknown);
        }
        if self.transfers.len() >= self.limits.peers {
            return Err(News::Full);
        }
        self.transfers.insert(id, Transfer::new(now, first.number));
        Ok(())
    }

    /// Forgets those of whom nothing comes any more, and those whose message has come so long ago that nothing of it
    /// can be on its way.
    pub fn forget(&mut self, now: Duration) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + BETWEEN_LOOKS;
        let (idle, counts) = (self.limits.idle, &mut self.counts);
        self.transfers.retain(|_, transfer| {
            let is_whole = transfer.receiver.has_everything();
            let stays = now.saturating_sub(transfer.news) < if is_whole { LINGER } else { idle };
            counts.forgotten += u64::from(!stays && !is_whole);
            stays
        });
    }

    /// How many messages it keeps a note of.
    pub fn known(&self) -> usize {
        self.transfers.len()
    }

    /// How many bytes of messages it keeps.
    pub fn held(&self) -> usize {
        self.transfers.values().map(Transfer::held).sum()
    }

    /// What has become of all datagrams so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Who has sent a whole message is remembered until nothing has come of it for so long. Its last acknowledgement may be
/// lost: then the last packet comes again, and somebody has to acknowledge it again. And its first packet may have been
/// doubled, and be late: to a server that had forgotten it, it would begin the message once more. Once its cookie is too
/// old, it begins nothing.
const LINGER: Duration = LIFETIME;

/// A message that is coming, or has come.
#[derive(Debug)]
struct Transfer {
    receiver: Receiver,
    message: Vec<u8>,
    is_too_long: bool,
    /// When something new last came of it; or, once it is whole, when anything did.
    news: Duration,
}

impl Transfer {
    fn new(now: Duration, first: u32) -> Transfer {
        Transfer { receiver: Receiver::new(first), message: Vec::new(), is_too_long: false, news: now }
    }

    /// Takes in a packet; with the one that was last missing, the whole message comes out.
    fn take_in(&mut self, now: Duration, packet: &Packet, most: usize) -> Result<(Receipt, Option<Vec<u8>>), News> {
        if self.is_too_long {
            return Err(News::TooLong);
        }
        let receipt = self.receiver.receive(packet.number, packet.kind == Kind::Last, &packet.data);
        self.message.extend(self.receiver.take());
        if self.held() > most {
            (self.receiver, self.message) = (Receiver::new(packet.number), Vec::new());
            self.is_too_long = true;
            return Err(News::TooLong);
        }
        let is_news = matches!(receipt, Receipt::InOrder(_) | Receipt::Early);
        let is_whole = self.receiver.has_everything();
        if is_news || is_whole {
            self.news = now;
        }
        Ok((receipt, (is_whole && is_news).then(|| std::mem::take(&mut self.message))))
    }

    fn held(&self) -> usize {
        self.message.len() + self.receiver.held()
    }
}

impl Reaction {
    fn dropped(news: News) -> Reaction {
        Reaction { news, answer: None, message: None }
    }
}

impl Counts {
    fn count(&mut self, bytes: usize, reaction: &Reaction) {
        self.bytes_in += bytes as u64;
        self.bytes_out += reaction.answer.as_ref().map_or(0, |answer| (HEADER + answer.data.len()) as u64);
        self.whole += u64::from(reaction.message.is_some());
        *match reaction.news {
            News::Greeted => &mut self.greeted,
            News::Packet(_) => &mut self.packets,
            News::Malformed(_) => &mut self.malformed,
            News::Answer => &mut self.answers,
            News::Unknown => &mut self.unknown,
            News::Full => &mut self.full,
            News::TooLong => &mut self.too_long,
        } += 1;
    }
}
