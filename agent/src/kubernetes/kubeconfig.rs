//! Where the API server is, whom it is signed by, and who we are to it: from a kubeconfig or a pod's service account.
//!
//! Read anew for each request, since the kubelet's certificate and a pod's token are replaced in place. Programs that a kubeconfig
//! names for a token (`exec`, `auth-provider`) are not run.

use std::fs;
use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::BASE64;
use hyper::Uri;
use hyper::header::{HeaderValue, InvalidHeaderValue};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::config::Access;

/// No file is longer, bytes.
const LONGEST: u64 = 1 << 20;
/// Where a pod finds its token and its authority.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How the API server is reached, at this moment.
pub(super) struct Server {
    /// Where it may listen.
    pub(super) addresses: Vec<SocketAddr>,
    /// What its certificate has to name.
    pub(super) name: ServerName<'static>,
    /// For the request's `Host`.
    pub(super) authority: String,
    /// Before each path, without a slash at its end.
    pub(super) prefix: String,
    pub(super) tls: Arc<ClientConfig>,
    /// For the request's `Authorization`.
    pub(super) bearer: Option<HeaderValue>,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccessError {
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is longer than {LONGEST} bytes", .0.display())]
    Long(PathBuf),
    #[error("parse {}: {why}", path.display())]
    Parse { path: PathBuf, why: String },
    #[error("the kubeconfig has no {what} {name:?}")]
    Missing { what: &'static str, name: String },
    #[error("server {0:?} is no https address")]
    Address(String),
    #[error("resolve {name}")]
    Resolve {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("insecure-skip-tls-verify is not followed: name the cluster's certificate-authority")]
    Insecure,
    #[error("the cluster has no certificate-authority")]
    NoAuthority,
    #[error("the user has neither a certificate with its key nor a token; exec plugins are not run")]
    Nobody,
    #[error("{what}: not base64")]
    Base64 { what: &'static str },
    #[error("{what}")]
    Pem {
        what: &'static str,
        #[source]
        source: pem::Error,
    },
    #[error("TLS")]
    Tls(#[from] rustls::Error),
    #[error("the token has characters that no header may have")]
    Token(#[from] InvalidHeaderValue),
    #[error("KUBERNETES_SERVICE_HOST is not set: the agent does not run in a pod")]
    NoPod,
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(rename = "current-context", default)]
    current: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
}

#[derive(Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the key or the token.
        f.debug_struct("User").finish_non_exhaustive()
    }
}

/// Reads it. Blocks: on files, and on the resolver when the server is given by a name.
pub(super) fn read(access: &Access) -> Result<Server, AccessError> {
    match access {
        Access::InCluster => in_cluster(),
        Access::Kubeconfig(path) => from_file(path),
    }
}

fn in_cluster() -> Result<Server, AccessError> {
    // The kubelet tells a pod where its API server is in no other way.
    let variable = |name| std::env::var(name).map_err(|_| AccessError::NoPod);
    let (host, port) = (
        variable("KUBERNETES_SERVICE_HOST")?,
        variable("KUBERNETES_SERVICE_PORT")?,
    );
    let server = if host.contains(':') {
        format!("https://[{host}]:{port}")
    } else {
        format!("https://{host}:{port}")
    };
    let dir = Path::new(SERVICE_ACCOUNT);
    let cluster = Cluster {
        server,
        certificate_authority: Some("ca.crt".into()),
        ..Cluster::default()
    };
    let user = User {
        token_file: Some("token".into()),
        ..User::default()
    };
    server_of(&cluster, &user, dir)
}

fn from_file(path: &Path) -> Result<Server, AccessError> {
    let bytes = content(path)?;
    let parse = |why: String| AccessError::Parse {
        path: path.to_owned(),
        why,
    };
    let text = str::from_utf8(&bytes).map_err(|error| parse(error.to_string()))?;
    // The parser shows the lines around an error, and they may hold a key.
    let file: File = serde_saphyr::from_str(text).map_err(|_| {
        parse("it is no kubeconfig; `kubectl config view --kubeconfig` tells more".to_owned())
    })?;
    let missing = |what, name: &str| AccessError::Missing {
        what,
        name: name.to_owned(),
    };
    let context = file
        .contexts
        .iter()
        .find(|context| context.name == file.current)
        .map(|context| &context.context)
        .ok_or_else(|| missing("context", &file.current))?;
    let cluster = file
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster)
        .ok_or_else(|| missing("cluster", &context.cluster))?;
    let user = file
        .users
        .iter()
        .find(|user| user.name == context.user)
        .ok_or_else(|| missing("user", &context.user))?;
    server_of(
        &cluster.cluster,
        &user.user,
        path.parent().unwrap_or(Path::new("/")),
    )
}

/// Relative paths are relative to `dir`.
fn server_of(cluster: &Cluster, user: &User, dir: &Path) -> Result<Server, AccessError> {
    let bad = || AccessError::Address(cluster.server.clone());
    let uri: Uri = cluster.server.parse().map_err(|_| bad())?;
    let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
    if uri.scheme_str() != Some("https") {
        return Err(bad());
    }
    let named = cluster.tls_server_name.clone().unwrap_or_else(|| host.clone());
    let name = ServerName::try_from(named).map_err(|_| bad())?;
    let authority = uri.authority().ok_or_else(bad)?.as_str().to_owned();
    let tls = tls(cluster, user, dir)?;
    let bearer = bearer(user, dir)?;
    // An address is taken as it is; a name asks the resolver.
    let addresses = (host.as_str(), uri.port_u16().unwrap_or(443))
        .to_socket_addrs()
        .map_err(|source| AccessError::Resolve {
            name: host.clone(),
            source,
        })?
        .collect();
    Ok(Server {
        addresses,
        name,
        authority,
        prefix: uri.path().trim_end_matches('/').to_owned(),
        tls,
        bearer,
    })
}

fn tls(cluster: &Cluster, user: &User, dir: &Path) -> Result<Arc<ClientConfig>, AccessError> {
    if cluster.insecure_skip_tls_verify {
        return Err(AccessError::Insecure);
    }
    let authority = either(
        "certificate-authority",
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
        dir,
    )?
    .ok_or(AccessError::NoAuthority)?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("certificate-authority", &authority)? {
        roots.add(certificate)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let certificate = either(
        "client-certificate",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
        dir,
    )?;
    let key = either(
        "client-key",
        user.client_key_data.as_deref(),
        user.client_key.as_deref(),
        dir,
    )?;
    let config = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_slice(&key).map_err(|source| AccessError::Pem {
                what: "client-key",
                source,
            })?;
            config.with_client_auth_cert(certificates("client-certificate", &certificate)?, key)?
        }
        (_, _) if user.token.is_some() || user.token_file.is_some() => config.with_no_client_auth(),
        (_, _) => return Err(AccessError::Nobody),
    };
    Ok(Arc::new(config))
}

fn bearer(user: &User, dir: &Path) -> Result<Option<HeaderValue>, AccessError> {
    let token = match (&user.token_file, &user.token) {
        (Some(file), _) => String::from_utf8_lossy(&content(&dir.join(file))?).into_owned(),
        (None, Some(token)) => token.clone(),
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| AccessError::Pem { what, source })
}

/// The data wins over the file, as with kubectl.
fn either(
    what: &'static str,
    data: Option<&str>,
    file: Option<&Path>,
    dir: &Path,
) -> Result<Option<Vec<u8>>, AccessError> {
    match (data, file) {
        (Some(data), _) => BASE64
            .decode(data.trim().as_bytes())
            .map(Some)
            .map_err(|_| AccessError::Base64 { what }),
        (None, Some(file)) => content(&dir.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn content(path: &Path) -> Result<Vec<u8>, AccessError> {
    let read = |source| AccessError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(read)?
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(read)?;
    if bytes.len() as u64 > LONGEST {
        return Err(AccessError::Long(path.to_owned()));
    }
    Ok(bytes)
}
