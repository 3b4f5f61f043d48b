//! The tempting wrong versions that the book shows: each is compiled, and its test runs it and sees it fail
//! as the page says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
