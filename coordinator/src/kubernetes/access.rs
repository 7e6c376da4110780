//! Where a cluster's API is and who we are to it: the configuration and its kubeconfig → one client for each address.
//!
//! The kubeconfig is read anew after a failure, since certificates are replaced in place; programs that it names for a token are not run.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::Full;
use hyper::Uri;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt;
use kube::config::{
    AuthInfo, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext,
};

/// A server that accepts a connection does so within this; the next address is tried after it.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// Where the pod that the coordinator runs in has its identity.
const POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Who we are to a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// As this kubeconfig says.
    Kubeconfig(PathBuf),
    /// The pod that the coordinator runs in.
    Pod(PodIdentity),
}

impl Default for Identity {
    fn default() -> Self {
        Self::Pod(PodIdentity::default())
    }
}

/// What the kubelet gives a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// Where its files `token` and `ca.crt` are. The kubelet writes the token anew before it ends.
    pub directory: PathBuf,
    /// Where the API is; `None`: as the environment says.
    pub server: Option<SocketAddr>,
}

impl Default for PodIdentity {
    fn default() -> Self {
        Self {
            directory: PathBuf::from(POD),
            server: None,
        }
    }
}

impl PodIdentity {
    /// A kubeconfig that says the same, so that both ways are one.
    fn kubeconfig(&self) -> Result<Kubeconfig, AccessError> {
        let failed = |why: String| AccessError::InCluster(why);
        let server = if let Some(address) = self.server {
            address.to_string()
        } else {
            let told = |name: &str| {
                std::env::var(name).map_err(|_| {
                    failed(format!(
                        "{name} is not set: the coordinator does not run in a pod"
                    ))
                })
            };
            let (host, port) = (told("KUBERNETES_SERVICE_HOST")?, told("KUBERNETES_SERVICE_PORT")?);
            match host.parse::<IpAddr>() {
                Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
                Ok(IpAddr::V4(_)) | Err(_) => format!("{host}:{port}"),
            }
        };
        let file = |name: &str| {
            let path = self.directory.join(name);
            match std::fs::metadata(&path) {
                Ok(_) => Ok(path.display().to_string()),
                Err(error) => Err(failed(format!("{}: {error}", path.display()))),
            }
        };
        let name = || "pod".to_owned();
        Ok(Kubeconfig {
            current_context: Some(name()),
            contexts: vec![NamedContext {
                name: name(),
                context: Some(Context {
                    cluster: name(),
                    user: Some(name()),
                    ..Context::default()
                }),
                ..NamedContext::default()
            }],
            clusters: vec![NamedCluster {
                name: name(),
                cluster: Some(kube::config::Cluster {
                    server: Some(format!("https://{server}")),
                    certificate_authority: Some(file("ca.crt")?),
                    ..kube::config::Cluster::default()
                }),
                ..NamedCluster::default()
            }],
            auth_infos: vec![NamedAuthInfo {
                name: name(),
                auth_info: Some(AuthInfo {
                    token_file: Some(file("token")?),
                    ..AuthInfo::default()
                }),
                ..NamedAuthInfo::default()
            }],
            ..Kubeconfig::default()
        })
    }
}

/// How a cluster's API is reached, as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Who we are to it.
    pub identity: Identity,
    /// Further addresses of API servers, after that of the kubeconfig. Never names.
    pub addresses: Vec<SocketAddr>,
    /// Control planes to try where no addresses are given, at the port of the kubeconfig's server.
    pub masters: Vec<IpAddr>,
    /// Requests a second, at most.
    pub requests_per_second: u32,
}

/// Why there is no way to a cluster.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {}: {why}", path.display())]
    Kubeconfig {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no identity in the pod, or no pod.
    #[error("the identity of the pod: {0}")]
    InCluster(String),
    /// What they say cannot be used.
    #[error("{0}")]
    Unusable(String),
}

pub(super) async fn read(access: &Access) -> Result<kube::Config, AccessError> {
    let path = match &access.identity {
        Identity::Kubeconfig(path) => path.clone(),
        Identity::Pod(pod) => {
            let pod = pod.clone();
            let failed = |why: String| AccessError::InCluster(why);
            let kubeconfig = tokio::task::spawn_blocking(move || pod.kubeconfig())
                .await
                .map_err(|_| failed("it could not be read".to_owned()))??;
            return kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| failed(error.to_string()));
        }
    };
    let failed = |why: String| AccessError::Kubeconfig {
        path: path.clone(),
        why,
    };
    let from = path.clone();
    let kubeconfig = tokio::task::spawn_blocking(move || Kubeconfig::read_from(from))
        .await
        .map_err(|_| failed("it could not be read".to_owned()))?
        // The parser shows the lines around an error, and they may hold a key.
        .map_err(|_| {
            failed("it cannot be read, or is none; `kubectl config view --kubeconfig` tells more".to_owned())
        })?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| failed(error.to_string()))?;
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(failed(
            "it names a program for its token, and none is run: use a client certificate or a token file"
                .to_owned(),
        ));
    }
    if config.accept_invalid_certs {
        return Err(failed(
            "insecure-skip-tls-verify is not followed: name the cluster's certificate-authority".to_owned(),
        ));
    }
    let has_token = config.auth_info.token.is_some() || config.auth_info.token_file.is_some();
    if has_token && config.cluster_url.scheme_str() != Some("https") {
        return Err(failed(
            "its server is not https, and its token would be read by whoever is on the way".to_owned(),
        ));
    }
    Ok(config)
}

type Https = hyper_rustls::HttpsConnector<HttpConnector>;

/// One address of an API server.
pub(super) struct Endpoint {
    pub(super) base: Uri,
    pub(super) http: HttpClient<Https, Full<Bytes>>,
}

/// The kubeconfig's server first, then the others, which have to show a certificate for the same name.
pub(super) fn endpoints(config: &kube::Config, access: &Access) -> Result<Vec<Endpoint>, AccessError> {
    let unusable = |why: String| AccessError::Unusable(why);
    let name = config.tls_server_name.clone().or_else(|| {
        config
            .cluster_url
            .host()
            .map(|host| host.trim_matches(['[', ']']).to_owned())
    });
    let mut bases = vec![config.cluster_url.clone()];
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let masters = access
        .masters
        .iter()
        .map(|address| SocketAddr::from((*address, port)));
    let addresses: Vec<_> = if access.addresses.is_empty() {
        masters.collect()
    } else {
        access.addresses.clone()
    };
    for address in addresses {
        let base: Uri = format!("https://{address}{}", config.cluster_url.path())
            .parse()
            .map_err(|_| unusable(format!("{address} is no address")))?;
        if base.authority() != config.cluster_url.authority() {
            bases.push(base);
        }
    }
    let mut endpoints = Vec::new();
    for base in bases {
        let mut config = config.clone();
        config.cluster_url = base.clone();
        config.tls_server_name.clone_from(&name);
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_keepalive(Some(Duration::from_secs(10)));
        http.set_nodelay(true);
        let https = config
            .rustls_https_connector_with_connector(http)
            .map_err(|error| unusable(error.to_string()))?;
        endpoints.push(Endpoint {
            base,
            http: HttpClient::builder(TokioExecutor::new())
                .pool_idle_timeout(Duration::from_secs(30))
                .build(https),
        });
    }
    Ok(endpoints)
}
