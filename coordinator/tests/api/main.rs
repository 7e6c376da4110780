//! The coordinator as those who connect to it see it: over real mutual TLS on loopback, with a real store.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod audit;
mod brakes;
mod clocks;
mod downgrade;
mod enrolment;
mod fleetlock;
mod grpcurl;
mod masters;
mod metrics;
#[path = "../oidc/mod.rs"]
mod oidc;
mod permits;
mod recovery;
mod revocation;
mod rights;
mod rotation;
mod runbooks;
mod sessions;
mod skew;
mod support;
mod tokens;
mod trust;
