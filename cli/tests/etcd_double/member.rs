//! One member as a process, real or a double, and what it answers, in words.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use blackstart_proto::etcd::cluster_client::ClusterClient;
use blackstart_proto::etcd::kv_client::KvClient;
use blackstart_proto::etcd::maintenance_client::MaintenanceClient;
use blackstart_proto::etcd::{
    MemberListRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, StatusResponse, TxnRequest,
    request_op, response_op,
};
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint};

use crate::ports::free_port;

/// Nothing here takes longer on the slowest machine.
const DEADLINE: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_millis(50);

/// The double's programs below a directory, as a drill puts them there.
pub(crate) fn double(dir: &Path) -> PathBuf {
    let dir = dir.join("etcd-double");
    fs::create_dir_all(&dir).unwrap();
    for name in ["etcd", "etcdutl"] {
        symlink(env!("CARGO_BIN_EXE_blackstart"), dir.join(name)).unwrap();
    }
    dir.join("etcd")
}

/// Where a member is.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) metrics: SocketAddr,
}

impl Place {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            client: free_port(),
            peer: free_port(),
            metrics: free_port(),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.peer)
    }
}

/// A process; it ends when it is dropped.
pub(crate) struct Member {
    pub(crate) process: Child,
    pub(crate) channel: Channel,
    /// What it has said.
    log: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        // It may have ended.
        let _ended = self.process.kill();
        let _status = self.process.wait();
        if std::thread::panicking() {
            println!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

impl Member {
    pub(crate) fn start(program: &Path, dir: &Path, place: &Place, cluster: &[Place], state: &str) -> Self {
        let list: Vec<_> = cluster
            .iter()
            .map(|one| format!("{}={}", one.name, one.url()))
            .collect();
        let data = dir.join(place.name);
        let path = dir.join(format!("{}.log", place.name));
        let log = fs::File::options().create(true).append(true).open(&path).unwrap();
        let process = Command::new(program)
            .arg(format!("--name={}", place.name))
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--listen-client-urls=http://{}", place.client))
            .arg(format!("--advertise-client-urls=http://{}", place.client))
            .arg(format!("--listen-peer-urls={}", place.url()))
            .arg(format!("--initial-advertise-peer-urls={}", place.url()))
            .arg(format!("--listen-metrics-urls=http://{}", place.metrics))
            .arg(format!("--initial-cluster={}", list.join(",")))
            .arg(format!("--initial-cluster-state={state}"))
            .arg("--logger=zap")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", place.client)).unwrap();
        Self {
            process,
            channel: endpoint.connect_lazy(),
            log: path,
        }
    }

    pub(crate) fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone())
    }

    pub(crate) fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    pub(crate) fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone())
    }

    pub(crate) async fn txn(&self, txn: TxnRequest) -> String {
        match self.kv().txn(txn).await {
            Ok(done) => {
                let done = done.into_inner();
                let responses: Vec<_> = done.responses.into_iter().map(|one| one.response).collect();
                let revision = done.header.unwrap_or_default().revision;
                format!("{} at {revision}: {}", done.succeeded, told(&responses))
            }
            Err(status) => refused(&status),
        }
    }

    pub(crate) async fn range(&self, range: RangeRequest) -> String {
        match self.kv().range(range).await {
            Ok(found) => {
                let found = found.into_inner();
                let revision = found.header.unwrap_or_default().revision;
                format!("{:?} more: {} at {revision}", found.kvs, found.more)
            }
            Err(status) => refused(&status),
        }
    }

    pub(crate) async fn status(&self) -> StatusResponse {
        let status = self.maintenance().status(StatusRequest {}).await;
        status.unwrap().into_inner()
    }

    /// Until it knows its leader, and everybody has told his name.
    pub(crate) async fn until_well(&self, members: usize) {
        let since = Instant::now();
        loop {
            let status = self.maintenance().status(StatusRequest {}).await;
            let led = status.is_ok_and(|status| status.get_ref().leader != 0);
            let listed = self.cluster().member_list(MemberListRequest {}).await;
            let known = listed.is_ok_and(|listed| {
                let all = &listed.get_ref().members;
                all.len() == members && all.iter().all(|member| !member.name.is_empty())
            });
            if led && known {
                return;
            }
            assert!(since.elapsed() < DEADLINE, "it is not well");
            sleep(LOOK).await;
        }
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.process.wait().unwrap();
    }
}

pub(crate) fn refused(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// Without the headers of what is within a transaction, which have nothing but its revision in them.
pub(crate) fn told(responses: &[Option<response_op::Response>]) -> String {
    let of = |response: &Option<response_op::Response>| match response {
        Some(response_op::Response::ResponseRange(found)) => format!("{:?} more: {}", found.kvs, found.more),
        Some(response_op::Response::ResponsePut(_)) => "put".to_owned(),
        None => "nothing".to_owned(),
    };
    responses.iter().map(of).collect::<Vec<_>>().join(", ")
}

pub(crate) fn put(key: &str, value: &str) -> RequestOp {
    RequestOp {
        request: Some(request_op::Request::RequestPut(PutRequest {
            key: key.into(),
            value: value.into(),
            lease: 0,
        })),
    }
}

pub(crate) fn puts(ops: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success: ops,
        ..TxnRequest::default()
    }
}

/// Awaits something.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !holds().await {
        assert!(since.elapsed() < DEADLINE, "waited in vain: {what}");
        sleep(LOOK).await;
    }
}
