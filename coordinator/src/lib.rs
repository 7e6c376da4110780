//! The coordinator: knows the fleet, and brings whole clusters back in order.
//!
//! ```text
//!  agents ──mTLS──► api/ ──► fleet/ ──► outage/ (pure: is this a power event?)
//!                                          │
//!                                      trigger (pure: what begins by itself?) ─► starter
//!                                                                                  │
//!  operators ──mTLS──► api/ ──► queries, plan, start, pause, resume, abort         │
//!                                 │                                                │
//!              inventory/ ──► plan/ (pure) ◄──────────────────────────────────────┘
//!                               │ Plan: a DAG of typed steps
//!                               ▼
//!                           execute/  journal before dispatch, resume after a crash
//!                               │
//!                            store/   redb; or etcd, when leader/ says that we lead
//! ```
//!
//! `quorum/` asks agents about the etcd members of managed clusters, and judges what may be done to them (pure); `etcd/` is the coordinator's own.
//! `brakes/` keeps operators' holds, `storm/` (pure, and its guard) freezes what many nodes have at once; sessions tell both to agents.
//! `power/` asks machines' management controllers whether they have power. `permit/` (pure, and its keeper) has what takes a node away go in turn, for agents and, through `fleetlock/`, for reboot tools.
//!
//! [`run`](mod@run) puts it together; [`cli`] is what may be typed, [`config`] and [`policy`] what may be tuned, [`pki`] makes the
//! certificates, [`trust`] says who is let in and may do what, [`audit`] keeps what was commanded, [`upkeep`] sees to the store, [`own_boot`] tells how the coordinator's own machine ended, [`notify`] speaks with systemd, [`metrics`] tells Prometheus of the fleet, [`logs`] says where the log goes.

pub mod api;
pub mod audit;
pub mod brakes;
pub mod cli;
pub mod config;
pub mod control_plane;
mod etcd;
pub mod events;
pub mod execute;
pub mod fleet;
pub mod fleetlock;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod inventory;
pub mod kubernetes;
pub mod leader;
pub mod logs;
pub mod metrics;
pub mod notify;
pub mod outage;
pub mod own_boot;
pub mod permit;
pub mod pki;
pub mod plan;
pub mod policy;
pub mod power;
pub mod quorum;
pub mod run;
pub mod runbooks;
pub mod starter;
pub mod store;
pub mod storm;
pub mod trigger;
pub mod trust;
pub mod upkeep;
