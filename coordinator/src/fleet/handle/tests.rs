use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use blackstart_proto::boot::{BootIdentity, PreviousShutdown};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::fleet::view::{Attestation, GateState, Phase};
use crate::fleet::{Action, Answer};
use crate::inventory::{Cluster, ClusterName, NodeSpec, Role};
use crate::store::NewEntry;

/// Values in memory; fails when told to.
#[derive(Debug, Default)]
struct Shelf {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    broken: AtomicBool,
}

impl Store for Shelf {
    fn next_epoch(&self) -> Result<u64, StoreError> {
        Ok(1)
    }

    fn append_all(&self, _: &[NewEntry]) -> Result<(), StoreError> {
        Ok(())
    }

    fn journal(&self, _: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(Vec::new())
    }

    fn runs(&self) -> Result<Vec<String>, StoreError> {
        Ok(Vec::new())
    }

    fn put(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::Busy("shelf".into()));
        }
        self.values.lock().unwrap().insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.values.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let values = self.values.lock().unwrap();
        let found = values.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn name(index: usize) -> NodeName {
    NodeName(format!("n{index}"))
}

fn inventory(nodes: usize) -> Inventory {
    let cluster = ClusterName("c".to_owned());
    let spec = |index| NodeSpec {
        name: name(index),
        cluster: cluster.clone(),
        role: Role::Worker,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        rack: None,
        machine_id: None,
        bmc: None,
    };
    Inventory {
        nodes: (0..nodes).map(|index| (name(index), spec(index))).collect(),
        clusters: vec![Cluster {
            vip: None,
            name: cluster.clone(),
            after: Vec::new(),
            nodes: (0..nodes).map(name).collect(),
        }],
    }
}

struct World {
    fleet: Fleet,
    store: Arc<Shelf>,
    answers: mpsc::Receiver<OrderResult>,
    holds: watch::Sender<Holds>,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    fn new(nodes: usize) -> Self {
        Self::over(Arc::default(), nodes)
    }

    fn over(store: Arc<Shelf>, nodes: usize) -> Self {
        let (results, answers) = mpsc::channel(4);
        let (holds, held) = watch::channel(Holds::new());
        let parts = FleetParts {
            inventory: Arc::new(inventory(nodes)),
            silent_after: Duration::from_secs(6),
            own_unclean_boot: true,
            events: Events::default(),
            results,
            holds: held,
        };
        let fleet = Fleet::new(parts, store.as_ref()).unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(
            fleet
                .clone()
                .run(Arc::clone(&store) as Arc<dyn Store>, stop.clone()),
        );
        Self {
            fleet,
            store,
            answers,
            holds,
            stop,
            running,
        }
    }

    fn opens(&self, index: usize) -> SessionLine {
        let hello = Hello {
            agent_version: "1".to_owned(),
            boot: BootIdentity {
                boot_id: "a".to_owned(),
                nonce: index.to_string(),
                previous_shutdown: PreviousShutdown::Unclean,
            },
            highest_epoch: 0,
            report_interval: Duration::from_secs(1),
        };
        self.fleet.open(&name(index), hello).unwrap()
    }

    /// Waits for a view that is as wanted.
    async fn sees(&self, what: &str, wanted: impl Fn(&FleetView) -> bool) {
        let mut view = self.fleet.view();
        let seen = timeout(Duration::from_mins(1), view.wait_for(|view| wanted(view))).await;
        assert!(seen.is_ok(), "{what} was never published");
    }

    async fn ends(self) -> Arc<Shelf> {
        self.stop.cancel();
        self.running.await.unwrap();
        self.store
    }
}

fn report(sequence: u64, gate: GateState) -> Report {
    Report {
        attestation: Attestation {
            gate,
            kubelet_active: true,
            kubelet_healthy: true,
            apiserver_ready: false,
            apiserver: None,
            observed_at: Instant::now(),
            waiting_on: String::new(),
            manifests: std::collections::BTreeMap::new(),
        },
        conditions: Vec::new(),
        units: Vec::new(),
        disks: Vec::new(),
        remedies: Vec::new(),
        holds: Vec::new(),
        silenced: false,
        sequence,
    }
}

fn order(index: usize, command_id: &str) -> Order {
    Order {
        node: name(index),
        command_id: command_id.to_owned(),
        epoch: 1,
        expires_in: Duration::from_secs(1),
        action: Action::ReleaseKubelet {
            run: "cold-start-1".to_owned(),
            reason: String::new(),
        },
    }
}

#[tokio::test(start_paused = true)]
async fn many_reports_are_few_views_and_the_last_view_has_them_all() {
    let world = World::new(500);
    let mut view = world.fleet.view();
    let lines: Vec<_> = (0..500).map(|index| world.opens(index)).collect();
    let mut views = 0;
    for line in &lines {
        line.report(report(1, GateState::Passed)).unwrap();
        tokio::task::yield_now().await;
        views += usize::from(view.has_changed().unwrap());
        view.mark_unchanged();
    }
    assert!(views < 50, "{views} views for 500 reports at once");
    world
        .sees("everybody ready", |view| {
            view.nodes.values().all(|node| node.phase == Phase::Ready)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_without_anybody_saying_anything() {
    let world = World::new(1);
    let mut line = world.opens(0);
    world
        .sees("a session", |view| view.nodes[&name(0)].in_session)
        .await;
    world
        .sees("silence", |view| view.nodes[&name(0)].phase == Phase::Silent)
        .await;
    assert_eq!(line.next().await, Err(SessionOver));
    assert_eq!(world.fleet.deliver(order(0, "x")), Delivery::NotInSession);
}

#[tokio::test(start_paused = true)]
async fn an_order_reaches_the_newest_session_or_is_kept_out() {
    let mut world = World::new(2);
    assert_eq!(world.fleet.deliver(order(0, "x")), Delivery::NotInSession);
    let mut old = world.opens(0);
    let mut new = world.opens(0);
    assert_eq!(world.fleet.deliver(order(0, "x")), Delivery::Queued);
    let ToNode::Order(first) = new.next().await.unwrap() else {
        panic!("an order was delivered")
    };
    assert_eq!(first.command_id, "x");
    assert_eq!(old.next().await, Err(SessionOver));
    // The end of the older one takes nothing from the newer.
    drop(old);
    for _ in 0..ORDERS {
        assert_eq!(world.fleet.deliver(order(0, "y")), Delivery::Queued);
    }
    assert_eq!(world.fleet.deliver(order(0, "z")), Delivery::Full);
    let answer = OrderResult {
        node: name(0),
        command_id: "y".to_owned(),
        answer: Answer::Done,
        detail: String::new(),
    };
    new.answer(answer.clone()).await.unwrap();
    assert_eq!(world.answers.recv().await, Some(answer));
    drop(new);
    assert_eq!(world.fleet.deliver(order(0, "x")), Delivery::NotInSession);
}

#[tokio::test(start_paused = true)]
async fn a_report_is_answered_with_what_its_node_is_held_for() {
    let world = World::new(2);
    let (held, free) = (world.opens(0), world.opens(1));
    world
        .holds
        .send_replace([(name(0), "the control plane".to_owned())].into());
    let answer = held.report(report(7, GateState::Held)).unwrap();
    assert_eq!(
        (answer.sequence, answer.hold, answer.waiting_on.as_str()),
        (7, true, "the control plane")
    );
    assert!(!free.report(report(1, GateState::Passed)).unwrap().hold);
}

#[tokio::test]
async fn boots_are_saved_also_when_the_store_fails_for_a_while_and_at_the_end() {
    let world = World::new(2);
    world.store.broken.store(true, Ordering::SeqCst);
    let _one = world.opens(0);
    world
        .sees("a session", |view| view.nodes[&name(0)].in_session)
        .await;
    world.store.broken.store(false, Ordering::SeqCst);
    let _two = world.opens(1);
    let store = world.ends().await;
    let again = World::over(store, 2);
    let view = Arc::clone(&again.fleet.view().borrow());
    assert!(view.nodes.values().all(|node| node.boot.is_some()), "{view:?}");
    assert!(view.own_unclean_boot, "and a fleet was known");
}

#[tokio::test(start_paused = true)]
async fn an_unclean_boot_of_its_own_says_nothing_where_no_fleet_was_known() {
    let world = World::new(2);
    assert!(!world.fleet.view().borrow().own_unclean_boot);
}
