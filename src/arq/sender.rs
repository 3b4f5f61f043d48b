//! The sending side of one message: cuts it into packets, and sends each until it has been acknowledged.

use std::collections::VecDeque;
use std::time::Duration;

use super::packet::{Kind, MAX_DATA, MAX_WINDOW, Malformed, Packet, distance};
use super::rto::Rto;

/// How to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many packets may be on the way at once: 1 is stop-and-wait, [`MAX_WINDOW`] is the most.
    pub window: usize,
    /// How many bytes of data a packet carries, at most [`MAX_DATA`].
    pub piece: usize,
    /// If nothing new has been acknowledged for so long, give up.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { window: MAX_WINDOW, piece: MAX_DATA, patience: Duration::from_secs(30) }
    }
}

/// Why a packet is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// For the first time.
    New,
    /// Again: nothing was acknowledged in time.
    Silence,
    /// Again: three acknowledgements have repeated that it is waited for.
    Repeated,
    /// Again: one that was missing has arrived, and this one is missing, too.
    NextGap,
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is something to send, or to wait for.
    Sending,
    /// Everything has been acknowledged.
    Delivered,
    /// Nothing new was acknowledged for too long. Whether the message has arrived is not known.
    GaveUp,
}

/// What has been done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets sent, with those sent again.
    pub sent: u64,
    /// Of these: sent again because of silence.
    pub after_silence: u64,
    /// Of these: sent again because acknowledgements had shown a gap.
    pub after_gaps: u64,
    /// What arrived and was no packet.
    pub malformed: u64,
    /// Packets that arrived and were of no use: old ones, or not meant for us.
    pub useless: u64,
}

impl Tally {
    /// Packets that were sent again, whatever the reason.
    pub fn sent_again(&self) -> u64 {
        self.after_silence + self.after_gaps
    }
}

/// This many acknowledgements that say the same are no accident of the order in which packets came (RFC 5681).
const REPEATED: u32 = 3;

/// Sends one message. It has no socket and no clock: it says what to send, and is told what has come, and what time it is.
///
/// ```
/// use socket_steps::arq::packet::{Kind, Packet};
/// use socket_steps::arq::sender::{Options, Sender, State, Why};
/// use std::time::Duration;
///
/// let mut sender = Sender::new("안녕!".into(), 7, Options { piece: 6, ..Options::default() });
/// let now = Duration::ZERO;
/// let (hello, _) = sender.next_packet(now).unwrap();
/// assert_eq!(hello, Packet::bare(Kind::Hello, 7, 0));
///
/// sender.receive(now, &Packet::bare(Kind::Cookie, 7, 42).encode());
/// let (first, why) = sender.next_packet(now).unwrap();
/// assert_eq!((first.number, &first.data[..], why), (7, "안녕".as_bytes(), Why::New));
/// assert_eq!(sender.next_packet(now), None); // waits
///
/// let later = sender.wakes_at().unwrap();
/// let (again, why) = sender.next_packet(later).unwrap();
/// assert_eq!((again.number, why), (7, Why::Silence));
///
/// sender.receive(later, &first.acknowledged(8).encode());
/// let (last, _) = sender.next_packet(later).unwrap();
/// assert_eq!((last.kind, &last.data[..]), (Kind::Last, "!".as_bytes()));
/// sender.receive(later, &last.acknowledged(9).encode());
/// assert_eq!(sender.state(), State::Delivered);
/// ```
#[derive(Debug)]
pub struct Sender {
    message: Vec<u8>,
    /// The number of the first packet.
    first: u32,
    options: Options,
    cookie: Option<u64>,
    /// How many packets have been acknowledged.
    acked: usize,
    /// Those after them that have been sent, in their order.
    on_the_way: VecDeque<Flight>,
    /// Sent again is the first on the way.
    again: Option<Why>,
    /// How often the last acknowledgement has been repeated.
    repeated: u32,
    /// What was sent before this place may have more gaps.
    gaps_until: usize,
    rto: Rto,
    timer: Option<Duration>,
    /// When something new was last acknowledged.
    news: Option<Duration>,
    gave_up: bool,
    tally: Tally,
}

/// A packet on the way.
#[derive(Debug)]
struct Flight {
    /// When it was sent.
    at: Duration,
    /// It was sent once, and has not been answered.
    measures: bool,
}

impl Sender {
    /// Cuts a message into packets; the first has this number. Options beyond their limits are brought within them.
    pub fn new(message: Vec<u8>, first: u32, options: Options) -> Sender {
        let window = options.window.clamp(1, MAX_WINDOW);
        let piece = options.piece.clamp(1, MAX_DATA);
        Sender {
            message,
            first,
            options: Options { window, piece, ..options },
            cookie: None,
            acked: 0,
            on_the_way: VecDeque::new(),
            again: None,
            repeated: 0,
            gaps_until: 0,
            rto: Rto::default(),
            timer: None,
            news: None,
            gave_up: false,
            tally: Tally::default(),
        }
    }

    /// The next packet that may be sent now, and why; `None` until something arrives, or it is time to
    /// [wake up](Sender::wakes_at).
    pub fn next_packet(&mut self, now: Duration) -> Option<(Packet, Why)> {
        if self.timer.is_some_and(|at| at <= now) {
            self.nothing_came();
        }
        self.gave_up |= self.gives_up_at().is_some_and(|at| at <= now);
        if self.state() != State::Sending {
            return None;
        }
        let why = self.reason()?;
        let place = if why == Why::New { self.on_the_way.len() } else { 0 };
        let flight = Flight { at: now, measures: why == Why::New };
        match self.on_the_way.get_mut(place) {
            Some(first) => *first = flight,
            None => self.on_the_way.push_back(flight),
        }
        if place == 0 {
            self.timer = Some(now + self.rto.now()); // It is for the first on the way.
        }
        self.count(now, why);
        Some((self.packet(place), why))
    }

    // ANCHOR: reason
    /// Why a packet may be sent now, if one may: an old one again, or a new one, if there is room on the way.
    fn reason(&mut self) -> Option<Why> {
        let has_room = self.on_the_way.len() < self.room();
        self.again.take().or(has_room.then_some(Why::New))
    }

    /// Nothing was acknowledged in time. The first on the way is sent again, and waited for longer.
    fn nothing_came(&mut self) {
        self.timer = None;
        self.rto.back_off();
        self.again = Some(Why::Silence);
        self.gaps_until = self.acked + self.on_the_way.len(); // Others of these may be missing, too.
    }
    // ANCHOR_END: reason

    /// How many packets may be on the way. Until the server has shown a cookie and taken the first packet, one.
    fn room(&self) -> usize {
        let window = if self.acked == 0 { 1 } else { self.options.window };
        window.min(self.packets() - self.acked)
    }

    /// The packet that is so many places after the last that was acknowledged.
    fn packet(&self, place: usize) -> Packet {
        let Some(cookie) = self.cookie else { return Packet::bare(Kind::Hello, self.first, 0) };
        let index = self.acked + place;
        let begin = index * self.options.piece;
        let end = self.message.len().min(begin + self.options.piece);
        let kind = if index + 1 == self.packets() { Kind::Last } else { Kind::Data };
        let data = self.message[begin..end].to_vec();
        Packet { kind, number: self.number(index), echo: 0, cookie, data }
    }

    /// Takes in what has arrived, and returns it as it was understood.
    ///
    /// # Errors
    /// When it is no packet. It has been counted, and is otherwise as good as lost.
    pub fn receive(&mut self, now: Duration, datagram: &[u8]) -> Result<Packet, Malformed> {
        let packet = Packet::decode(datagram).inspect_err(|_| self.tally.malformed += 1)?;
        let is_news = match packet.kind {
            Kind::Cookie => packet.number == self.first && self.welcome(now, packet.cookie),
            Kind::Ack => self.cookie == Some(packet.cookie) && self.acknowledged(now, &packet),
            // A server asks nothing: this is not for us.
            Kind::Hello | Kind::Data | Kind::Last => false,
        };
        self.tally.useless += u64::from(!is_news);
        Ok(packet)
    }

    /// The server has answered the greeting.
    fn welcome(&mut self, now: Duration, cookie: u64) -> bool {
        let is_waited_for = self.cookie.is_none() && !self.on_the_way.is_empty();
        if is_waited_for {
            self.cookie = Some(cookie);
            self.measure(now, 0);
            self.arrived(now, 1);
        }
        is_waited_for
    }

    /// The server has everything before a number. Returns whether that says anything.
    fn acknowledged(&mut self, now: Duration, ack: &Packet) -> bool {
        let base = self.number(self.acked);
        self.measure(now, distance(base, ack.echo));
        match usize::try_from(distance(base, ack.number)) {
            Err(_) => false, // An old one, overtaken by newer ones.
            Ok(0) => self.not_yet(),
            Ok(packets) if packets <= self.on_the_way.len() => {
                self.acked += packets;
                self.arrived(now, packets);
                if self.acked < self.gaps_until {
                    self.again = Some(Why::NextGap);
                }
                true
            }
            Ok(_) => false, // That has not even been sent.
        }
    }

    /// The server has taken in something, but not the first that is on the way, if any is.
    fn not_yet(&mut self) -> bool {
        if self.on_the_way.is_empty() {
            return false;
        }
        self.repeated += 1;
        if self.repeated == REPEATED && self.acked >= self.gaps_until {
            self.again = Some(Why::Repeated);
            self.gaps_until = self.acked + self.on_the_way.len();
        }
        true
    }

    /// The first so many on the way have arrived.
    fn arrived(&mut self, now: Duration, packets: usize) {
        self.on_the_way.drain(..packets);
        self.again = None;
        self.repeated = 0;
        self.news = Some(now);
        self.timer = if self.on_the_way.is_empty() { None } else { Some(now + self.rto.now()) };
    }

    /// The packet at this place has been answered; how long did it take? Of one that was sent twice, nobody knows
    /// which of the two the answer is for: it measures nothing (Karn's algorithm).
    fn measure(&mut self, now: Duration, place: i32) {
        let flight = usize::try_from(place).ok().and_then(|place| self.on_the_way.get_mut(place));
        if let Some(flight) = flight.filter(|flight| flight.measures) {
            flight.measures = false;
            self.rto.measured(now.saturating_sub(flight.at));
        }
    }

    /// When to ask for the next packet, if nothing arrives before.
    pub fn wakes_at(&self) -> Option<Duration> {
        let wakes_at = [self.timer, self.gives_up_at()].into_iter().flatten().min();
        wakes_at.filter(|_| self.state() == State::Sending)
    }

    fn gives_up_at(&self) -> Option<Duration> {
        self.news.map(|news| news.saturating_add(self.options.patience))
    }

    /// How it stands.
    pub fn state(&self) -> State {
        match (self.acked == self.packets(), self.gave_up) {
            (true, _) => State::Delivered,
            (false, true) => State::GaveUp,
            (false, false) => State::Sending,
        }
    }

    /// How many packets the message is cut into: at least one, which may be empty.
    pub fn packets(&self) -> usize {
        self.message.len().div_ceil(self.options.piece).max(1)
    }

    /// What has been done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    fn number(&self, index: usize) -> u32 {
        self.first.wrapping_add(index as u32)
    }

    fn count(&mut self, now: Duration, why: Why) {
        self.news.get_or_insert(now);
        self.tally.sent += 1;
        self.tally.after_silence += u64::from(why == Why::Silence);
        self.tally.after_gaps += u64::from(matches!(why, Why::Repeated | Why::NextGap));
    }
}
