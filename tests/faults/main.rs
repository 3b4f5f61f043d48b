//! Several things broken at once, and machines broken on purpose: see `README.md` beside this file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod accept_errors;
mod call_errors;
mod catalogue;
mod clocks;
mod crowd;
mod drips;
mod flood;
mod hostile_bytes;
mod life;
mod limits;
mod locks;
mod machines;
mod network;
mod stall;
#[path = "../support/mod.rs"]
mod support;
mod tail;
mod too_small;
