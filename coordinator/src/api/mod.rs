//! The gRPC services, and who may call them.
//!
//! | module | story |
//! |---|---|
//! | [`serve`] | the one server of both services |
//! | [`listen`] | connections, and their limits |
//! | [`handshake`] | TLS on them, in order |
//! | [`auth`] | who calls, by certificate |
//! | [`session`] | an agent's one session |
//! | [`fleet_service`] | what operators see and steer |
//! | [`permits`] | requests of an agent's session, and what operators see of them |
//! | [`runbook_service`] | runbooks, for operators |
//! | `coordinators` | who there is and who leads |
//! | `follower` | how one that follows answers operators: by the leader, or from the store |
//! | `elsewhere` | how one that follows refuses agents |
//! | `audit` | tells of commands that came by way of one that follows |
//! | `follow` | streams to operators |
//! | `convert` | wire types ↔ our own |

pub(crate) mod audit;
pub mod auth;
pub(crate) mod convert;
pub(crate) mod coordinators;
pub(crate) mod elsewhere;
pub mod fleet_service;
mod follow;
pub(crate) mod follower;
pub mod handshake;
pub mod holds;
pub mod listen;
pub mod permits;
pub mod runbook_service;
pub mod serve;
pub mod session;
