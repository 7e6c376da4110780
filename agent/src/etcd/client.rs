//! etcd's own protocol, with the member on this node.
//!
//! Every call is answered by that member alone, without a quorum, but for the changes of who is in the cluster.

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use blackstart_proto::etcd::cluster_client::ClusterClient;
use blackstart_proto::etcd::maintenance_client::MaintenanceClient;
use blackstart_proto::etcd::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest, SnapshotRequest,
    SnapshotResponse, StatusRequest, StatusResponse,
};
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Response, Status, Streaming};

use super::pod::{EtcdPod, ServerTls};
use super::trouble::{Kind, Trouble, of_connection, of_status};
use crate::config::EtcdSettings;

/// No larger answer is taken, bytes. A piece of a snapshot has 32 KiB, a list of members some hundred bytes each.
const MAX_ANSWER: usize = 1 << 20;
/// Beside the member's own certificate, where kubeadm puts what its probes show.
const PROBES: &str = "healthcheck-client";

/// A connection to the member on this node.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    /// Where it answers.
    pub(crate) endpoint: String,
    /// What was shown and what it shows, to look at when it is refused.
    files: Vec<PathBuf>,
    until: Instant,
    within: Duration,
}

impl Client {
    /// Connects to the member of this manifest. Calls end with `within`, counted from now.
    ///
    /// # Errors
    /// Why not, by name.
    pub(crate) async fn connect(
        pod: &EtcdPod,
        settings: &EtcdSettings,
        within: Duration,
    ) -> Result<Self, Trouble> {
        let until = Instant::now() + within;
        let files = pod.tls.as_ref().map(|tls| shown(tls, settings));
        let config = match &files {
            Some(files) => Some(config(files).await?),
            None => None,
        };
        let watched: Vec<_> = files.iter().flat_map(Shown::certificates).collect();
        let mut last = None;
        for url in pod.endpoints() {
            match reach(&url, config.clone(), until, within).await {
                Ok(channel) => {
                    return Ok(Self {
                        channel,
                        endpoint: url,
                        files: watched,
                        until,
                        within,
                    });
                }
                Err(error) => last = Some(of_connection(&url, error.as_ref(), &watched)),
            }
        }
        Err(last.unwrap_or_else(|| {
            Trouble::new(
                Kind::Manifest,
                "it listens on no http:// or https:// address".to_owned(),
            )
        }))
    }

    async fn call<T>(&self, asked: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Trouble> {
        match timeout_at(self.until, asked).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(of_status(&self.endpoint, &status, &self.files)),
            Err(_) => Err(Trouble::new(
                Kind::Silent,
                format!("{} did not answer within {:?}", self.endpoint, self.within),
            )),
        }
    }

    fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    pub(crate) async fn status(&self) -> Result<StatusResponse, Trouble> {
        self.call(self.maintenance().status(StatusRequest {})).await
    }

    pub(crate) async fn members(&self) -> Result<Vec<Member>, Trouble> {
        let listed = self
            .call(self.cluster().member_list(MemberListRequest {}))
            .await?;
        Ok(listed.members)
    }

    pub(crate) async fn remove(&self, id: u64) -> Result<Vec<Member>, Trouble> {
        let mut cluster = self.cluster();
        let removed = cluster.member_remove(MemberRemoveRequest { id });
        Ok(self.call(removed).await?.members)
    }

    pub(crate) async fn add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<Option<Member>, Trouble> {
        let request = MemberAddRequest {
            peer_urls,
            is_learner,
        };
        let added = self.call(self.cluster().member_add(request)).await?;
        Ok(added.member)
    }

    pub(crate) async fn promote(&self, id: u64) -> Result<Vec<Member>, Trouble> {
        let mut cluster = self.cluster();
        let promoted = cluster.member_promote(MemberPromoteRequest { id });
        Ok(self.call(promoted).await?.members)
    }

    /// The pieces of a snapshot. Only its beginning has this connection's deadline.
    pub(crate) async fn snapshot(&self) -> Result<Streaming<SnapshotResponse>, Trouble> {
        self.call(self.maintenance().snapshot(SnapshotRequest {})).await
    }
}

/// What is shown to the member.
#[derive(Debug, Clone)]
struct Shown {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    /// What the member shows.
    server: PathBuf,
}

impl Shown {
    fn certificates(&self) -> Vec<PathBuf> {
        vec![self.server.clone(), self.certificate.clone(), self.ca.clone()]
    }
}

/// What is configured; otherwise the certificate of kubeadm's probes, if it is there; otherwise the member's own, which is made for clients
/// as well since etcd 3.2 wants that of it.
fn shown(tls: &ServerTls, settings: &EtcdSettings) -> Shown {
    let server = tls.certificate.clone();
    if let Some(files) = &settings.client {
        return Shown {
            ca: files.ca.clone(),
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            server,
        };
    }
    let beside = |ending: &str| server.with_file_name(format!("{PROBES}.{ending}"));
    let (certificate, key) = (beside("crt"), beside("key"));
    let (certificate, key) = if certificate.exists() && key.exists() {
        (certificate, key)
    } else {
        (server.clone(), tls.key.clone())
    };
    Shown {
        ca: tls.ca.clone(),
        certificate,
        key,
        server,
    }
}

async fn config(files: &Shown) -> Result<ClientTlsConfig, Trouble> {
    let read = async |path: &PathBuf| {
        tokio::fs::read(path)
            .await
            .map_err(|error| Trouble::new(Kind::Certificate, format!("read {}: {error}", path.display())))
    };
    Ok(ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&files.ca).await?))
        .identity(Identity::from_pem(
            read(&files.certificate).await?,
            zeroize::Zeroizing::new(read(&files.key).await?),
        )))
}

type Boxed = Box<dyn Error + Send + Sync>;

async fn reach(
    url: &str,
    tls: Option<ClientTlsConfig>,
    until: Instant,
    within: Duration,
) -> Result<Channel, Boxed> {
    let mut endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(within);
    if let Some(tls) = tls.filter(|_| url.starts_with("https:")) {
        endpoint = endpoint.tls_config(tls)?;
    }
    match timeout_at(until, endpoint.connect()).await {
        Ok(connected) => Ok(connected?),
        Err(late) => Err(late.into()),
    }
}
