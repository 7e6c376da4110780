//! Against a real etcd.

#[path = "../../../tests/etcd/mod.rs"]
mod etcd;

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};

use self::etcd::{Etcd as RealEtcd, Line, Proxy, is_here};
use super::*;
use crate::leader::{Candidate, Card, Copied, Mirror};
use crate::store::conformance;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn settings(endpoint: std::net::SocketAddr, prefix: &str) -> EtcdSettings {
    EtcdSettings {
        endpoints: vec![format!("http://{endpoint}")],
        tls: None,
        prefix: prefix.to_owned(),
        lease_ttl: Duration::from_mins(10),
        timeout: Duration::from_secs(20),
        name: "one".to_owned(),
        advertise: vec!["127.0.0.1:7443".parse().unwrap()],
    }
}

/// One coordinator, whose every opening of the store is a tenure of its own.
struct Coordinator {
    runtime: Arc<Runtime>,
    settings: EtcdSettings,
    candidate: Candidate,
    etcd: Etcd,
    won: RefCell<Option<Won>>,
}

impl Coordinator {
    fn new(runtime: &Arc<Runtime>, settings: EtcdSettings) -> Self {
        let _inside = runtime.enter();
        let etcd = Etcd::new(&settings).unwrap();
        let card = Card {
            name: settings.name.clone(),
            addresses: settings.advertise.clone(),
            version: String::new(),
        };
        Self {
            candidate: Candidate::new(etcd.clone(), &settings, card),
            runtime: Arc::clone(runtime),
            settings,
            etcd,
            won: RefCell::default(),
        }
    }

    fn resign(&self) {
        if let Some(before) = self.won.take() {
            self.runtime.block_on(self.candidate.resign(&before));
        }
    }

    fn open(&self) -> EtcdStore {
        self.resign();
        let won = self.runtime.block_on(self.candidate.campaign());
        let runtime = self.runtime.handle().clone();
        let store = EtcdStore::open(self.etcd.clone(), &self.settings, &won, runtime).unwrap();
        self.won.replace(Some(won));
        store
    }
}

#[test]
fn it_does_what_every_store_must() {
    if !is_here("conformance of the store in etcd") {
        return;
    }
    let real = RealEtcd::start(1);
    let runtime = Arc::new(runtime());
    let made = AtomicUsize::new(0);
    conformance::all(|| {
        let prefix = format!("/fleet-{}/", made.fetch_add(1, Ordering::Relaxed));
        let coordinator = Coordinator::new(&runtime, settings(real.addresses()[0], &prefix));
        move || coordinator.open()
    });
}

#[test]
fn what_is_larger_than_etcd_takes_is_written_all_the_same() {
    if !is_here("large values in etcd") {
        return;
    }
    let real = RealEtcd::start(1);
    let coordinator = Coordinator::new(&Arc::new(runtime()), settings(real.addresses()[0], "/b/"));
    let store = coordinator.open();
    let plan: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    store.append("a", 0, &plan).unwrap();
    store.append("a", 1, b"goes on").unwrap();
    let values: Vec<_> = (0..1000)
        .map(|n| (format!("node/{n:04}"), vec![7; 500]))
        .collect();
    store.put_all(&values).unwrap();
    let store = coordinator.open();
    assert_eq!(store.journal("a").unwrap(), [plan, b"goes on".to_vec()]);
    assert_eq!(store.scan("node/").unwrap(), values);
}

#[test]
fn a_copy_goes_with_the_store_and_outlives_etcd() {
    if !is_here("a copy of the store in etcd") {
        return;
    }
    let mut real = RealEtcd::start(1);
    let runtime = Arc::new(runtime());
    let settings = settings(real.addresses()[0], "/b/");
    let coordinator = Coordinator::new(&runtime, settings.clone());
    let store = coordinator.open();
    let plan = vec![7; 200_000];
    store.append("b", 0, &plan).unwrap();
    store.append("a", 0, b"began").unwrap();
    store.put("node/one", b"1").unwrap();
    let mirror = {
        let _inside = runtime.enter();
        Mirror::new(coordinator.etcd.clone(), &settings)
    };
    runtime.spawn(mirror.clone().run());
    let wait = |what: &dyn Fn(&Copied) -> bool| {
        let seen = async {
            loop {
                match mirror.copy() {
                    Some(copy) if what(&copy) => return copy,
                    _ => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let seen = runtime.block_on(async { timeout(Duration::from_secs(90), seen).await });
        seen.expect("the copy to be as it should")
    };
    let copy = wait(&|_| true).snapshot;
    assert_eq!(
        copy.runs().unwrap(),
        ["b", "a"],
        "in the order of their beginning"
    );
    assert_eq!(copy.journal("b").unwrap(), [plan]);
    assert_eq!(copy.get("node/one").unwrap().as_deref(), Some(&b"1"[..]));
    assert!(copy.put("k", b"v").is_err() && copy.append("a", 1, b"x").is_err());
    store.append("a", 1, b"ended").unwrap();
    store.put("node/two", b"2").unwrap();
    let copy = wait(&|copy| copy.snapshot.scan("node/").unwrap().len() == 2);
    assert_eq!(copy.snapshot.journal("a").unwrap(), [&b"began"[..], b"ended"]);
    real.kill_member(0);
    let old = wait(&|copy| copy.age() > Duration::from_secs(3));
    assert_eq!(old.snapshot.scan("node/").unwrap().len(), 2);
    real.start_member(0);
    wait(&|copy| copy.age() < Duration::from_secs(3));
}

#[test]
fn who_does_not_lead_any_more_writes_nothing() {
    if !is_here("a superseded store in etcd") {
        return;
    }
    let real = RealEtcd::start(1);
    let runtime = Arc::new(runtime());
    let old = Coordinator::new(&runtime, settings(real.addresses()[0], "/b/"));
    let store = old.open();
    store.append("a", 0, b"first").unwrap();
    let epoch = store.next_epoch().unwrap();
    // Its lease ends, as it does for one that was stopped for longer; by its own clock it would hold for minutes.
    let lease = old.won.borrow().as_ref().unwrap().lease;
    runtime
        .block_on(old.etcd.revoke(Duration::from_secs(20), lease))
        .unwrap();
    assert!(store.tenure.holds());
    let new = Coordinator::new(&runtime, settings(real.addresses()[0], "/b/"));
    let next = new.open();
    for written in [
        store.append("a", 1, b"second"),
        store.put("k", b"v"),
        store.next_epoch().map(drop),
    ] {
        let error = written.unwrap_err();
        assert!(matches!(error, StoreError::NotLeading(_)), "{error}");
    }
    assert!(!store.tenure.holds(), "it has noticed");
    assert_eq!(next.journal("a").unwrap(), [b"first"]);
    assert_eq!(next.get("k").unwrap(), None);
    assert!(next.next_epoch().unwrap() > epoch);
}

#[test]
fn a_write_whose_answer_is_lost_is_done_once() {
    if !is_here("lost answers of etcd") {
        return;
    }
    let real = RealEtcd::start(1);
    let runtime = Arc::new(runtime());
    let proxy = runtime.block_on(Proxy::before(real.addresses()[0]));
    let coordinator = Coordinator::new(&runtime, settings(proxy.address, "/b/"));
    let store = coordinator.open();
    store.append("a", 0, b"first").unwrap();
    proxy.set(Line::Mute);
    std::thread::scope(|scope| {
        let append = scope.spawn(|| store.append("a", 1, b"second"));
        // It has been done, as somebody sees who is not mute; then the answers come again.
        let direct = {
            let _inside = runtime.enter();
            Etcd::new(&settings(real.addresses()[0], "/b/")).unwrap()
        };
        let key = store.keys.journal("a", 1);
        runtime.block_on(async {
            while direct.get(Duration::from_secs(20), &key).await.unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        });
        proxy.set(Line::Whole);
        append.join().unwrap().unwrap();
    });
    assert!(store.tenure.holds());
    store.append("a", 2, b"third").unwrap();
    assert_eq!(store.journal("a").unwrap(), [&b"first"[..], b"second", b"third"]);
}

#[test]
fn a_write_that_stays_open_ends_the_tenure() {
    if !is_here("an etcd that is away") {
        return;
    }
    let real = RealEtcd::start(1);
    let runtime = Arc::new(runtime());
    let proxy = runtime.block_on(Proxy::before(real.addresses()[0]));
    let coordinator = Coordinator::new(&runtime, settings(proxy.address, "/b/"));
    let mut store = coordinator.open();
    store.timeout = Duration::from_secs(1);
    proxy.set(Line::Cut);
    let error = store.append("a", 0, b"first").unwrap_err();
    assert!(matches!(error, StoreError::NotLeading(_)), "{error}");
    assert!(
        error.to_string().contains("no etcd member answered within 1s"),
        "{error}"
    );
    assert!(!store.tenure.holds());
    let error = store.journal("a").unwrap_err();
    assert!(error.to_string().contains(&proxy.address.to_string()), "{error}");
}
