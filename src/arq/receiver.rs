//! The receiving side of one message: puts in order what comes, and takes each packet once.

use std::collections::VecDeque;

use super::packet::{MAX_WINDOW, distance};

/// What a packet was to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The one that was waited for. With those that were early, so many packets are in order now.
    InOrder(usize),
    /// It came before one that is still missing, and is kept.
    Early,
    /// It had come before. Its acknowledgement may have been lost: it is acknowledged again.
    Repeated,
    /// So far ahead that there is no room for it, or beyond the end of the message.
    Beyond,
}

/// Takes the packets of one message, in whatever order they come.
///
/// Out of order, it keeps no more than [`MAX_WINDOW`] packets. What is in order waits until it is [taken](Receiver::take).
///
/// ```
/// use socket_steps::arq::receiver::{Receipt, Receiver};
///
/// let mut receiver = Receiver::new(7);
/// assert_eq!(receiver.receive(8, true, b"!"), Receipt::Early);
/// assert_eq!(receiver.expected(), 7); // what it asks for
/// assert_eq!(receiver.receive(7, false, "안녕".as_bytes()), Receipt::InOrder(2));
/// assert_eq!(receiver.receive(7, false, "안녕".as_bytes()), Receipt::Repeated);
/// assert_eq!(receiver.take(), "안녕!".as_bytes());
/// assert!(receiver.has_everything());
/// ```
#[derive(Debug)]
pub struct Receiver {
    /// The number that is waited for: everything before it has come.
    expected: u32,
    /// What has come too early. The first place is for the packet that is waited for, and so is empty.
    early: VecDeque<Option<(bool, Vec<u8>)>>,
    in_order: Vec<u8>,
    has_last: bool,
}

impl Receiver {
    /// Waits for a message whose first packet has this number.
    pub fn new(first: u32) -> Receiver {
        Receiver { expected: first, early: VecDeque::new(), in_order: Vec::new(), has_last: false }
    }

    /// Takes a packet. Whatever it was, [`expected`](Receiver::expected) is what to acknowledge afterwards.
    pub fn receive(&mut self, number: u32, is_last: bool, data: &[u8]) -> Receipt {
        let place = match usize::try_from(distance(self.expected, number)) {
            Err(_) => return Receipt::Repeated,
            Ok(ahead) if ahead >= MAX_WINDOW || self.has_last => return Receipt::Beyond,
            Ok(ahead) => ahead,
        };
        if self.early.len() <= place {
            self.early.resize(place + 1, None);
        }
        if self.early[place].is_some() {
            return Receipt::Repeated;
        }
        self.early[place] = Some((is_last, data.to_vec()));
        match self.put_in_order() {
            0 => Receipt::Early,
            packets => Receipt::InOrder(packets),
        }
    }

    // ANCHOR: put_in_order
    /// Moves what has no gap before it any more.
    fn put_in_order(&mut self) -> usize {
        let mut packets = 0;
        while let Some(Some((is_last, data))) = self.early.front_mut().map(Option::take) {
            self.early.pop_front();
            self.in_order.extend(data);
            self.expected = self.expected.wrapping_add(1);
            packets += 1;
            if is_last {
                self.has_last = true;
                self.early.clear();
            }
        }
        packets
    }
    // ANCHOR_END: put_in_order

    /// The number that is waited for.
    pub fn expected(&self) -> u32 {
        self.expected
    }

    /// Whether the last packet, and everything before it, has come.
    pub fn has_everything(&self) -> bool {
        self.has_last
    }

    /// What has come in order since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.in_order)
    }

    /// How many bytes of data are kept here.
    pub fn held(&self) -> usize {
        self.in_order.len() + self.early.iter().flatten().map(|(_, data)| data.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_put_in_order_across_the_wrap() {
        let mut receiver = Receiver::new(u32::MAX - 1);
        assert_eq!(receiver.receive(1, true, b"d"), Receipt::Early);
        assert_eq!(receiver.receive(u32::MAX, false, b"b"), Receipt::Early);
        assert_eq!(receiver.receive(u32::MAX, false, b"b"), Receipt::Repeated);
        assert_eq!(receiver.receive(u32::MAX - 1, false, b"a"), Receipt::InOrder(2));
        assert_eq!(receiver.expected(), 0);
        assert!(!receiver.has_everything());
        assert_eq!(receiver.receive(0, false, b"c"), Receipt::InOrder(2));
        assert_eq!((receiver.take(), receiver.expected()), (b"abcd".to_vec(), 2));
        assert!(receiver.has_everything());
    }

    #[test]
    fn no_more_is_kept_than_the_window() {
        let mut receiver = Receiver::new(0);
        for number in 1..1000 {
            let receipt = receiver.receive(number, false, &[0; 10]);
            let fits = (number as usize) < MAX_WINDOW;
            assert_eq!(receipt, if fits { Receipt::Early } else { Receipt::Beyond }, "{number}");
        }
        assert_eq!(receiver.held(), (MAX_WINDOW - 1) * 10);
        assert_eq!(receiver.receive(0, false, &[0; 10]), Receipt::InOrder(MAX_WINDOW));
    }

    #[test]
    fn nothing_comes_after_the_last() {
        let mut receiver = Receiver::new(5);
        assert_eq!(receiver.receive(6, false, b"after"), Receipt::Early);
        assert_eq!(receiver.receive(5, true, b"last"), Receipt::InOrder(1));
        assert_eq!(receiver.receive(6, false, b"after"), Receipt::Beyond);
        assert_eq!(receiver.receive(5, true, b"last"), Receipt::Repeated);
        assert_eq!(receiver.take(), b"last");
    }
}
