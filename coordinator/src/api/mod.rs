//! The gRPC services, and who may call them.
//!
//! | module | story |
//! |---|---|
//! | [`serve`] | the one server of both services |
//! | [`listen`] | connections, and their limits |
//! | [`handshake`] | TLS on them, in order |
//! | [`visits`] | who has shown none, and come with a token |
//! | [`auth`] | who calls, by certificate or token |
//! | [`door`] | what every call passes: revocations and rights |
//! | [`enrolment_service`] | joining and renewing, for nodes without a valid certificate |
//! | [`audit_service`] | whether the audit is whole, and all of it, for operators |
//! | [`trust_service`] | tokens, certificates and revocations, for operators |
//! | [`session`] | an agent's one session |
//! | [`mod@line`] | sessions that are held without gRPC |
//! | [`fleet_service`] | what operators see and steer |
//! | [`permits`] | requests of an agent's session, and what operators see of them |
//! | [`runbook_service`] | runbooks, for operators |
//! | `health` | whether this coordinator does what it is there for |
//! | `reflection` | what it can be asked |
//! | `coordinators` | who there is and who leads |
//! | `follower` | how one that follows answers operators: by the leader, or from the store |
//! | `elsewhere` | how one that follows refuses agents |
//! | `audit` | tells of commands that came by way of one that follows |
//! | `asked` | what exactly a command asked, for the audit |
//! | `follow` | streams to operators |
//! | `convert` | wire types ↔ our own |

mod asked;
pub(crate) mod audit;
pub mod audit_service;
pub mod auth;
pub(crate) mod convert;
pub(crate) mod coordinators;
pub mod door;
pub(crate) mod elsewhere;
pub mod enrolment_service;
pub mod fleet_service;
mod follow;
pub(crate) mod follower;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub mod handshake;
pub(crate) mod health;
pub mod holds;
pub mod line;
pub mod listen;
pub mod permits;
pub(crate) mod reflection;
pub mod runbook_service;
pub mod serve;
pub mod session;
pub mod shown;
pub mod trust_service;
pub mod visits;
