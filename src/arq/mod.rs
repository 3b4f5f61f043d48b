//! TCP's promise, built in small over UDP: a message arrives whole, once, or its sender is told.
//!
//! It is a model. TCP sends in both directions, numbers bytes instead of packets, and does much besides: it never sends
//! more than the receiver has room for (flow control) or than the network seems to bear (congestion control), and it
//! acknowledges what has come after a gap (RFC 2018). Nothing else in the kit needs it: it is removed by removing this
//! folder and the programs of chapters 16 and 17.
//!
//! ```text
//!  message ─► Sender ─► Link ─► Peers: cookie, Receiver ─► message
//!               ▲                 │
//!               └────── Link ◄────┘ acknowledgements
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`link`] | a link that loses, doubles, delays, overtakes and damages, by seed |
//! | [`packet`] | a packet, its bytes, its checksum; numbers that begin again at 0 |
//! | [`rto`] | how long to wait before sending again |
//! | [`sender`] | cuts a message, sends, sends again |
//! | [`receiver`] | puts in order |
//! | [`cookie`] | shows that an address is not forged |
//! | [`peers`] | the server's side: whom it knows, what it answers |
//! | [`endpoint`] | both ends, with a socket and a clock; nothing above has either |

pub mod cookie;
pub mod endpoint;
pub mod link;
pub mod packet;
pub mod peers;
pub mod receiver;
pub mod rto;
pub mod sender;
