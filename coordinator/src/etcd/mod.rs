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

pub(crate) use blackstart_proto::etcd as wire;
