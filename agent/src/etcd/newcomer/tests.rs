use std::fs;
use std::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType, date_time_ymd};
use tempfile::TempDir;

use super::*;

/// A node that has all that a member at 127.0.0.1 needs; of the member that it is made like, its certificates are elsewhere.
struct Scene {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
    port: u16,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["manifests", "etcd", "pki"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let scene = Self {
            dir,
            authority: authority(),
            port,
        };
        fs::write(scene.path("pki/ca.crt"), scene.authority.pem()).unwrap();
        scene.certify("server", "127.0.0.1", 2090);
        scene.certify("peer", "127.0.0.1", 2090);
        scene
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn certify(&self, name: &str, address: &str, year: i32) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(address.parse().unwrap())];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.path(&format!("pki/{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.path(&format!("pki/{name}.key")), key.serialize_pem()).unwrap();
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::for_node("m4");
        settings.static_pods.manifests = self.path("manifests");
        settings.static_pods.held = self.path("held");
        settings.runtime.docker.socket = self.path("docker.sock");
        settings
    }

    /// As the member on another node is told of.
    fn like(&self) -> wire::EtcdTemplateTold {
        let (dir, port) = (self.dir.path().display(), self.port);
        let text = format!(
            "\
metadata: {{name: etcd}}
spec:
  containers:
  - command:
    - etcd
    - --cert-file={dir}/pki/server.crt
    - --data-dir={dir}/etcd
    - --initial-advertise-peer-urls=https://10.0.0.1:2380
    - --initial-cluster=m1=https://10.0.0.1:2380
    - --key-file={dir}/pki/server.key
    - --listen-client-urls=https://10.0.0.1:{port}
    - --listen-peer-urls=https://10.0.0.1:0
    - --name=m1
    - --peer-cert-file={dir}/pki/peer.crt
    - --peer-key-file={dir}/pki/peer.key
    - --peer-trusted-ca-file={dir}/pki/ca.crt
    - --trusted-ca-file={dir}/pki/ca.crt
    image: registry.k8s.io/etcd:3.5.16-0
"
        );
        let trusts = HEXLOWER.encode(digest(&SHA256, self.authority.der()).as_ref());
        wire::EtcdTemplateTold {
            file: "etcd.yaml".to_owned(),
            text,
            authorities: vec![trusts],
            trouble: String::new(),
        }
    }

    async fn look(&self, address: &str) -> wire::EtcdNewcomerTold {
        let asked = wire::EtcdNewcomer {
            like: Some(self.like()),
            name: "m4".to_owned(),
            address: address.to_owned(),
            initial_cluster: format!("m1=https://10.0.0.1:2380,m4=https://{address}:2380"),
            needs_bytes: 1 << 20,
        };
        look(&self.settings(), asked).await
    }

    async fn missing(&self) -> String {
        let told = self.look("127.0.0.1").await;
        assert_eq!(told.missing.len(), 1, "{:?}", told.missing);
        told.missing.concat()
    }
}

#[tokio::test]
async fn a_node_that_has_all_is_told_with_the_manifest_and_what_is_other_in_it() {
    let scene = Scene::new();
    let told = scene.look("127.0.0.1").await;
    assert_eq!(told.missing, [""; 0]);
    let pod = EtcdPod::parse(&told.text).unwrap();
    assert_eq!(
        (pod.name.as_str(), pod.initial_cluster_state.as_str()),
        ("m4", "existing")
    );
    for line in [
        "- --name=m1",
        "+ --name=m4",
        "+ --initial-advertise-peer-urls=https://127.0.0.1:2380",
        "+ --initial-cluster-state=existing",
    ] {
        assert!(
            told.changed.iter().any(|changed| changed == line),
            "{line} in {:#?}",
            told.changed
        );
    }
    assert!(told.notes.concat().contains("etcd:3.5.16-0"), "{:?}", told.notes);
}

#[tokio::test]
async fn what_is_missing_is_told_with_how_to_give_it() {
    let scene = Scene::new();
    let here = scene.port;
    let listener = TcpListener::bind(("127.0.0.1", here)).unwrap();
    assert!(scene.missing().await.contains("something listens there already"));
    drop(listener);

    scene.certify("peer", "10.0.0.1", 2090);
    let missing = scene.missing().await;
    assert!(
        missing.contains("a certificate for 127.0.0.1")
            && missing.contains("kubeadm init phase certs etcd-peer"),
        "{missing}"
    );
    scene.certify("peer", "127.0.0.1", 2021);
    assert!(scene.missing().await.contains("has expired"));
    scene.certify("peer", "127.0.0.1", 2090);

    let key = fs::read(scene.path("pki/server.key")).unwrap();
    fs::copy(scene.path("pki/peer.key"), scene.path("pki/server.key")).unwrap();
    assert!(scene.missing().await.contains("server.key is another"));
    fs::write(scene.path("pki/server.key"), key).unwrap();

    fs::write(scene.path("pki/ca.crt"), authority().pem()).unwrap();
    assert!(
        scene
            .missing()
            .await
            .contains("the authority of this cluster's etcd")
    );
    fs::write(scene.path("pki/ca.crt"), scene.authority.pem()).unwrap();

    fs::remove_dir(scene.path("etcd")).unwrap();
    assert!(scene.missing().await.contains("mkdir -m 700"));
    fs::create_dir(scene.path("etcd")).unwrap();

    fs::write(scene.path("manifests/own.yaml"), scene.like().text).unwrap();
    assert!(scene.missing().await.contains("own.yaml is there"));
    fs::remove_file(scene.path("manifests/own.yaml")).unwrap();
    fs::create_dir_all(scene.path("held/etcd")).unwrap();
    fs::write(scene.path("held/etcd/etcd.yaml"), scene.like().text).unwrap();
    assert!(scene.missing().await.contains("out for a bounce"));
    let told = crate::etcd::look::look(&scene.settings(), IMAGE_WITHIN).await;
    let trouble = told.trouble.unwrap();
    assert_eq!(trouble.kind(), wire::EtcdTroubleKind::Other, "{trouble:?}");
    fs::remove_dir_all(scene.path("held")).unwrap();
    fs::write(scene.path("manifests/etcd.yaml"), "kind: Secret").unwrap();
    assert!(scene.missing().await.contains("is something else"));
    fs::remove_file(scene.path("manifests/etcd.yaml")).unwrap();

    // No machine has an address that is kept for documentation (RFC 5737).
    let told = scene.look("192.0.2.7").await;
    assert!(
        told.missing.concat().contains("this machine has no such one"),
        "{:?}",
        told.missing
    );
    assert_eq!(scene.look("127.0.0.1").await.missing, [""; 0]);
}

#[tokio::test]
async fn the_manifest_of_the_member_here_is_told_with_whom_it_trusts() {
    let scene = Scene::new();
    let none = template(&scene.settings()).await;
    assert!(none.trouble.contains("no manifest"), "{none:?}");
    fs::write(scene.path("manifests/etcd.yaml"), scene.like().text).unwrap();
    assert_eq!(template(&scene.settings()).await, scene.like());
    fs::remove_file(scene.path("pki/ca.crt")).unwrap();
    let none = template(&scene.settings()).await;
    assert!(none.trouble.contains("ca.crt"), "{none:?}");
}
