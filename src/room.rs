//! A room: whatever one in it says, all the others hear.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::outbox::{GRACE, Outbox};

/// How a line is written to a member: its bytes to what goes over the wire.
pub type Encoding = fn(&[u8]) -> Vec<u8>;

/// Who is together, and hears the same. Clones are the same room.
///
/// Nobody in it waits for anybody: what is said goes into the others' [outboxes](Outbox), and whoever does not
/// read what is in theirs is ended, alone.
#[derive(Clone, Debug, Default)]
pub struct Room(Arc<Mutex<Members>>);

#[derive(Debug, Default)]
struct Members {
    last: u64,
    present: BTreeMap<u64, Member>,
}

#[derive(Debug)]
struct Member {
    outbox: Outbox,
    encoding: Encoding,
}

/// A line on a stream: its bytes, and a newline.
pub fn as_line(line: &[u8]) -> Vec<u8> {
    [line, b"\n"].concat()
}

impl Room {
    /// Comes in, and is there until what it gets is dropped.
    pub fn enter(&self, outbox: &Outbox, encoding: Encoding) -> Presence {
        let mut members = self.lock();
        members.last += 1;
        let number = members.last;
        members.present.insert(number, Member { outbox: outbox.clone(), encoding });
        Presence { room: self.clone(), number }
    }

    /// Gives everyone something that is worth nothing once there is a newer one.
    pub fn replace(&self, bytes: &Arc<[u8]>) {
        self.lock().present.values().for_each(|member| member.outbox.replace(Arc::clone(bytes)));
    }

    /// Whether nobody is there.
    pub fn is_empty(&self) -> bool {
        self.lock().present.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Being in a room. Dropped, it leaves.
#[derive(Debug)]
pub struct Presence {
    room: Room,
    number: u64,
}

impl Presence {
    /// Says a line, its newline left out, to everyone else.
    pub fn say(&self, line: &[u8]) {
        // The same bytes for all who are spoken to in the same way: a line is encoded once, not a thousand times.
        let mut encoded: Vec<(Encoding, Arc<[u8]>)> = Vec::new();
        // For all of them together: each of its own, a hundred who do not read would silence the room for ten seconds.
        let mut patience = GRACE;
        let members = self.room.lock();
        for (_, member) in members.present.iter().filter(|(number, _)| **number != self.number) {
            let known = encoded.iter().find(|(encoding, _)| std::ptr::fn_addr_eq(*encoding, member.encoding));
            let bytes = match known {
                Some((_, bytes)) => Arc::clone(bytes),
                None => {
                    let bytes: Arc<[u8]> = (member.encoding)(line).into();
                    encoded.push((member.encoding, Arc::clone(&bytes)));
                    bytes
                }
            };
            member.outbox.push_with(bytes, &mut patience);
        }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.room.lock().present.remove(&self.number);
    }
}
