//! `blackstart etcd` and the runbooks of etcd before real clusters of three members.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod all;
mod bed;
mod crash;
mod kubelet;
#[path = "../../src/drill/masters/machine.rs"]
mod machine;
mod member;
mod outage;
mod power;
mod quorum;
mod schedule;
mod snapshots;
mod status;
mod store;
mod watcher;

#[path = "../../../coordinator/tests/etcd/mod.rs"]
mod ports;
