//! The whole agent over a machine of the test's own: real ledger, real gate files, paused time.

mod brakes;
mod local;
mod machine;
mod orders;
mod permits;
mod reload;
mod repairs;
