//! The wire between Blackstart's agent, coordinator and CLI, and the few domain types they share.
//!
//! | module | story |
//! |---|---|
//! | [`boot`] | which start of which machine this is, and how the one before it ended |
//! | [`clock_floor`] | what time it is at least, where the clock may be wrong |
//! | [`component`] | what of a control plane can be set aside, and where its manifests are |
//! | [`codec`] | how messages are put on the wire |
//! | [`yaml`] | reads YAML so that every error is told, with line and field |
//! | [`identity`] | who a certificate speaks for |
//! | [`leader`] | what coordinators that follow say: who leads, how an answer came about, and for whom they ask |
//! | [`mod@line`] | a session's messages right over TLS |
//! | [`listen`] | listeners that take a few connections at a time |
//! | [`machine`] | names a machine without giving its id away |
//! | [`part`] | what of a control plane a run can bounce |
//! | [`remedy`] | the remedies that can be held, by name |
//! | [`tls`] | the three PEM files, and mutual TLS on the client side |
//! | [`etcd`] | messages, clients and services of etcd's own API, generated from `etcd/etcd.proto` |
//! | [`v1`] | messages and services generated from `proto/blackstart/v1` |

pub use prost::Message;

pub mod boot;
pub mod clock_floor;
pub mod codec;
pub mod component;
pub mod identity;
pub mod leader;
pub mod line;
pub mod listen;
pub mod machine;
pub mod metrics;
pub mod part;
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

/// The descriptors of [`v1`]: an encoded `google.protobuf.FileDescriptorSet`, without comments.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("blackstart.v1");

/// Messages, clients and services of etcd's API, generated at build time; documented in `etcd/etcd.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod etcd {
    tonic::include_proto!("etcdserverpb");
}
