//! Real questions over a real socket.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use blackstart_proto::boot::{self, PreviousShutdown};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Budget, Coordinator, NodeStatus};
use super::window::Window;
use super::*;
use crate::brakes::{SharedBrakes, Standing};
use crate::condition::{Condition, ConditionKey, ConditionKind, Severity};
use crate::config::{GateRole, Settings};
use crate::gate::GateState;
use crate::ledger::{Intent, Ledger, Outcome, SharedLedger};
use crate::link::LinkState;
use crate::picture::{Attestation, Picture};
use crate::signal::{ActiveState, DiskSignal, UnitDetail, UnitSignal};

const SOON: Duration = Duration::from_secs(30);

/// What an agent knows, without the agent.
pub(crate) struct Known {
    pub(crate) _dir: TempDir,
    pub(crate) window: Window,
    pub(crate) picture: watch::Sender<Arc<Picture>>,
    pub(crate) link: watch::Sender<LinkState>,
}

impl Known {
    /// A node with a sick kubelet that was restarted once, and a coordinator that was not reached yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings {
            state_dir: dir.path().join("state"),
            runtime_dir: dir.path().join("run"),
            ..Settings::for_node("node-1")
        };
        settings.memory.may_restart = vec!["app.service".to_owned()];
        settings.runtime.may_restart_containers = vec!["web".to_owned()];
        settings.gate.role = GateRole::ControlPlane;
        let boot =
            boot::establish(&settings.boot_id_file, &settings.state_dir, &settings.runtime_dir).unwrap();
        let mut ledger = Ledger::open(&settings.ledger(), &boot.nonce).unwrap().0;
        let intent = Intent {
            remedy: "restart-unit".to_owned(),
            subject: "kubelet.service".to_owned(),
            reason: "UnitFailed: result signal".to_owned(),
            command_id: None,
            dry_run: false,
        };
        let number = ledger.intent(intent).unwrap();
        let detail = "its job ended with failed".to_owned();
        ledger.outcome(number, Outcome::Failed { detail }).unwrap();
        let settings_dir = settings.state_dir.clone();
        let (picture, picture_seen) = watch::channel(Arc::new(picture()));
        let (link, link_seen) = watch::channel(LinkState::begun());
        let window = Window {
            settings: watch::channel(Arc::new(settings)).1,
            brakes: SharedBrakes::open(&settings_dir, &boot.nonce),
            boot,
            ledger: SharedLedger::new(ledger),
            picture: picture_seen,
            link: Some(link_seen),
            lacks: watch::channel(None).1,
            machine: true,
            begun: Instant::now(),
        };
        Self {
            _dir: dir,
            window,
            picture,
            link,
        }
    }
}

fn picture() -> Picture {
    let condition = |kind, subject: &str, severity| Condition {
        key: ConditionKey {
            kind,
            subject: subject.to_owned(),
        },
        severity,
        since: Instant::now(),
        evidence: "seen".to_owned(),
        escalated: false,
        log: None,
        heaviest: Vec::new(),
    };
    Picture {
        attestation: Attestation {
            gate: GateState::Absent,
            kubelet_active: false,
            kubelet_healthy: false,
            apiserver_ready: false,
            api_server: None,
            observed_at: Instant::now(),
            waiting_on: "kubelet.service waits for the pause before the next attempt".to_owned(),
            manifests: blackstart_proto::component::Manifests::new(),
        },
        conditions: vec![
            condition(ConditionKind::DiskPressure, "/var", Severity::Warning),
            condition(ConditionKind::UnitFailed, "kubelet.service", Severity::Critical),
        ],
        units: vec![UnitSignal {
            unit: "kubelet.service".to_owned(),
            active: ActiveState::Failed,
            sub: "failed".to_owned(),
            main_pid: 0,
            restarts: 0,
            result: "signal".to_owned(),
            detail: UnitDetail::default(),
        }],
        helpers: vec!["chronyd.service".to_owned()],
        disks: vec![DiskSignal {
            mount_point: "/var".into(),
            bytes_total: 1000,
            bytes_available: 100,
            inodes_total: 0,
            inodes_free: 0,
            time_to_full: None,
        }],
        brakes: Standing::default(),
        set_aside: std::sync::Arc::default(),
        waiting: Vec::new(),
    }
}

struct Served {
    known: Known,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let known = Known::new();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(known.window.clone(), stop.clone()));
        let served = Self { known, stop, task };
        timeout(SOON, async {
            while !served.socket().exists() {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap();
        served
    }

    fn socket(&self) -> std::path::PathBuf {
        self.known.window.settings().socket()
    }

    async fn status(&self) -> NodeStatus {
        match ask(&self.socket(), &Question::Status).await.unwrap() {
            Answer::NodeStatus(status) => *status,
            other @ (Answer::ConditionList { .. }
            | Answer::RemedyList { .. }
            | Answer::Explanation(_)
            | Answer::Held(_)
            | Answer::Lifted(_)
            | Answer::Refusal { .. }) => panic!("{other:?}"),
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(SOON, self.task).await.unwrap().unwrap();
    }
}

/// Whatever is written, and what comes back.
async fn raw(socket: &Path, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(bytes).await?;
    let mut text = Vec::new();
    timeout(SOON, stream.read_to_end(&mut text)).await.unwrap()?;
    Ok(text)
}

#[tokio::test]
async fn root_alone_may_ask_and_is_told_how_the_node_is() {
    let served = Served::start().await;
    let mode = fs::metadata(served.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let status = served.status().await;
    assert_eq!(status.node, "node-1");
    assert_eq!(status.previous_shutdown, PreviousShutdown::FirstBoot);
    assert_eq!(status.conditions, 2);
    assert_eq!(status.units[0].state, "failed");
    assert_eq!(status.disks[0].used_percent, 90);
    assert!(status.waiting_on.contains("pause"));
    assert!(matches!(status.coordinator, Coordinator::Down { .. }));
    let left = |remedy: &str| Budget {
        subject: "kubelet.service".to_owned(),
        remedy: remedy.to_owned(),
        limit: if remedy == "restart-unit" { 3 } else { 2 },
        left: 2,
    };
    for budget in [left("restart-unit"), left("kill-restart-unit")] {
        assert!(status.budgets.contains(&budget), "{:?}", status.budgets);
    }

    let address = "10.0.0.1:7443".parse().unwrap();
    let since = Instant::now();
    served.known.link.send_replace(LinkState::Up { since, address });
    let coordinator = served.status().await.coordinator;
    assert!(matches!(coordinator, Coordinator::Up { address: at, .. } if at == address));
    served.stop().await;
}

#[tokio::test]
async fn conditions_come_with_the_worst_first_and_remedies_with_their_outcome() {
    let served = Served::start().await;
    let Answer::ConditionList { items } = ask(&served.socket(), &Question::Conditions).await.unwrap() else {
        panic!()
    };
    let kinds: Vec<_> = items.iter().map(|item| item.condition.as_str()).collect();
    assert_eq!(kinds, ["UnitFailed", "DiskPressure"]);

    let remedies = |last| Question::Remedies { last };
    let Answer::RemedyList { items, .. } = ask(&served.socket(), &remedies(5)).await.unwrap() else {
        panic!()
    };
    assert_eq!(items.len(), 1);
    assert_eq!((items[0].outcome.as_str(), items[0].number), ("failed", 1));
    assert!(items[0].begun_at.ends_with('Z'), "{}", items[0].begun_at);
    let none = ask(&served.socket(), &remedies(0)).await.unwrap();
    assert_eq!(
        none,
        Answer::RemedyList {
            items: Vec::new(),
            lacks: Vec::new()
        }
    );

    let explain = |condition: &str| Question::Explain {
        condition: condition.to_owned(),
    };
    let told = ask(&served.socket(), &explain("disk-pressure")).await.unwrap();
    assert!(matches!(told, Answer::Explanation(told) if told.condition == "DiskPressure"));
    let refused = ask(&served.socket(), &explain("nonsense")).await.unwrap_err();
    assert!(refused.to_string().contains("known: UnitFailed"), "{refused}");
    served.stop().await;
}

#[tokio::test]
async fn nonsense_silence_and_floods_do_the_agent_no_harm() {
    let served = Served::start().await;
    let socket = served.socket();
    for nonsense in [&b"hello\n"[..], b"{\"ask\":\"reboot\"}\n", b"\n"] {
        let text = raw(&socket, nonsense).await.unwrap();
        let answer: Answer = serde_json::from_slice(&text).unwrap();
        assert!(matches!(answer, Answer::Refusal { .. }), "{answer:?}");
    }
    // Longer than any question: refused as soon as that is plain, whatever else is still to come.
    let flood = raw(&socket, &vec![b'x'; 1 << 20]).await;
    assert!(flood.is_err() || flood.unwrap().len() < 1000);
    let mut silent = Vec::new();
    for _ in 1..AT_ONCE {
        silent.push(UnixStream::connect(&socket).await.unwrap());
    }
    served.status().await;
    served.stop().await;
}

#[tokio::test]
async fn a_socket_that_a_dead_agent_left_is_told_and_replaced() {
    let known = Known::new();
    let socket = known.window.settings().socket();
    let missing = ask(&socket, &Question::Status).await.unwrap_err();
    assert!(matches!(missing, AskError::NotRunning(_)), "{missing:?}");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let dead = ask(&socket, &Question::Status).await.unwrap_err();
    assert!(matches!(dead, AskError::NotRunning(_)), "{dead:?}");

    let stop = CancellationToken::new();
    let task = tokio::spawn(serve(known.window.clone(), stop.clone()));
    timeout(SOON, async {
        while ask(&socket, &Question::Status).await.is_err() {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    stop.cancel();
    timeout(SOON, task).await.unwrap().unwrap();
}

#[tokio::test]
async fn holds_are_made_and_lifted_on_the_node_and_shown() {
    let served = Served::start().await;
    let asked = |remedy: Option<&str>, reason: &str| Question::Hold {
        remedy: remedy.map(str::to_owned),
        silence: false,
        by: "ann".into(),
        reason: reason.into(),
        for_ms: Some(60_000),
    };
    for wrong in [asked(Some("reboot"), "why not"), asked(None, " ")] {
        let answer = ask(&served.socket(), &wrong).await.unwrap_err();
        assert!(
            answer.to_string().contains("known: ") || answer.to_string().contains("reason"),
            "{answer}"
        );
    }
    let answer = ask(&served.socket(), &asked(Some("prune"), "new images"))
        .await
        .unwrap();
    assert!(
        matches!(&answer, Answer::Held(held) if held.remedy.as_deref() == Some("prune")),
        "{answer:?}"
    );
    let status = served.status().await;
    assert_eq!((status.holds.len(), status.holds[0].by.as_str()), (1, "ann"));
    assert!(status.holds[0].ends_in_ms.unwrap() <= 60_000);
    let lift = |remedy: Option<&str>| Question::Lift {
        remedy: remedy.map(str::to_owned),
        silence: false,
    };
    assert!(ask(&served.socket(), &lift(None)).await.is_err());
    let lifted = ask(&served.socket(), &lift(Some("prune"))).await.unwrap();
    assert!(matches!(lifted, Answer::Lifted(_)));
    assert_eq!(served.status().await.holds, []);
}
