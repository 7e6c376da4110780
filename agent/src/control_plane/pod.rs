//! What the command of a static pod says, and the same manifest with another value of one flag. Pure.
//!
//! Kubernetes' programs read `--flag=value` and `--flag value`, and take the last of several
//! (<https://pkg.go.dev/github.com/spf13/pflag>). Paths are those in the container; the volumes say where they are on the node.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Files with these endings are certificates, or have some inside (kubeconfigs).
const CERTIFICATES: [&str; 4] = ["crt", "pem", "cer", "conf"];
/// What names no certificate although it ends like one.
const NO_CERTIFICATE: [&str; 3] = ["key-file", "private-key", "cloud-config"];

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Written {
    spec: Spec,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Spec {
    containers: Vec<Container>,
    #[serde(default)]
    volumes: Vec<Volume>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    mount_path: PathBuf,
    name: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Volume {
    name: String,
    host_path: Option<HostPath>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct HostPath {
    path: PathBuf,
}

/// What the command of a pod's first container says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CommandLine {
    written: Written,
}

impl CommandLine {
    /// Reads a manifest, YAML or JSON.
    ///
    /// # Errors
    /// It is no pod: for people.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let written: Written = serde_saphyr::from_str(text).map_err(|error| {
            let message = error.to_string();
            format!("not a pod: {}", message.lines().next().unwrap_or_default())
        })?;
        Ok(Self { written })
    }

    fn words(&self) -> Vec<&str> {
        let container = self.written.spec.containers.first();
        let words = container
            .into_iter()
            .flat_map(|container| container.command.iter().chain(&container.args));
        words.map(String::as_str).collect()
    }

    /// Every flag that has a value, as written.
    fn flags(&self) -> Vec<(&str, &str)> {
        let words = self.words();
        let mut flags = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let Some(flag) = word.strip_prefix("--") else {
                continue;
            };
            if let Some((flag, value)) = flag.split_once('=') {
                flags.push((flag, value));
            } else if let Some(value) = words.get(at + 1).filter(|next| !next.starts_with('-')) {
                flags.push((flag, *value));
            }
        }
        flags
    }

    /// The value of a flag; of several the last, as the program takes it.
    pub(crate) fn flag(&self, flag: &str) -> Option<&str> {
        let of = |(name, value): (&str, &'_ str)| (name == flag).then_some(value.to_owned());
        let at = self.flags().into_iter().rposition(|one| of(one).is_some())?;
        Some(self.flags()[at].1)
    }

    /// Every file with certificates that the command names, on the node, each once.
    pub(crate) fn certificates(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = Vec::new();
        for (flag, value) in self.flags() {
            let path = Path::new(value);
            let ending = path
                .extension()
                .and_then(|ending| ending.to_str())
                .unwrap_or_default();
            let is_one = path.is_absolute()
                && CERTIFICATES.contains(&ending)
                && !NO_CERTIFICATE.iter().any(|none| flag.ends_with(none));
            if is_one {
                let file = self.on_node(path);
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        files
    }

    /// A path in the container, on the node.
    fn on_node(&self, path: &Path) -> PathBuf {
        let spec = &self.written.spec;
        let mounts = spec.containers.first().map(|container| &container.volume_mounts);
        let best = mounts
            .into_iter()
            .flatten()
            .filter(|mount| path.starts_with(&mount.mount_path))
            .max_by_key(|mount| mount.mount_path.components().count());
        let of = |mount: &Mount| {
            let volume = spec.volumes.iter().find(|volume| volume.name == mount.name)?;
            let rest = path.strip_prefix(&mount.mount_path).ok()?;
            let host = &volume.host_path.as_ref()?.path;
            // Joining nothing would leave a slash at the end.
            Some(if rest.as_os_str().is_empty() {
                host.clone()
            } else {
                host.join(rest)
            })
        };
        best.and_then(of).unwrap_or_else(|| path.to_owned())
    }

    /// The same but for one value.
    fn with(&self, flag: &str, from: &str, to: &str) -> Self {
        let mut written = self.written.clone();
        let (before, after) = (format!("--{flag}={from}"), format!("--{flag}={to}"));
        for container in written.spec.containers.iter_mut().take(1) {
            for word in container.command.iter_mut().chain(&mut container.args) {
                if *word == before {
                    word.clone_from(&after);
                }
            }
        }
        Self { written }
    }
}

/// The manifest with another value of a flag. Everything else stays as it was written, comments too.
///
/// # Errors
/// It does not have that value, or its form is not understood: for people.
pub(crate) fn with_flag(text: &str, flag: &str, from: &str, to: &str) -> Result<String, String> {
    if to.is_empty() || to.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '#' | '\\')) {
        return Err(format!("{to:?} is no value of --{flag}"));
    }
    let before = CommandLine::parse(text)?;
    match before.flag(flag) {
        Some(value) if value == from => {}
        Some(value) => {
            return Err(format!(
                "--{flag} is {value} by now, and was {from} when this was planned: plan it anew"
            ));
        }
        None => return Err(format!("it has no --{flag}")),
    }
    let word = format!("--{flag}={from}");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut found = lines.iter_mut().filter(|line| {
        let line = line.trim_start().trim_start_matches('-').trim();
        line.trim_matches(['"', '\'']) == word
    });
    if let Some(line) = found.next() {
        *line = line.replacen(&word, &format!("--{flag}={to}"), 1);
    }
    let mut after = lines.join("\n");
    if text.ends_with('\n') {
        after.push('\n');
    }
    // Read anew, it says what was meant and nothing else.
    if CommandLine::parse(&after).as_ref() == Ok(&before.with(flag, from, to)) && after != text {
        Ok(after)
    } else {
        Err(format!(
            "--{flag}={from} is not on one line of its own, so that it cannot be changed safely: change it by hand"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADM: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: kube-apiserver, namespace: kube-system}
spec:
  containers:
  # Written by kubeadm.
  - command:
    - kube-apiserver
    - --advertise-address=10.0.0.1
    - --etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt
    - --etcd-servers=https://127.0.0.1:2379
    - --service-account-signing-key-file=/etc/kubernetes/pki/sa.key
    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt
    - --kubeconfig=/etc/kubernetes/admin.conf
    name: kube-apiserver
    volumeMounts:
    - {mountPath: /etc/kubernetes/pki, name: pki}
  volumes:
  - name: pki
    hostPath: {path: /data/pki}
";

    #[test]
    fn the_files_of_certificates_are_found_where_they_are_on_the_node() {
        let line = CommandLine::parse(KUBEADM).unwrap();
        let files: Vec<_> = line
            .certificates()
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        assert_eq!(
            files,
            [
                "/data/pki/etcd/ca.crt",
                "/data/pki/apiserver.crt",
                "/etc/kubernetes/admin.conf"
            ]
        );
        assert_eq!(line.flag("etcd-servers"), Some("https://127.0.0.1:2379"));
        assert_eq!(line.flag("etcd"), None);
    }

    #[test]
    fn one_value_is_changed_and_nothing_else() {
        let (from, to) = (
            "https://127.0.0.1:2379",
            "https://10.0.0.1:2379,https://10.0.0.2:2379",
        );
        let after = with_flag(KUBEADM, "etcd-servers", from, to).unwrap();
        assert_eq!(after, KUBEADM.replace(from, to));
        let quoted = KUBEADM.replace(
            "- --etcd-servers=https://127.0.0.1:2379",
            "- \"--etcd-servers=https://127.0.0.1:2379\"",
        );
        let after = with_flag(&quoted, "etcd-servers", from, to).unwrap();
        assert_eq!(after, quoted.replace(from, to));
    }

    #[test]
    fn what_is_not_as_planned_or_not_understood_is_refused() {
        let from = "https://127.0.0.1:2379";
        let flow = "metadata: {name: a}\nspec: {containers: [{command: [kube-apiserver, '--etcd-servers=https://127.0.0.1:2379']}]}\n";
        let twice = KUBEADM.replace(
            "    - --etcd-servers=https://127.0.0.1:2379\n",
            "    - --etcd-servers=https://127.0.0.1:2379\n    - --etcd-servers=https://127.0.0.1:2379\n",
        );
        for (text, from, to, why) in [
            (KUBEADM, "https://other:2379", "https://x:1", "plan it anew"),
            (KUBEADM, from, "", "is no value"),
            (KUBEADM, from, "a b", "is no value"),
            (KUBEADM, from, "a\n    - --insecure", "is no value"),
            (flow, from, "https://x:1", "change it by hand"),
            (twice.as_str(), from, "https://x:1", "change it by hand"),
            ("a: b", from, "https://x:1", "not a pod"),
        ] {
            let error = with_flag(text, "etcd-servers", from, to).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        let error = with_flag(KUBEADM, "audit-log-path", "a", "b").unwrap_err();
        assert!(error.contains("it has no --audit-log-path"), "{error}");
    }
}
