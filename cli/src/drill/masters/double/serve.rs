//! What clients are answered: etcd's KV, Cluster and Maintenance over gRPC, and `/health` on the metrics port.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blackstart_proto::etcd::cluster_server::{Cluster, ClusterServer};
use blackstart_proto::etcd::kv_server::{Kv, KvServer};
use blackstart_proto::etcd::maintenance_server::{Maintenance, MaintenanceServer};
use blackstart_proto::etcd::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, RangeRequest, RangeResponse,
    ResponseHeader, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse,
};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::member::{Input, Told};
use super::store::{Outcome, Refusal, check};
use super::wire::Change;
use super::{VERSION, flags, ids};

/// Pieces of a snapshot have so many bytes, as etcd's.
const PIECE: usize = 32 << 10;
/// Pieces on their way.
const PIECES: usize = 8;
/// Who asks for the health says so at once.
const ASKS: Duration = Duration::from_secs(2);

impl From<Refusal> for Status {
    /// As etcd's api/v3rpc/rpctypes/error.go has them.
    fn from(refusal: Refusal) -> Self {
        let (code, words) = match refusal {
            Refusal::EmptyKey => (Code::InvalidArgument, "key is not provided"),
            Refusal::DuplicateKey => (Code::InvalidArgument, "duplicate key given in txn request"),
            Refusal::TooLarge => (Code::InvalidArgument, "request is too large"),
            Refusal::Compacted => (Code::OutOfRange, "mvcc: required revision has been compacted"),
            Refusal::Future => (Code::OutOfRange, "mvcc: required revision is a future revision"),
            Refusal::NoLease => (Code::NotFound, "requested lease not found"),
            Refusal::NotPlayed => (Code::Unimplemented, "this double of etcd does not play that"),
            Refusal::BadUrls => (Code::InvalidArgument, "given member URLs are invalid"),
            Refusal::UrlExists => (Code::FailedPrecondition, "Peer URLs already exists"),
            Refusal::TooManyLearners => (Code::FailedPrecondition, "too many learner members in cluster"),
            Refusal::NotFound => (Code::NotFound, "member not found"),
            Refusal::NotLearner => (Code::FailedPrecondition, "can only promote a learner member"),
            Refusal::NotReady => (
                Code::FailedPrecondition,
                "can only promote a learner member which is in sync with leader",
            ),
            Refusal::Unhealthy => (Code::Unavailable, "unhealthy cluster"),
            Refusal::Learner => (Code::Unavailable, "rpc not supported for learner"),
            Refusal::Stopped => (Code::Unavailable, "server stopped"),
            Refusal::TimedOut => (Code::Unavailable, "request timed out"),
        };
        Self::new(code, format!("etcdserver: {words}"))
    }
}

/// Answers for one member. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    inputs: mpsc::Sender<Input>,
}

impl Clients {
    pub(super) fn new(inputs: mpsc::Sender<Input>) -> Self {
        Self { inputs }
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Status> {
        let (to, answer) = oneshot::channel();
        let stopped = || Status::from(Refusal::Stopped);
        self.inputs.send(input(to)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())
    }

    async fn told(&self) -> Result<Told, Status> {
        self.ask(Input::Status).await
    }

    /// Learners tell how they are, and give their data away, and no more.
    async fn no_learner(&self) -> Result<Told, Status> {
        let told = self.told().await?;
        if told.is_learner {
            return Err(Refusal::Learner.into());
        }
        Ok(told)
    }

    async fn propose(&self, change: Change) -> Result<Outcome, Status> {
        let outcome = self.ask(|to| Input::Propose(change, to)).await?;
        Ok(outcome?)
    }

    /// After a change of who there is.
    async fn members(&self) -> Result<(Option<ResponseHeader>, Vec<Member>), Status> {
        let members = self.ask(Input::Members).await?;
        // etcd's lists of members tell of no revision.
        let header = ResponseHeader {
            revision: 0,
            ..header(&self.told().await?, 0)
        };
        Ok((Some(header), members))
    }

    async fn all(self, at: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(at).await?;
        tokio::spawn(
            Server::builder()
                .tcp_nodelay(true)
                .add_service(KvServer::new(self.clone()))
                .add_service(ClusterServer::new(self.clone()))
                .add_service(MaintenanceServer::new(self))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        Ok(())
    }

    /// Answers clients there.
    ///
    /// # Errors
    /// Nobody can listen there.
    pub(super) async fn listen(&self, at: SocketAddr) -> io::Result<()> {
        self.clone().all(at).await
    }

    /// Answers `/health` there.
    ///
    /// # Errors
    /// Nobody can listen there.
    pub(super) async fn listen_for_health(&self, at: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(at).await?;
        let clients = self.clone();
        tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(health(clients.clone(), stream));
                }
            }
        });
        Ok(())
    }
}

/// `GET /health`; with `?serializable=true` a member without a leader is healthy as well.
async fn health(clients: Clients, mut stream: TcpStream) -> io::Result<()> {
    let mut question = [0; 1024];
    // Whoever only looks whether somebody listens has gone by now.
    let read = timeout(ASKS, stream.read(&mut question)).await??;
    let question = String::from_utf8_lossy(&question[..read]).into_owned();
    let path = question.split(' ').nth(1).unwrap_or_default();
    let (status, body) = match path.split_once('?').unwrap_or((path, "")) {
        ("/health", query) => match clients.told().await {
            Ok(told) if told.leader != 0 || query.contains("serializable=true") => {
                ("200 OK", r#"{"health":"true","reason":""}"#)
            }
            Ok(_) => (
                "503 Service Unavailable",
                r#"{"health":"false","reason":"RAFT NO LEADER"}"#,
            ),
            Err(_) => (
                "503 Service Unavailable",
                r#"{"health":"false","reason":"it has stopped"}"#,
            ),
        },
        _ => ("404 Not Found", "404 page not found"),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await
}

fn header(told: &Told, revision: i64) -> ResponseHeader {
    ResponseHeader {
        cluster_id: told.ids.cluster,
        member_id: told.ids.member,
        revision,
        raft_term: told.term,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl Kv for Clients {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let told = self.no_learner().await?;
        let asked = request.into_inner();
        if asked.key.is_empty() {
            return Err(Refusal::EmptyKey.into());
        }
        let mut found = self.ask(|to| Input::Range(asked, to)).await??;
        let revision = found.header.unwrap_or_default().revision;
        found.header = Some(header(&told, revision));
        Ok(Response::new(found))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let told = self.no_learner().await?;
        let txn = request.into_inner();
        check(&txn)?;
        match self.propose(Change::Txn(txn)).await? {
            Outcome::Txn(mut done) => {
                let revision = done.header.unwrap_or_default().revision;
                done.header = Some(header(&told, revision));
                Ok(Response::new(done))
            }
            Outcome::Added(_) | Outcome::Members | Outcome::Published => {
                Err(Status::internal("another answer"))
            }
        }
    }
}

#[tonic::async_trait]
impl Cluster for Clients {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.no_learner().await?;
        let MemberAddRequest {
            peer_urls,
            is_learner,
        } = request.into_inner();
        if peer_urls.is_empty() || peer_urls.iter().any(|url| flags::address(url).is_err()) {
            return Err(Refusal::BadUrls.into());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let member = Member {
            id: ids::member(&peer_urls, "", Some(now.as_secs())),
            peer_urls,
            is_learner,
            ..Member::default()
        };
        match self.propose(Change::Add(member)).await? {
            Outcome::Added(member) => {
                let (header, members) = self.members().await?;
                Ok(Response::new(MemberAddResponse {
                    header,
                    member: Some(*member),
                    members,
                }))
            }
            Outcome::Txn(_) | Outcome::Members | Outcome::Published => {
                Err(Status::internal("another answer"))
            }
        }
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.no_learner().await?;
        self.propose(Change::Remove(request.into_inner().id)).await?;
        let (header, members) = self.members().await?;
        Ok(Response::new(MemberRemoveResponse { header, members }))
    }

    async fn member_list(
        &self,
        _: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        self.no_learner().await?;
        let (header, members) = self.members().await?;
        Ok(Response::new(MemberListResponse { header, members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.no_learner().await?;
        self.propose(Change::Promote(request.into_inner().id)).await?;
        let (header, members) = self.members().await?;
        Ok(Response::new(MemberPromoteResponse { header, members }))
    }
}

#[tonic::async_trait]
impl Maintenance for Clients {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let told = self.told().await?;
        let mut errors = Vec::new();
        if told.leader == 0 {
            errors.push("etcdserver: no leader".to_owned());
        }
        Ok(Response::new(StatusResponse {
            header: Some(header(&told, told.revision)),
            version: VERSION.to_owned(),
            db_size: signed(told.bytes),
            leader: told.leader,
            raft_index: told.agreed,
            raft_term: told.term,
            raft_applied_index: told.applied,
            errors,
            db_size_in_use: signed(told.bytes_in_use),
            is_learner: told.is_learner,
        }))
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let opened = self.ask(Input::Snapshot).await?;
        let (file, bytes) = opened.map_err(Status::internal)?;
        let (pieces, stream) = mpsc::channel(PIECES);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = stream_out(file, bytes, &pieces) {
                let _gone = pieces.blocking_send(Err(Status::internal(error.to_string())));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

fn stream_out(
    file: File,
    bytes: u64,
    pieces: &mpsc::Sender<Result<SnapshotResponse, Status>>,
) -> io::Result<()> {
    let mut from = file.take(bytes);
    let mut hash = Context::new(&SHA256);
    let mut left = bytes;
    let send = |blob: Vec<u8>, remaining_bytes: u64| {
        let piece = SnapshotResponse {
            header: None,
            remaining_bytes,
            blob,
        };
        let sent = pieces.blocking_send(Ok(piece));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    while left > 0 {
        let mut blob = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
        from.read_exact(&mut blob)?;
        hash.update(&blob);
        left -= blob.len() as u64;
        send(blob, left)?;
    }
    send(hash.finish().as_ref().to_vec(), 0)
}
