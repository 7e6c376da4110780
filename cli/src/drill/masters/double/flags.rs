//! The flags of etcd that are played, as manifests of kubeadm and of Blackstart have them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Flags that are taken and change nothing here.
const PASSED_OVER: [&str; 3] = ["logger", "log-level", "snapshot-count"];

/// How a member is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) data_dir: PathBuf,
    pub(super) listen_client: Vec<SocketAddr>,
    pub(super) listen_peer: Vec<SocketAddr>,
    pub(super) listen_metrics: Vec<SocketAddr>,
    pub(super) advertise_client: Vec<String>,
    pub(super) advertise_peer: Vec<String>,
    /// Name → URLs.
    pub(super) initial_cluster: BTreeMap<String, Vec<String>>,
    pub(super) token: String,
    /// It joins a cluster that there is.
    pub(super) is_existing: bool,
}

/// `--flag=value` and `--flag value`, with one dash as well, as Go's `flag` reads them.
///
/// # Errors
/// A word is none.
pub(super) fn words(arguments: &[String]) -> Result<BTreeMap<String, String>, String> {
    let mut flags = BTreeMap::new();
    let mut rest = arguments.iter().peekable();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            return Err(format!("'{word}' is not a valid flag"));
        };
        let (flag, value) = match flag.split_once('=') {
            Some((flag, value)) => (flag, value.to_owned()),
            None => match rest.next_if(|next| !next.starts_with('-')) {
                Some(value) => (flag, value.clone()),
                None => (flag, "true".to_owned()),
            },
        };
        flags.insert(flag.to_owned(), value);
    }
    Ok(flags)
}

/// Addresses of `http://` URLs.
fn addresses(urls: &[String]) -> Result<Vec<SocketAddr>, String> {
    let of = |url: &String| address(url);
    urls.iter().map(of).collect()
}

/// The address of a URL.
///
/// # Errors
/// It has no TCP address, or wants TLS.
pub(super) fn address(url: &str) -> Result<SocketAddr, String> {
    if url.starts_with("https://") {
        return Err(format!("{url}: this double of etcd speaks no TLS"));
    }
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    address
        .parse()
        .map_err(|_| format!("expected IP in URL for binding ({url})"))
}

fn list(written: Option<String>) -> Vec<String> {
    let written = written.unwrap_or_default();
    let urls = written.split(',').map(str::trim).filter(|url| !url.is_empty());
    urls.map(str::to_owned).collect()
}

/// `a=http://…,b=http://…`.
pub(super) fn cluster(written: &str) -> Result<BTreeMap<String, Vec<String>>, String> {
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in written.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        let (name, url) = one
            .split_once('=')
            .ok_or_else(|| format!("empty URL given for {one:?} in --initial-cluster"))?;
        members.entry(name.to_owned()).or_default().push(url.to_owned());
    }
    Ok(members)
}

impl Settings {
    /// # Errors
    /// As etcd, of a flag that it does not know or that is missing.
    pub(super) fn read(arguments: &[String]) -> Result<Self, String> {
        let mut flags = words(arguments)?;
        let mut take = |flag: &str| flags.remove(flag);
        let name = take("name").unwrap_or_else(|| "default".to_owned());
        let data_dir = take("data-dir").ok_or("--data-dir is missing")?.into();
        let listen_client = list(take("listen-client-urls"));
        let advertise_client = list(take("advertise-client-urls"));
        let listen_peer = list(take("listen-peer-urls"));
        let advertise_peer = list(take("initial-advertise-peer-urls"));
        let metrics = list(take("listen-metrics-urls"));
        let initial_cluster = cluster(&take("initial-cluster").unwrap_or_default())?;
        let token = take("initial-cluster-token").unwrap_or_else(|| "etcd-cluster".to_owned());
        let is_existing = match take("initial-cluster-state").as_deref() {
            None | Some("new") => false,
            Some("existing") => true,
            Some(other) => return Err(format!("invalid value {other:?} for flag -initial-cluster-state")),
        };
        for flag in PASSED_OVER {
            take(flag);
        }
        if let Some((flag, _)) = flags.first_key_value() {
            return Err(format!(
                "flag provided but not defined: -{flag} (by this double of etcd)"
            ));
        }
        Ok(Self {
            name,
            data_dir,
            listen_client: addresses(&listen_client)?,
            listen_peer: addresses(&listen_peer)?,
            listen_metrics: addresses(&metrics)?,
            advertise_client,
            advertise_peer,
            initial_cluster,
            token,
            is_existing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Settings, String> {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        Settings::read(&words)
    }

    #[test]
    fn flags_are_read_as_etcd_reads_them() {
        let line = "--name=a --data-dir /d --listen-client-urls=http://127.0.0.1:1 -listen-peer-urls=http://127.0.0.1:2 \
                    --initial-advertise-peer-urls=http://127.0.0.1:2 --initial-cluster=a=http://127.0.0.1:2,b=http://127.0.0.1:3 \
                    --advertise-client-urls=http://127.0.0.1:1 --initial-cluster-state=existing --logger=zap";
        let settings = read(line).unwrap();
        assert_eq!((settings.name.as_str(), settings.is_existing), ("a", true));
        assert_eq!(settings.initial_cluster["b"], ["http://127.0.0.1:3"]);
        assert_eq!(settings.listen_peer, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(settings.token, "etcd-cluster");
    }

    #[test]
    fn what_is_not_played_is_refused() {
        for (line, why) in [
            (
                "--data-dir=/d --auto-tls",
                "flag provided but not defined: -auto-tls",
            ),
            ("--data-dir=/d --listen-client-urls=https://127.0.0.1:1", "no TLS"),
            ("--data-dir=/d --listen-client-urls=http://host:1", "expected IP"),
            ("--data-dir=/d --initial-cluster=a", "empty URL"),
            (
                "--data-dir=/d --initial-cluster-state=old",
                "initial-cluster-state",
            ),
            ("--name=a", "--data-dir"),
            ("serve", "not a valid flag"),
        ] {
            let said = read(line).unwrap_err();
            assert!(said.contains(why), "{line}: {said}");
        }
    }
}
