//! The finished server in a browser: the live page, what it needs of HTTP and WebSocket, and no more than that.
//!
//! | module | what is in it |
//! |---|---|
//! | [`refusal`] | the answer to whoever asks wrongly |
//! | [`head`] | a request's head, read strictly |
//! | [`http`] | a request from a socket, and its response |
//! | [`websocket`] | the handshake, and a conversation in messages |
//! | [`live`] | what the page shows, sent to everyone who watches |
//! | [`page`] | the page itself, and the server that serves it |

pub mod head;
pub mod http;
pub mod live;
pub mod page;
pub mod refusal;
pub mod websocket;
