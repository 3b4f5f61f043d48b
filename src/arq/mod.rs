//! TCP's promise, built in small over UDP.
//!
//! | module | what is in it |
//! |---|---|
//! | [`link`] | a link that loses, doubles, delays, overtakes and damages, by seed |

pub mod link;
