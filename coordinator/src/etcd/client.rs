//! One etcd cluster, by its members' addresses.

mod reads;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use blackstart_proto::tls::{TlsFileError, TlsFiles};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Response, Status};

use super::trouble;
use super::wire::kv_client::KvClient;
use super::wire::lease_client::LeaseClient;
use super::wire::{
    Compare, KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, ResponseOp, TxnRequest, TxnResponse, compare, request_op, response_op,
};
use crate::config::EtcdSettings;
use crate::leader::tenure::uptime;

/// A member gets no longer than this for one attempt, and no less than that, whatever the call's deadline.
const ATTEMPT: Duration = Duration::from_secs(2);
const ATTEMPT_LEAST: Duration = Duration::from_millis(300);
/// Between one round of all members and the next.
const ROUND: Duration = Duration::from_millis(100);
/// A connection that answers no ping within this is dropped.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// No larger answer is taken, bytes: a page of a journal.
const MAX_ANSWER: usize = 64 << 20;

/// Why etcd did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EtcdError {
    /// It answered, and refused.
    #[error("etcd refused: {why}")]
    Refused {
        /// In its words.
        why: String,
        /// An earlier attempt of the same call went unanswered: it may have been carried out.
        open: bool,
    },
    /// No member answered in time. It may have been carried out.
    #[error("no etcd member answered within {within:?}: {tried}")]
    Silent {
        /// The deadline.
        within: Duration,
        /// Each member with what came of it.
        tried: String,
    },
}

/// A failed write that may have been carried out all the same.
pub(crate) fn unsettled(error: &EtcdError) -> bool {
    match error {
        EtcdError::Refused { open, .. } => *open,
        EtcdError::Silent { .. } => true,
    }
}

/// The etcd cluster. Cheap to clone. Connections are made when they are needed.
#[derive(Debug, Clone)]
pub(crate) struct Etcd {
    members: Arc<Vec<Member>>,
    /// The member that answered last.
    turn: Arc<AtomicUsize>,
    /// To name them when they are refused.
    files: Option<Arc<TlsFiles>>,
}

/// A lease as it was granted or renewed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leased {
    pub(crate) id: i64,
    pub(crate) ttl: Duration,
    /// Time since boot before the request that was answered: etcd counts from a later moment.
    pub(crate) asked_at: Duration,
}

impl Leased {
    fn new(id: i64, ttl: i64, asked_at: Duration) -> Self {
        Self {
            id,
            ttl: Duration::from_secs(u64::try_from(ttl).unwrap_or(0)),
            asked_at,
        }
    }
}

#[derive(Debug)]
struct Member {
    endpoint: String,
    channel: Channel,
}

/// The files, or what they hold, cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EtcdSetupError {
    #[error(transparent)]
    File(#[from] TlsFileError),
    #[error("use etcd endpoint {endpoint}")]
    Endpoint {
        endpoint: String,
        #[source]
        source: tonic::transport::Error,
    },
}

impl Etcd {
    /// # Errors
    /// Certificate files that cannot be used. Whether anybody answers is not asked.
    pub(crate) fn new(settings: &EtcdSettings) -> Result<Self, EtcdSetupError> {
        let tls = tls(settings)?;
        let member = |endpoint: &String| {
            let failed = |source| EtcdSetupError::Endpoint {
                endpoint: endpoint.clone(),
                source,
            };
            let mut built = Endpoint::from_shared(endpoint.clone()).map_err(failed)?;
            if endpoint.starts_with("https:") {
                built = built.tls_config(tls.clone()).map_err(failed)?;
            }
            let channel = built
                .tcp_nodelay(true)
                .connect_timeout(ATTEMPT)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .connect_lazy();
            Ok::<_, EtcdSetupError>(Member {
                endpoint: endpoint.clone(),
                channel,
            })
        };
        let members = settings.endpoints.iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self {
            members: Arc::new(members),
            turn: Arc::default(),
            files: settings.tls.clone().map(Arc::new),
        })
    }

    /// Asks one member after the other until one answers, or `within` is over.
    async fn call<T, F>(&self, within: Duration, ask: impl Fn(Channel) -> F) -> Result<T, EtcdError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + within;
        let count = self.members.len();
        let share = within / u32::try_from(count).unwrap_or(1).max(1);
        let patience = share.clamp(ATTEMPT_LEAST, ATTEMPT);
        let mut tried = BTreeMap::new();
        let mut open = false;
        let first = self.turn.load(Ordering::Relaxed) % count;
        for attempt in 0_usize.. {
            let turn = (first + attempt) % count;
            let member = &self.members[turn];
            let until = deadline.min(Instant::now() + patience);
            let why = match timeout_at(until, ask(member.channel.clone())).await {
                Ok(Ok(response)) => {
                    self.turn.store(turn, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => {
                    if !passes(status.code()) {
                        let why = format!("{} ({})", status.message(), member.endpoint);
                        return Err(EtcdError::Refused { why, open });
                    }
                    open |= !never_sent(&status);
                    trouble::why(&status, &member.endpoint, self.files.as_deref())
                }
                Err(_) => {
                    open = true;
                    format!("no answer within {} ms", patience.as_millis())
                }
            };
            tried.insert(turn, format!("{}: {why}", member.endpoint));
            if (attempt + 1).is_multiple_of(count) {
                sleep(ROUND).await;
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        let tried: Vec<_> = tried.into_values().collect();
        Err(EtcdError::Silent {
            within,
            tried: tried.join("; "),
        })
    }

    /// One transaction.
    pub(crate) async fn txn(&self, within: Duration, txn: &TxnRequest) -> Result<TxnResponse, EtcdError> {
        let ask = |channel| async move {
            let mut kv = KvClient::new(channel).max_decoding_message_size(MAX_ANSWER);
            kv.txn(txn.clone()).await
        };
        self.call(within, ask).await
    }

    /// A new lease of so many seconds; etcd may make it longer.
    pub(crate) async fn grant(&self, within: Duration, ttl: i64) -> Result<Leased, EtcdError> {
        let ask = |channel| async move {
            let asked_at = uptime();
            let mut leases = LeaseClient::new(channel);
            let granted = leases.lease_grant(LeaseGrantRequest { ttl }).await?.into_inner();
            Ok(Response::new(Leased::new(granted.id, granted.ttl, asked_at)))
        };
        self.call(within, ask).await
    }

    /// Ends a lease, and with it the keys that are bound to it.
    pub(crate) async fn revoke(&self, within: Duration, id: i64) -> Result<(), EtcdError> {
        let ask = |channel| async move {
            let mut leases = LeaseClient::new(channel);
            leases.lease_revoke(LeaseRevokeRequest { id }).await
        };
        self.call(within, ask).await.map(drop)
    }

    /// Renews a lease. `None`: it is gone.
    pub(crate) async fn keep_alive(&self, within: Duration, id: i64) -> Result<Option<Leased>, EtcdError> {
        let ask = |channel| async move {
            let asked_at = uptime();
            let once = tokio_stream::once(LeaseKeepAliveRequest { id });
            let mut answers = LeaseClient::new(channel)
                .lease_keep_alive(once)
                .await?
                .into_inner();
            let answer = answers.message().await?;
            let answer = answer.ok_or_else(|| Status::unavailable("the stream ended without an answer"))?;
            let renewed = (answer.ttl > 0).then(|| Leased::new(id, answer.ttl, asked_at));
            Ok(Response::new(renewed))
        };
        self.call(within, ask).await
    }
}

fn tls(settings: &EtcdSettings) -> Result<ClientTlsConfig, EtcdSetupError> {
    let mut config = ClientTlsConfig::new();
    let Some(files) = &settings.tls else {
        return Ok(config);
    };
    let read = |what, path: &std::path::Path| {
        fs::read(path).map_err(|source| TlsFileError {
            what,
            path: path.to_owned(),
            source,
        })
    };
    config = config.ca_certificate(Certificate::from_pem(read("etcd's authority", &files.ca)?));
    let certificate = read("our certificate for etcd", &files.certificate)?;
    let key = read("its key", &files.key)?;
    Ok(config.identity(Identity::from_pem(certificate, key)))
}

/// Another member, or the same one later, may still do it.
#[allow(clippy::match_same_arms, reason = "each code is looked at")]
const fn passes(code: Code) -> bool {
    match code {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => true,
        Code::Aborted => true,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// There was no connection, so nothing can have come of it.
fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

pub(crate) fn one(key: &[u8]) -> RangeRequest {
    RangeRequest {
        key: key.to_vec(),
        ..RangeRequest::default()
    }
}

/// The read of a key, as a part of a transaction.
pub(crate) fn read(key: &[u8]) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestRange(one(key))),
    }
}

/// The write of a key, as a part of a transaction; `lease` 0 is none.
pub(crate) fn put(key: &[u8], value: &[u8], lease: i64) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: key.to_vec(),
            value: value.to_vec(),
            lease,
        })),
    }
}

fn compare(key: &[u8], target: compare::CompareTarget, is: compare::TargetUnion) -> Compare {
    Compare {
        result: compare::CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_vec(),
        target_union: Some(is),
    }
}

/// The key was created at that revision; 0: it is not there.
pub(crate) fn created_at(key: &[u8], revision: i64) -> Compare {
    let is = compare::TargetUnion::CreateRevision(revision);
    compare(key, compare::CompareTarget::Create, is)
}

/// The key was last written at that revision.
pub(crate) fn written_at(key: &[u8], revision: i64) -> Compare {
    let is = compare::TargetUnion::ModRevision(revision);
    compare(key, compare::CompareTarget::Mod, is)
}

/// The key has that value.
pub(crate) fn holds(key: &[u8], value: &[u8]) -> Compare {
    let is = compare::TargetUnion::Value(value.to_vec());
    compare(key, compare::CompareTarget::Value, is)
}

/// What the reads of a transaction found, in their order.
pub(crate) fn found(responses: Vec<ResponseOp>) -> impl Iterator<Item = Option<KeyValue>> {
    responses.into_iter().filter_map(|answer| match answer.response {
        Some(response_op::Response::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
        Some(response_op::Response::ResponsePut(_)) | None => None,
    })
}
