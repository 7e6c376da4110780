//! The wire between Blackstart's agent, coordinator and CLI, and the few domain types they share.
//!
//! | module | story |
//! |---|---|
//! | [`boot`] | which start of which machine this is, and how the one before it ended |
//! | [`component`] | what of a control plane can be set aside, and where its manifests are |
//! | [`codec`] | how messages are put on the wire |
//! | [`yaml`] | reads YAML so that every error is told, with line and field |
//! | [`identity`] | who a certificate speaks for |
//! | [`leader`] | what coordinators that follow say: who leads, how an answer came about, and for whom they ask |
//! | [`listen`] | listeners that take a few connections at a time |
//! | [`remedy`] | the remedies that can be held, by name |
//! | [`tls`] | the three PEM files, and mutual TLS on the client side |
//! | [`v1`] | messages and services generated from `proto/blackstart/v1` |

pub use prost::Message;

pub mod boot;
pub mod codec;
pub mod component;
pub mod identity;
pub mod leader;
pub mod listen;
pub mod remedy;
pub mod tls;
pub mod yaml;

/// Messages and services of `blackstart.v1`, generated at build time; documented in the `.proto` files.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("blackstart.v1");
}
