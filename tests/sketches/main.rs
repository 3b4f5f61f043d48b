//! Steps on the way, tempting wrong versions and answers to exercises that the book quotes. Each is compiled,
//! and each is run: a wrong one has to fail as its page says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod accept_in_thread;
mod asks_for_missing;
mod both_ways;
mod close_too_early;
mod connect_fairly;
mod endless_head;
mod forgotten_zero;
mod full_backlog;
mod join_all;
mod length_prefix;
mod no_bind;
mod nobody_writes;
mod one_kind;
mod own_handlers;
mod raise_the_limit;
mod read_time_out;
mod shared_receiver;
mod time_wait;
mod two_writers;
mod what_they_return;
mod which_number;
mod woken_read;
