//! etcd's v3 API, as far as several coordinators need it: our own small client over tonic.
//!
//! The endpoints are tried in turn, each call by a deadline of its own. A call whose answer did not come may have been carried
//! out: whoever writes has to make that harmless (see [`EtcdStore`](crate::store::etcd::EtcdStore)).

mod client;
mod trouble;

pub(crate) use client::{
    Etcd, EtcdError, Leased, created_at, found, holds, put, read, unsettled, written_at,
};
pub(crate) use trouble::{alert, causes};

/// Messages and services generated from `proto/etcd.proto`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub(crate) mod wire {
    tonic::include_proto!("etcdserverpb");
}
