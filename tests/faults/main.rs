//! Several things broken at once, and machines broken on purpose: see `README.md` beside this file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod accept_errors;
mod call_errors;
mod catalogue;
mod clocks;
mod crowd;
mod cut_short;
mod drips;
mod echoed;
mod flood;
mod hostile_bytes;
mod lane;
mod life;
mod limits;
mod locks;
mod machines;
mod network;
mod proxy;
mod random;
mod soak;
mod stall;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod through;
mod too_small;
mod visitors;
mod watched;
