//! Manifests of static pods, as kubeadm writes them; ports are those of the node's own network.

use blackstart_proto::part::Part;

use super::{CLIENT_PORT, DATA, ETCD, METRICS_PORT, PEER_PORT};
use crate::topology::Declared;

/// Where a part answers whoever asks for its health.
pub(super) const fn port(part: Part) -> u16 {
    match part {
        Part::ApiServer => 6443,
        Part::ControllerManager => 10257,
        Part::Scheduler => 10259,
    }
}

/// A member of etcd. It tells its health to other machines as well, which kubeadm leaves to whoever wants it.
pub(super) fn etcd(own: &Declared, all: &[Declared]) -> String {
    let Declared { name, address, .. } = own;
    let cluster: Vec<_> = all
        .iter()
        .map(|one| format!("{}=https://{}:{PEER_PORT}", one.name, one.address))
        .collect();
    let cluster = cluster.join(",");
    format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubeadm.kubernetes.io/etcd.advertise-client-urls: https://{address}:{CLIENT_PORT}
  labels:
    component: etcd
    tier: control-plane
  name: {ETCD}
  namespace: kube-system
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://{address}:{CLIENT_PORT}
    - --cert-file=/etc/kubernetes/pki/etcd/server.crt
    - --client-cert-auth=true
    - --data-dir={DATA}
    - --initial-advertise-peer-urls=https://{address}:{PEER_PORT}
    - --initial-cluster={cluster}
    - --key-file=/etc/kubernetes/pki/etcd/server.key
    - --listen-client-urls=https://127.0.0.1:{CLIENT_PORT},https://{address}:{CLIENT_PORT}
    - --listen-metrics-urls=http://0.0.0.0:{METRICS_PORT}
    - --listen-peer-urls=https://{address}:{PEER_PORT}
    - --logger=zap
    - --name={name}
    - --peer-cert-file=/etc/kubernetes/pki/etcd/peer.crt
    - --peer-client-cert-auth=true
    - --peer-key-file=/etc/kubernetes/pki/etcd/peer.key
    - --peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    - --snapshot-count=10000
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: registry.k8s.io/etcd:testbed
    imagePullPolicy: IfNotPresent
    livenessProbe:
      httpGet: {{host: 127.0.0.1, path: \"/health?exclude=NOSPACE&serializable=true\", port: {METRICS_PORT}, scheme: HTTP}}
    name: {ETCD}
    volumeMounts:
    - mountPath: {DATA}
      name: etcd-data
    - mountPath: /etc/kubernetes/pki/etcd
      name: etcd-certs
  hostNetwork: true
  priorityClassName: system-node-critical
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki/etcd
      type: DirectoryOrCreate
    name: etcd-certs
  - hostPath:
      path: {DATA}
      type: DirectoryOrCreate
    name: etcd-data
"
    )
}

/// What stands for a part of the control plane.
pub(super) fn part(part: Part, certificate: &str) -> String {
    let etcd = match part {
        Part::ApiServer => "    - --etcd-servers=https://127.0.0.1:2379\n",
        Part::ControllerManager | Part::Scheduler => "",
    };
    let port = port(part);
    format!(
        "\
apiVersion: v1
kind: Pod
metadata:
  labels:
    component: {part}
    tier: control-plane
  name: {part}
  namespace: kube-system
spec:
  containers:
  - command:
    - {part}
    - --bind-address=0.0.0.0
{etcd}    - --secure-port={port}
    - --tls-cert-file={certificate}
    image: registry.k8s.io/{part}:testbed
    livenessProbe:
      httpGet: {{host: 127.0.0.1, path: /healthz, port: {port}, scheme: HTTP}}
    name: {part}
  hostNetwork: true
  priorityClassName: system-node-critical
"
    )
}
