//! Several things broken at once, and machines broken on purpose: see `README.md` beside this file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod accept_errors;
mod call_errors;
mod catalogue;
mod clocks;
mod control_group;
mod corpus;
mod crowd;
mod cut_short;
mod drips;
mod echoed;
mod flood;
mod frames;
mod heads;
mod hostile_bytes;
mod lane;
mod life;
mod limits;
mod lines;
mod locks;
mod machines;
mod network;
mod packets;
mod proxy;
mod random;
mod soak;
mod stall;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod through;
mod too_small;
mod values;
mod visitors;
mod watched;
mod words;
