//! The real `kubectl` against the double: what it prints is what an operator would see.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests; what kubectl printed explains a failure"
)]

use blackstart_apiserver::{
    Access, Authority, Clock, Credentials, Double, NodeSpec, Options, Release, World, json::name,
};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_mins(2);

// Applied without validation: kubectl before 1.24 asks for a form of the schema that the double does not have.
const MANIFEST: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {pool: a}
      containers: [{name: web, image: "web:1", resources: {requests: {cpu: 100m}}}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
"#;

/// The names of the pods there are.
fn pods(world: &World) -> Vec<String> {
    world
        .store
        .list("pods", None)
        .map(|pod| name(pod).to_owned())
        .collect()
}

struct Bench {
    dir: tempfile::TempDir,
    double: Double,
}

impl Bench {
    /// A cluster of a master and three workers whose time goes five times as fast, or nothing if there is no `kubectl`.
    async fn start(release: Release) -> Option<Self> {
        if Command::new("kubectl")
            .args(["version", "--client"])
            .output()
            .await
            .is_err()
        {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "kubectl is missing, and CI=true skips nothing"
            );
            println!("SKIPPED: kubectl is missing (deploy/ensure-packages kubernetes-client)");
            return None;
        }
        let options = Options {
            release,
            clock: Clock::running(5),
            ..Options::default()
        };
        let double = Double::start(options).await.unwrap();
        double.with(|world| {
            world.add_node(&NodeSpec::master("master-1"));
            world.add_node(&NodeSpec::worker("worker-1").label("pool", "a"));
            world.add_node(&NodeSpec::worker("worker-2").label("pool", "a"));
            world.add_node(&NodeSpec::worker("worker-3").label("pool", "b"));
        });
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config"),
            double.kubeconfig(None, &Credentials::None),
        )
        .unwrap();
        Some(Self { dir, double })
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new("kubectl");
        // Its cache of what is served belongs to this server alone.
        command
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.dir.path().join("config"));
        command
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What it printed and whether it succeeded.
    async fn run(&self, arguments: &str) -> (bool, String) {
        let output = timeout(DEADLINE, self.command(arguments).output());
        let output = output
            .await
            .unwrap_or_else(|_| panic!("kubectl {arguments} did not end"))
            .unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        println!("$ kubectl {arguments}\n{said}");
        (output.status.success(), said)
    }

    /// Runs what has to succeed and to print each of `expected`, whatever the number of spaces between its words.
    async fn says(&self, arguments: &str, expected: &[&str]) -> String {
        let (success, said) = self.run(arguments).await;
        assert!(success, "kubectl {arguments} failed: {said}");
        let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for wanted in expected {
            assert!(
                words.contains(wanted),
                "kubectl {arguments} does not say {wanted:?}: {said}"
            );
        }
        said
    }

    fn manifest(&self, text: &str) -> String {
        let path = self.dir.path().join("manifest.yaml");
        std::fs::write(&path, text).unwrap();
        Path::to_str(&path).unwrap().to_owned()
    }
}

#[tokio::test]
async fn nodes_are_listed_described_labelled_and_tainted() {
    let Some(bench) = Bench::start(Release::CURRENT).await else {
        return;
    };
    bench
        .says(
            "get nodes",
            &[
                "NAME STATUS ROLES AGE VERSION",
                "master-1 Ready control-plane",
                "worker-1 Ready <none>",
            ],
        )
        .await;
    bench
        .says(
            "get nodes -o wide",
            &["CONTAINER-RUNTIME", "Debian GNU/Linux 12 (bookworm)"],
        )
        .await;
    bench
        .says(
            "get node worker-1 -o yaml",
            &["kind: Node", "kubeletVersion: v1.33.2"],
        )
        .await;
    bench
        .says(
            "get nodes -o jsonpath={.items[*].metadata.name}",
            &["master-1 worker-1 worker-2 worker-3"],
        )
        .await;
    let described = bench
        .says(
            "describe node worker-1",
            &["Ready True", "KubeletReady", "Allocated resources:"],
        )
        .await;
    assert!(
        described.contains("RenewTime:"),
        "no lease was found: {described}"
    );
    bench
        .says("label node worker-1 rack=r1", &["node/worker-1 labeled"])
        .await;
    let listed = bench.says("get nodes -l rack=r1", &["worker-1 Ready"]).await;
    assert!(!listed.contains("worker-2"), "{listed}");
    bench
        .says(
            "taint node worker-1 disk=full:NoSchedule",
            &["node/worker-1 tainted"],
        )
        .await;
    bench
        .says("describe node worker-1", &["Taints: disk=full:NoSchedule"])
        .await;
    bench
        .says(
            "taint node worker-1 disk:NoSchedule-",
            &["node/worker-1 untainted"],
        )
        .await;
    bench.says("cordon worker-1", &["node/worker-1 cordoned"]).await;
    bench
        .says("get node worker-1", &["Ready,SchedulingDisabled"])
        .await;
    bench
        .says("uncordon worker-1", &["node/worker-1 uncordoned"])
        .await;
    bench.says("top nodes", &["CPU(cores)", "worker-3"]).await;
}

#[tokio::test]
async fn deployments_are_applied_scaled_restarted_and_deleted() {
    let Some(bench) = Bench::start(Release::CURRENT).await else {
        return;
    };
    let file = bench.manifest(MANIFEST);
    let apply = format!("apply --validate=false -f {file}");
    bench
        .says(
            &apply,
            &[
                "deployment.apps/web created",
                "poddisruptionbudget.policy/web created",
            ],
        )
        .await;
    bench
        .says(
            "rollout status deployment/web",
            &["deployment \"web\" successfully rolled out"],
        )
        .await;
    bench.says(&apply, &["deployment.apps/web unchanged"]).await;
    bench
        .says(
            "get pods -A -o wide",
            &["NAMESPACE NAME READY STATUS", "1/1 Running 0"],
        )
        .await;
    bench
        .says(
            "get deploy,rs,pdb",
            &[
                "deployment.apps/web 3/3 3 3",
                "poddisruptionbudget.policy/web 2 N/A 1",
            ],
        )
        .await;
    bench
        .says(
            "describe pod -l app=web",
            &["Successfully assigned default/web-", "Started container web"],
        )
        .await;
    bench.says("logs deployment/web", &["started"]).await;
    bench
        .says(
            "scale deployment/web --replicas=4",
            &["deployment.apps/web scaled"],
        )
        .await;
    bench
        .says("rollout status deployment/web", &["successfully rolled out"])
        .await;
    let before = bench.double.with(|world| pods(world));
    bench
        .says(
            "rollout restart deployment/web",
            &["deployment.apps/web restarted"],
        )
        .await;
    bench
        .says("rollout status deployment/web", &["successfully rolled out"])
        .await;
    let replaced = |pods: &[String]| pods.len() == 4 && !pods.iter().any(|pod| before.contains(pod));
    bench
        .double
        .until(DEADLINE, |world| replaced(&pods(world)).then_some(()))
        .await
        .unwrap();
    bench
        .says("delete deployment web", &["deployment.apps \"web\" deleted"])
        .await;
    bench
        .double
        .until(DEADLINE, |world| pods(world).is_empty().then_some(()))
        .await
        .unwrap();
    bench
        .says("get pods", &["No resources found in default namespace."])
        .await;
}

#[tokio::test]
async fn a_drain_waits_for_the_disruption_budget() {
    let Some(bench) = Bench::start(Release::CURRENT).await else {
        return;
    };
    // Three pods that have to stay two, on two nodes of which one is to be emptied: the evicted ones find room on the other alone.
    bench
        .says(
            &format!("apply --validate=false -f {}", bench.manifest(MANIFEST)),
            &["created"],
        )
        .await;
    bench
        .says("rollout status deployment/web", &["successfully rolled out"])
        .await;
    bench.says("scale deployment/web --replicas=2", &["scaled"]).await;
    bench
        .double
        .until(DEADLINE, |world| (pods(world).len() == 2).then_some(()))
        .await
        .unwrap();
    bench.says("cordon worker-1", &["cordoned"]).await;
    bench.says("cordon worker-2", &["cordoned"]).await;
    let (drained, said) = bench.run("drain worker-1 worker-2 --timeout=12s").await;
    assert!(!drained, "a drain that breaks the budget succeeded: {said}");
    assert!(
        said.contains("Cannot evict pod as it would violate the pod's disruption budget."),
        "{said}"
    );
    // A third pod that is ready makes room for one at a time.
    bench
        .says("label node worker-3 pool=a --overwrite", &["labeled"])
        .await;
    bench.says("scale deployment/web --replicas=3", &["scaled"]).await;
    bench
        .says("drain worker-1 worker-2 --timeout=100s", &["/web-", "evicted"])
        .await;
    let pods = bench.says("get pods -o wide", &["worker-3"]).await;
    assert!(!pods.contains("worker-1") && !pods.contains("worker-2"), "{pods}");
}

#[tokio::test]
async fn a_pod_on_a_dead_node_stays_terminating_until_it_is_forced() {
    let Some(bench) = Bench::start(Release::CURRENT).await else {
        return;
    };
    bench.says("run one --image=one:1", &["pod/one created"]).await;
    bench
        .says(
            "wait --for=condition=Ready pod/one --timeout=60s",
            &["condition met"],
        )
        .await;
    let node = bench.says("get pod one -o jsonpath={.spec.nodeName}", &[]).await;
    bench.double.with(|world| world.power_off(&node));
    bench
        .says(
            &format!("wait --for=condition=Ready=Unknown node/{node} --timeout=100s"),
            &["condition met"],
        )
        .await;
    bench.says(&format!("get node {node}"), &["NotReady"]).await;
    bench
        .says("delete pod one --wait=false", &["pod \"one\" deleted"])
        .await;
    bench.says("get pod one", &["Terminating"]).await;
    bench
        .says("delete pod one --force --grace-period=0", &["force deleted"])
        .await;
    let (_, said) = bench.run("get pod one").await;
    assert!(
        said.contains("Error from server (NotFound): pods \"one\" not found"),
        "{said}"
    );
}

#[tokio::test]
async fn a_watch_prints_what_changes() {
    let Some(bench) = Bench::start(Release::CURRENT).await else {
        return;
    };
    let mut child = bench
        .command("get pods --watch")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    bench.says("run one --image=one:1", &["pod/one created"]).await;
    loop {
        let line = timeout(DEADLINE, lines.next_line())
            .await
            .expect("kubectl prints the pod within the deadline");
        let line = line.unwrap().expect("the watch goes on");
        if line.starts_with("one ") && line.contains("1/1") && line.contains("Running") {
            break;
        }
    }
}

#[tokio::test]
async fn an_old_server_is_drained_by_the_old_evictions() {
    let Some(bench) = Bench::start(Release::V1_13).await else {
        return;
    };
    bench
        .says("get nodes", &["master-1 Ready master", "v1.13.2"])
        .await;
    bench.says("run one --image=one:1", &["pod/one created"]).await;
    bench
        .says(
            "wait --for=condition=Ready pod/one --timeout=60s",
            &["condition met"],
        )
        .await;
    let node = bench.says("get pod one -o jsonpath={.spec.nodeName}", &[]).await;
    bench.says(&format!("drain {node} --force"), &["evicted"]).await;
    let versions = bench
        .says("api-versions", &["policy/v1beta1", "extensions/v1beta1"])
        .await;
    assert!(!versions.lines().any(|line| line == "policy/v1"), "{versions}");
}

#[tokio::test]
async fn what_a_certificate_may_not_do_is_said() {
    if Bench::start(Release::CURRENT).await.is_none() {
        return;
    }
    let authority = Authority::new().unwrap();
    let options = Options {
        tls: Some(authority.server(&["127.0.0.1".parse().unwrap()]).unwrap()),
        access: Access {
            rbac: true,
            ..Access::default()
        },
        ..Options::default()
    };
    let double = Double::start(options).await.unwrap();
    double.with(|world| world.add_node(&NodeSpec::master("m").static_control_plane()));
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench { dir, double };
    let act_as = |user: &str, group: &str| {
        let certificate = authority.client(user, group).unwrap();
        let config = bench.double.kubeconfig(
            Some(&authority.certificate),
            &Credentials::Certificate(&certificate),
        );
        std::fs::write(bench.dir.path().join("config"), config).unwrap();
    };
    act_as("admin", "system:masters");
    let role = json!({
        "kind": "ClusterRole", "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"]}],
    });
    let binding = json!({
        "kind": "ClusterRoleBinding", "metadata": {"name": "readers"},
        "roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "User", "name": "bob"}],
    });
    bench
        .double
        .with(|world| world.apply_manifests(&[role, binding]))
        .unwrap();
    bench.says("drain m --ignore-daemonsets", &["node/m"]).await;
    bench
        .says(
            "get pods -A",
            &["kube-system etcd-m", "kube-system kube-scheduler-m"],
        )
        .await;
    act_as("bob", "visitors");
    bench.says("get nodes", &["m Ready,SchedulingDisabled"]).await;
    let (allowed, said) = bench.run("label node m rack=r1").await;
    let expected = "nodes \"m\" is forbidden: User \"bob\" cannot patch resource \"nodes\" in API group \"\" at the cluster scope";
    assert!(!allowed && said.contains(expected), "{said}");
}

#[tokio::test]
async fn the_shipped_kustomization_is_the_daemonset_and_can_be_built_upon() {
    if Bench::start(Release::CURRENT).await.is_none() {
        return;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes");
    let dir = tempfile::tempdir().unwrap();
    // Nothing above a kustomization is taken into it but directories that are kustomizations themselves.
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    for file in ["kustomization.yaml", "agent-daemonset.yaml", "rbac.yaml"] {
        std::fs::copy(shipped.join(file), base.join(file)).unwrap();
    }
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let text =
        "resources: [../base]\nimages: [{name: blackstart-agent, newName: r.example/agent, newTag: '2'}]\n";
    std::fs::write(own.join("kustomization.yaml"), text).unwrap();
    for (at, image) in [(&base, "blackstart-agent:0.1.0"), (&own, "r.example/agent:2")] {
        let built = Command::new("kubectl")
            .arg("kustomize")
            .arg(at)
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(built.stdout).unwrap();
        for part in ["kind: DaemonSet", "kind: ClusterRole", &format!("image: {image}")] {
            assert!(
                text.contains(part),
                "{part}: {text}{}",
                String::from_utf8_lossy(&built.stderr)
            );
        }
    }
}
