//! The link against a coordinator that speaks the real protocol over mTLS on loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use blackstart_proto::boot::{self, PreviousShutdown};
use blackstart_proto::tls::TlsFiles;
use blackstart_proto::v1 as wire;
use blackstart_proto::v1::agent_message::Body as Up;
use blackstart_proto::v1::coordinator_message::Body as Down;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::fake::{Authority, Coordinator, SOON};
use super::*;
use crate::brakes::{Held, Scope, Standing, Word};
use crate::config::Settings;
use crate::gate::{self, GateState};
use crate::ledger::{Intent, Ledger, Outcome};
use crate::order::OrderStatus;
use crate::permit::{Answer, PermitKind, Said, Saying, Use, Verdict, Wish};
use crate::picture::Attestation;
use crate::remedy::Remedy;

const NODE: &str = "w-1";
const OFTEN: Duration = Duration::from_millis(200);
/// No report for its own sake comes in a test's time, and no silence is noticed.
const SELDOM: Duration = Duration::from_hours(1);

/// An agent as far as the link knows one.
struct Agent {
    dir: tempfile::TempDir,
    boot: BootIdentity,
    ledger: SharedLedger,
    picture: watch::Sender<Arc<Picture>>,
    orders: mpsc::Receiver<Order>,
    answers: mpsc::Sender<OrderAnswer>,
    goodbye: watch::Sender<Goodbye>,
    state: watch::Receiver<LinkState>,
    words: watch::Receiver<Option<Word>>,
    wish: watch::Sender<Arc<Vec<Said>>>,
    permits: mpsc::Receiver<Answer>,
    stop: CancellationToken,
    link: JoinHandle<()>,
}

impl Agent {
    fn start(tls: TlsFiles, addresses: Vec<SocketAddr>, report_interval: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A boot after a power loss: the second, without a marker.
        let establish = |run: &Path| {
            let kernel = Path::new(boot::KERNEL_BOOT_ID);
            boot::establish(kernel, &dir.path().join("state"), run).unwrap()
        };
        establish(&dir.path().join("run-before"));
        let boot = establish(&dir.path().join("run"));
        let ledger = Ledger::open(&dir.path().join("ledger"), &boot.nonce).unwrap().0;
        let ledger = SharedLedger::new(ledger);
        ledger.lock().obey_epoch(6).unwrap();

        let (picture, picture_seen) = watch::channel(picture("nothing"));
        let (order, orders) = mpsc::channel(1);
        let (answers, answered) = mpsc::channel(1);
        let (goodbye, goodbye_seen) = watch::channel(Goodbye::AgentStop);
        let (state, standing) = watch::channel(LinkState::begun());
        let (words, word) = watch::channel(None);
        let (wish, wishes) = watch::channel(Arc::default());
        let (permits, permitted) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let ports = LinkPorts {
            renewal_wanted: Arc::default(),
            settings: CoordinatorSettings {
                addresses,
                tls,
                report_interval,
                permit_wait: crate::config::PERMIT_WAIT,
            },
            clock: Arc::new(blackstart_proto::clock_floor::ClockFloor::none()),
            node: NODE.to_owned(),
            boot: boot.clone(),
            ledger: ledger.clone(),
            runtime_dir: dir.path().join("run"),
            picture: picture_seen,
            orders: order,
            answers: answered,
            goodbye: goodbye_seen,
            state,
            set_aside: SetAside::none(dir.path(), ""),
            words,
            wishes,
            permits,
            beat: Beat::begin(),
            etcd: crate::etcd::Desk::new(
                watch::channel(Arc::new(crate::config::Settings::for_node(NODE))).1,
                false,
            ),
            control_plane: crate::control_plane::Desk::new(
                watch::channel(Arc::new(crate::config::Settings::for_node(NODE))).1,
                &SetAside::none(dir.path(), ""),
                false,
            ),
        };
        let link = tokio::spawn(run(ports, stop.clone()));
        Self {
            dir,
            boot,
            ledger,
            picture,
            orders,
            answers,
            goodbye,
            state: standing,
            words: word,
            wish,
            permits: permitted,
            stop,
            link,
        }
    }

    /// With one coordinator, which trusts it.
    async fn with_coordinator(
        report_interval: Duration,
    ) -> (Self, Coordinator, Authority, tempfile::TempDir) {
        let authority = Authority::new();
        let coordinator = Coordinator::start(&authority).await;
        let pki = tempfile::tempdir().unwrap();
        let tls = authority.enrol(pki.path(), NODE);
        let agent = Self::start(tls, vec![coordinator.address], report_interval);
        (agent, coordinator, authority, pki)
    }

    async fn answer(&self, command_id: &str) {
        let answer = OrderAnswer {
            command_id: command_id.to_owned(),
            status: OrderStatus::Done,
            detail: "it is open".to_owned(),
        };
        timeout(SOON, self.answers.send(answer)).await.unwrap().unwrap();
    }

    /// What was said before this has arrived.
    async fn has_heard(&mut self, coordinator: &Coordinator) {
        let restart = wire::RestartUnit::default();
        coordinator.command("next", Some(wire::command::Action::RestartUnit(restart)));
        timeout(SOON, self.orders.recv()).await.unwrap().unwrap();
        self.answer("next").await;
    }

    async fn stops(self) {
        self.stop.cancel();
        timeout(SOON, self.link).await.unwrap().unwrap();
    }
}

fn picture(waiting_on: &str) -> Arc<Picture> {
    Arc::new(Picture {
        attestation: Attestation {
            gate: GateState::Held,
            kubelet_active: false,
            kubelet_healthy: false,
            apiserver_ready: false,
            api_server: None,
            observed_at: Instant::now(),
            waiting_on: waiting_on.to_owned(),
            manifests: blackstart_proto::component::Manifests::new(),
        },
        conditions: Vec::new(),
        units: Vec::new(),
        helpers: Vec::new(),
        disks: Vec::new(),
        brakes: Standing::default(),
        set_aside: std::sync::Arc::default(),
        waiting: Vec::new(),
    })
}

fn waiting_on(report: wire::Report) -> String {
    report.attestation.unwrap().waiting_on
}

#[tokio::test]
async fn it_says_who_it_is_and_reports_at_least_every_interval() {
    let (agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(OFTEN).await;
    let hello = coordinator.hears_hello().await;
    assert_eq!((hello.node.as_str(), hello.highest_epoch), (NODE, 6));
    assert_eq!(hello.report_interval_ms, 200);
    let said = hello.boot.unwrap();
    assert_eq!(said.nonce, agent.boot.nonce);
    assert_eq!(agent.boot.previous_shutdown, PreviousShutdown::Unclean);
    assert_eq!(said.previous_shutdown(), wire::PreviousShutdown::Unclean);
    for sequence in 1..=3 {
        let report = coordinator.hears_report().await;
        assert_eq!(report.sequence, sequence);
        assert_eq!(report.attestation.unwrap().gate(), wire::GateState::Held);
    }
    agent.stops().await;
}

#[tokio::test]
async fn a_change_is_told_at_once() {
    let (agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(SELDOM).await;
    assert_eq!(waiting_on(coordinator.hears_report().await), "nothing");
    for number in 0..50 {
        agent.picture.send_replace(picture(&format!("step {number}")));
    }
    let mut reports = 0;
    while waiting_on(coordinator.hears_report().await) != "step 49" {
        reports += 1;
    }
    assert!(reports < 49, "changes that come together are told together");
}

#[tokio::test]
async fn a_command_becomes_an_order_and_its_answer_comes_back() {
    let (mut agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(SELDOM).await;
    coordinator.hears_report().await;
    let action = wire::command::Action::ReleaseKubelet(wire::ReleaseKubelet {
        run_id: "run-1".into(),
        reason: "its turn".into(),
    });
    coordinator.command("run-1/release", Some(action));
    let order = timeout(SOON, agent.orders.recv()).await.unwrap().unwrap();
    assert_eq!((order.command_id.as_str(), order.epoch), ("run-1/release", 7));
    let released = Remedy::ReleaseKubelet {
        run_id: "run-1".into(),
    };
    assert_eq!(order.remedy, released);
    agent.answer("run-1/release").await;
    let result = coordinator.hears_result().await;
    assert_eq!(result.command_id, "run-1/release");
    assert_eq!(result.status(), wire::CommandStatus::Done);

    // What this version does not know is refused, not ignored.
    coordinator.command("run-1/dance", None);
    let result = coordinator.hears_result().await;
    assert_eq!(result.command_id, "run-1/dance");
    assert_eq!(result.status(), wire::CommandStatus::Refused);
}

#[tokio::test]
async fn an_older_coordinator_is_spoken_to_by_calls() {
    let authority = Authority::new();
    let mut coordinator = Coordinator::start_of_old(&authority).await;
    let pki = tempfile::tempdir().unwrap();
    let tls = authority.enrol(pki.path(), NODE);
    let mut agent = Agent::start(tls, vec![coordinator.address], OFTEN);
    let first = coordinator.hears_report().await.sequence;
    let restart = wire::RestartUnit::default();
    coordinator.command("run-1/restart", Some(wire::command::Action::RestartUnit(restart)));
    let order = timeout(SOON, agent.orders.recv()).await.unwrap().unwrap();
    assert_eq!(order.command_id, "run-1/restart");
    assert!(coordinator.hears_report().await.sequence > first);
    agent.stops().await;
}

/// Lets this much time pass at once.
async fn later(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn a_silent_coordinator_is_asked_for_a_sign_of_life_and_left_without_one() {
    let (mut agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(SELDOM).await;
    coordinator.hears_report().await;
    agent.has_heard(&coordinator).await;
    let mut asked = coordinator.manners.asked.subscribe();
    later(13).await;
    timeout(SOON, asked.wait_for(|asked| *asked == 1))
        .await
        .unwrap()
        .unwrap();
    // It has answered, so it is asked again, and not left.
    agent.picture.send_replace(picture("something else"));
    coordinator.hears_report().await;
    agent.has_heard(&coordinator).await;
    coordinator.manners.acknowledges.store(false, Ordering::SeqCst);
    coordinator.manners.mute.store(true, Ordering::SeqCst);
    later(13).await;
    timeout(SOON, asked.wait_for(|asked| *asked == 2))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(agent.state.borrow().reached(), Some(true));
    later(11).await;
    let lost = |state: &LinkState| matches!(state, LinkState::Down { trouble, .. } if trouble.contains("no sign of life"));
    timeout(SOON, agent.state.wait_for(lost)).await.unwrap().unwrap();
}

#[tokio::test]
async fn many_commands_at_once_all_reach_a_loop_that_is_slow() {
    let (mut agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(SELDOM).await;
    coordinator.hears_report().await;
    let restart = wire::command::Action::RestartUnit(wire::RestartUnit {
        unit: "docker.service".into(),
        reason: "asked".into(),
    });
    for number in 0..90 {
        coordinator.command(&number.to_string(), Some(restart.clone()));
    }
    for number in 0..90 {
        let order = timeout(SOON, agent.orders.recv()).await.unwrap().unwrap();
        assert_eq!(order.command_id, number.to_string());
    }
}

#[tokio::test]
async fn an_answer_is_sent_again_when_the_coordinator_was_killed_before_it_acknowledged() {
    let (mut agent, mut coordinator, authority, _pki) = Agent::with_coordinator(SELDOM).await;
    coordinator.hears_report().await;
    coordinator.manners.acknowledges.store(false, Ordering::SeqCst);
    agent.answer("first").await;
    assert_eq!(coordinator.hears_result().await.command_id, "first");
    let address = coordinator.address;
    drop(coordinator);

    let mut coordinator = Coordinator::start_at(&authority, address).await;
    assert_eq!(coordinator.hears_result().await.command_id, "first");
    // This time the report behind it is acknowledged, and the acknowledgement has arrived when what follows it has.
    coordinator.hears_report().await;
    let restart = wire::RestartUnit::default();
    coordinator.command("next", Some(wire::command::Action::RestartUnit(restart)));
    timeout(SOON, agent.orders.recv()).await.unwrap().unwrap();
    drop(coordinator);
    agent.answer("second").await;
    let mut coordinator = Coordinator::start_at(&authority, address).await;
    assert_eq!(coordinator.hears_result().await.command_id, "second");
}

#[tokio::test]
async fn only_a_coordinator_of_its_own_authority_gets_a_session() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut wrong = Coordinator::start(&theirs).await;
    let mut right = Coordinator::start(&ours).await;
    let pki = tempfile::tempdir().unwrap();
    let tls = ours.enrol(pki.path(), NODE);
    let _agent = Agent::start(tls, vec![wrong.address, right.address], OFTEN);
    right.hears_report().await;
    assert!(wrong.heard_nothing());
}

#[tokio::test]
async fn certificates_that_are_put_right_count_without_a_restart() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut coordinator = Coordinator::start(&ours).await;
    let pki = tempfile::tempdir().unwrap();
    let tls = theirs.enrol(pki.path(), NODE);
    let mut watched = Coordinator::start(&theirs).await;
    // In session at the second address: the first has been tried with the wrong files.
    let _agent = Agent::start(tls, vec![coordinator.address, watched.address], OFTEN);
    watched.hears_report().await;
    assert!(coordinator.heard_nothing());
    ours.enrol(pki.path(), NODE);
    drop(watched);
    coordinator.hears_report().await;
}

#[tokio::test]
async fn a_coordinator_that_was_gone_is_found_again() {
    let (agent, mut coordinator, authority, _pki) = Agent::with_coordinator(OFTEN).await;
    let last = coordinator.hears_report().await.sequence;
    let address = coordinator.address;
    drop(coordinator);
    agent.picture.send_replace(picture("its return"));
    let mut coordinator = Coordinator::start_at(&authority, address).await;
    assert_eq!(coordinator.hears_hello().await.node, NODE);
    let report = coordinator.hears_report().await;
    assert!(report.sequence > last);
    assert_eq!(waiting_on(report), "its return");
}

#[tokio::test]
async fn a_coordinator_that_acknowledges_nothing_is_left() {
    let authority = Authority::new();
    let mut deaf = Coordinator::start(&authority).await;
    deaf.manners.acknowledges.store(false, Ordering::SeqCst);
    let mut other = Coordinator::start(&authority).await;
    let pki = tempfile::tempdir().unwrap();
    let tls = authority.enrol(pki.path(), NODE);
    let _agent = Agent::start(tls, vec![deaf.address, other.address], OFTEN);
    deaf.hears_hello().await;
    other.hears_hello().await;
}

#[tokio::test]
async fn a_coordinator_that_follows_sends_the_agent_to_the_one_that_leads() {
    let authority = Authority::new();
    let follower = Coordinator::start(&authority).await;
    let mut leader = Coordinator::start(&authority).await;
    *follower.manners.follows.lock().unwrap() = Some(leader.address);
    let pki = tempfile::tempdir().unwrap();
    let tls = authority.enrol(pki.path(), NODE);
    // It knows the follower alone.
    let _agent = Agent::start(tls, vec![follower.address], OFTEN);
    assert_eq!(leader.hears_hello().await.node, NODE);
}

#[tokio::test]
async fn the_gate_hears_that_the_coordinator_is_at_work() {
    let (agent, coordinator, _authority, _pki) = Agent::with_coordinator(OFTEN).await;
    let mut settings = Settings::for_node(NODE);
    settings.state_dir = agent.dir.path().join("state");
    settings.runtime_dir = agent.dir.path().join("run");
    let (told, mut statuses) = mpsc::channel(1000);
    let stop = CancellationToken::new();
    let holding = tokio::spawn({
        let stop = stop.clone();
        async move { gate::hold_with(&settings, stop, |status| told.try_send(status.clone()).unwrap()).await }
    });
    coordinator.manners.holds.store(true, Ordering::SeqCst);
    let heard = async { while !statuses.recv().await.unwrap().waiting_on.contains("wave 2") {} };
    timeout(SOON, heard).await.unwrap();
    stop.cancel();
    timeout(SOON, holding).await.unwrap().unwrap();
}

#[tokio::test]
async fn remedies_are_told_until_they_are_known() {
    let (agent, mut coordinator, authority, _pki) = Agent::with_coordinator(OFTEN).await;
    coordinator.hears_report().await;
    let intent = Intent {
        remedy: "restart-unit".into(),
        subject: "kubelet.service".into(),
        reason: "it failed".into(),
        command_id: None,
        dry_run: false,
    };
    let sequence = agent.ledger.lock().intent(intent).unwrap();
    let outcome = async |coordinator: &mut Coordinator| {
        coordinator
            .hears("the remedy", |body| match body {
                Up::Report(report) => report.remedies.first().map(wire::RemedyRecord::outcome),
                Up::Hello(_)
                | Up::Result(_)
                | Up::Goodbye(_)
                | Up::PermitRequest(_)
                | Up::PermitReturn(_)
                | Up::EtcdAnswer(_)
                | Up::ControlPlaneAnswer(_) => None,
            })
            .await
    };
    assert_eq!(outcome(&mut coordinator).await, wire::RemedyOutcome::Started);
    let address = coordinator.address;
    drop(coordinator);
    let detail = "running".into();
    agent
        .ledger
        .lock()
        .outcome(sequence, Outcome::Succeeded { detail })
        .unwrap();
    let mut coordinator = Coordinator::start_at(&authority, address).await;
    assert_eq!(outcome(&mut coordinator).await, wire::RemedyOutcome::Succeeded);
    let quiet = |body| match body {
        Up::Report(report) => report.remedies.is_empty().then_some(()),
        Up::Hello(_)
        | Up::Result(_)
        | Up::Goodbye(_)
        | Up::PermitRequest(_)
        | Up::PermitReturn(_)
        | Up::EtcdAnswer(_)
        | Up::ControlPlaneAnswer(_) => None,
    };
    coordinator.hears("a report without it", quiet).await;
}

#[tokio::test]
async fn what_is_held_is_heard_and_what_this_agent_does_not_have_is_passed_over() {
    let (mut agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(SELDOM).await;
    coordinator.hears_report().await;
    let hold = |remedy: &str, ends_in_ms| wire::Hold {
        scope: wire::HoldScope::Cluster.into(),
        remedy: remedy.into(),
        by: "ann".into(),
        reason: "new kubelet".into(),
        ends_in_ms,
        ..wire::Hold::default()
    };
    let freeze = |condition: &str| wire::Freeze {
        condition: condition.into(),
        why: "3 of 4".into(),
        ends_in_ms: u64::MAX,
    };
    coordinator.say(wire::coordinator_message::Body::Brakes(wire::Brakes {
        epoch: 9,
        holds: vec![hold("prune", 0), hold("", 60_000), hold("reboot-the-moon", 0)],
        freezes: vec![freeze("UnitFailed"), freeze("MoonDown")],
    }));
    let word = timeout(SOON, agent.words.wait_for(Option::is_some)).await;
    let word = word.unwrap().unwrap().clone().unwrap();
    assert_eq!(word.epoch, 9);
    let told: Vec<_> = word
        .holds
        .iter()
        .map(|hold| (hold.scope, hold.what, hold.until.is_some()))
        .collect();
    let prune = Held::Remedy(blackstart_proto::remedy::RemedyKind::Prune);
    assert_eq!(
        told,
        [
            (Scope::Cluster, prune, false),
            (Scope::Cluster, Held::Every, true)
        ]
    );
    assert_eq!(word.freezes.len(), 1);
    agent.stops().await;
}

#[tokio::test]
async fn whether_there_is_a_session_can_be_asked() {
    let (mut agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(OFTEN).await;
    coordinator.hears_report().await;
    let up =
        |state: &LinkState| matches!(state, LinkState::Up { address, .. } if *address == coordinator.address);
    timeout(SOON, agent.state.wait_for(up)).await.unwrap().unwrap();
    drop(coordinator);
    let down =
        |state: &LinkState| matches!(state, LinkState::Down { trouble, .. } if trouble.contains("127.0.0.1"));
    timeout(SOON, agent.state.wait_for(down)).await.unwrap().unwrap();
    agent.stops().await;
}

#[tokio::test]
async fn it_says_goodbye_and_why() {
    for (reason, told) in [
        (Goodbye::AgentStop, wire::GoodbyeReason::AgentStop),
        (Goodbye::Shutdown, wire::GoodbyeReason::Shutdown),
    ] {
        let (agent, mut coordinator, _authority, _pki) = Agent::with_coordinator(SELDOM).await;
        coordinator.hears_report().await;
        agent.goodbye.send_replace(reason);
        agent.stops().await;
        let heard = |body| match body {
            Up::Goodbye(goodbye) => Some(goodbye.reason()),
            Up::Hello(_)
            | Up::Report(_)
            | Up::Result(_)
            | Up::PermitRequest(_)
            | Up::PermitReturn(_)
            | Up::EtcdAnswer(_)
            | Up::ControlPlaneAnswer(_) => None,
        };
        assert_eq!(coordinator.hears("a goodbye", heard).await, told);
    }
}

#[tokio::test]
async fn the_agents_loop_never_waits_for_a_coordinator_that_is_not_there() {
    let authority = Authority::new();
    let address = Coordinator::start(&authority).await.address;
    let pki = tempfile::tempdir().unwrap();
    let tls = authority.enrol(pki.path(), NODE);
    let agent = Agent::start(tls, vec![address], OFTEN);
    for number in 0..100 {
        agent.answer(&number.to_string()).await;
    }
    agent.stops().await;
}

#[tokio::test]
async fn without_any_address_it_stops_when_told() {
    let pki = tempfile::tempdir().unwrap();
    let tls = Authority::new().enrol(pki.path(), NODE);
    let agent = Agent::start(tls, Vec::new(), OFTEN);
    agent.answer("a").await;
    agent.stops().await;
}

#[tokio::test]
async fn a_request_for_a_permit_is_said_in_each_session_and_an_answer_of_an_older_epoch_is_none() {
    let (mut agent, mut coordinator, authority, _pki) = Agent::with_coordinator(SELDOM).await;
    let said = |what| {
        let id = "runtime-restart/docker@1".to_owned();
        Arc::new(vec![Said { id, what }])
    };
    agent.wish.send_replace(said(Saying::Ask(Wish {
        kind: PermitKind::RuntimeRestart,
        subject: "docker.service".to_owned(),
        reason: "it hangs".to_owned(),
    })));
    let asks = |body| match body {
        Up::PermitRequest(request) => Some(request),
        Up::Hello(_)
        | Up::Report(_)
        | Up::Result(_)
        | Up::Goodbye(_)
        | Up::PermitReturn(_)
        | Up::EtcdAnswer(_)
        | Up::ControlPlaneAnswer(_) => None,
    };
    let first = coordinator.hears("a request", asks).await;
    assert_eq!(first.kind(), wire::PermitKind::RuntimeRestart);
    let address = coordinator.address;
    drop(coordinator);

    let mut coordinator = Coordinator::start_at(&authority, address).await;
    let again = coordinator.hears("the request again", asks).await;
    assert_eq!(again, first);
    // The ledger has obeyed epoch 6.
    for (epoch, verdict) in [(5, wire::PermitVerdict::Granted), (7, wire::PermitVerdict::Wait)] {
        coordinator.say(Down::PermitAnswer(wire::PermitAnswer {
            request_id: first.request_id.clone(),
            epoch,
            verdict: verdict.into(),
            reason: "m-2".to_owned(),
            begin_within_ms: 60_000,
        }));
    }
    let answer = timeout(SOON, agent.permits.recv()).await.unwrap().unwrap();
    let on = "m-2".to_owned();
    assert_eq!((answer.epoch, answer.verdict), (7, Verdict::Wait { on }));

    agent.wish.send_replace(said(Saying::Return(Use::Unused)));
    let returns = |body| match body {
        Up::PermitReturn(over) => Some(over),
        Up::Hello(_)
        | Up::Report(_)
        | Up::Result(_)
        | Up::Goodbye(_)
        | Up::PermitRequest(_)
        | Up::EtcdAnswer(_)
        | Up::ControlPlaneAnswer(_) => None,
    };
    let over = coordinator.hears("the return", returns).await;
    assert_eq!(
        (over.request_id, over.outcome),
        (first.request_id, wire::PermitOutcome::Unused.into())
    );
    agent.stops().await;
}

/// Somebody who has a coordinator's key, and would be spoken to as years ago.
#[tokio::test]
async fn who_speaks_an_older_tls_is_no_coordinator() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let files = authority.enrol(dir.path(), NODE);
    let (address, taking) = Coordinator::of_old_tls(&authority).await;
    let clock = Arc::new(blackstart_proto::clock_floor::ClockFloor::none());
    let config = secure::client(&files.read().unwrap(), &clock).unwrap();
    let refused = timeout(SOON, secure::reach(address, config)).await.unwrap();
    let why = refused.err().unwrap();
    assert!(why.contains("ProtocolVersion"), "{why}");
    timeout(SOON, taking).await.unwrap().unwrap();
}
