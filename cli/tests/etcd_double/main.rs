//! The double of etcd that drills fall back on: beside real ones, and as a cluster of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod cluster;
mod conversation;
mod member;

#[path = "../../../coordinator/tests/etcd/mod.rs"]
mod ports;
