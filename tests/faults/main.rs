//! Several things broken at once, and machines broken on purpose: see `README.md` beside this file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod catalogue;
mod cut_short;
mod echoed;
mod lane;
mod proxy;
mod random;
mod soak;
#[path = "../support/mod.rs"]
mod support;
mod through;
mod visitors;
mod watched;
