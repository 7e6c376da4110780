//! The host against a systemd on a D-Bus of real sockets, and against real HTTP and TLS servers.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::fake::{Fake, FakeUnit};
use super::*;
use crate::host::Weights;
use crate::signal::{ActiveState, UnitDetail};
use crate::watch::cgroup::Version;

const SOON: Duration = Duration::from_secs(10);

fn target(address: SocketAddr, tls: bool) -> HttpTarget {
    HttpTarget {
        address,
        path: "/healthz".to_owned(),
        tls,
    }
}

fn nowhere() -> HttpTarget {
    target(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), false)
}

fn host(bus: &Fake) -> Arc<RealHost> {
    Arc::new(RealHost::new(nowhere(), None, Some(bus.address())))
}

struct Watched {
    told: mpsc::Receiver<Signal>,
    stop: CancellationToken,
    watching: JoinHandle<()>,
}

impl Watched {
    fn new(host: &Arc<RealHost>, units: &[&str]) -> Self {
        let (signals, told) = mpsc::channel(16);
        let stop = CancellationToken::new();
        let units = units.iter().map(|unit| (*unit).to_owned()).collect();
        let watching = tokio::spawn({
            let (host, stop) = (Arc::clone(host), stop.clone());
            async move { host.watch_units(units, signals, stop).await }
        });
        Self { told, stop, watching }
    }

    async fn next(&mut self) -> Signal {
        timeout(SOON, self.told.recv())
            .await
            .expect("nothing is told")
            .unwrap()
    }

    async fn unit(&mut self) -> UnitSignal {
        let signal = self.next().await;
        let Signal::Unit(unit) = signal else {
            panic!("expected a unit: {signal:?}")
        };
        unit
    }

    async fn states<const N: usize>(&mut self) -> [(String, ActiveState); N] {
        let mut states = Vec::new();
        while states.len() < N {
            let unit = self.unit().await;
            states.push((unit.unit, unit.active));
        }
        states.try_into().unwrap()
    }

    async fn unobservable(&mut self) -> String {
        let signal = self.next().await;
        let Signal::UnitsUnobservable { why } = signal else {
            panic!("expected that units are unobservable: {signal:?}")
        };
        why
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(SOON, self.watching)
            .await
            .expect("does not stop")
            .unwrap();
    }
}

fn state(unit: &str, active: ActiveState) -> (String, ActiveState) {
    (unit.to_owned(), active)
}

#[tokio::test]
async fn each_unit_is_told_once_and_then_its_changes_without_asking_back() {
    let systemd = Fake::start(&[("kubelet.service", FakeUnit::running(17))]);
    let mut watched = Watched::new(&host(&systemd), &["kubelet.service", "docker.service"]);
    assert_eq!(
        watched.unit().await,
        UnitSignal {
            unit: "kubelet.service".to_owned(),
            active: ActiveState::Active,
            sub: "running".to_owned(),
            main_pid: 17,
            restarts: 0,
            result: "success".to_owned(),
            detail: UnitDetail::default(),
        }
    );
    assert_eq!(
        watched.states().await,
        [state("docker.service", ActiveState::NotFound)]
    );
    // Once it has been asked to follow the last unit's jobs, the session is complete.
    let asked = systemd.calls();
    assert_eq!(asked.iter().filter(|call| *call == "Subscribe").count(), 1);

    systemd.change("kubelet.service", FakeUnit::killed()).await;
    let killed = watched.unit().await;
    assert_eq!((killed.active, killed.main_pid), (ActiveState::Failed, 0));
    assert_eq!(killed.result, "signal");
    let asked = systemd.calls();
    assert!(asked.iter().all(|call| call == "AddMatch"), "{asked:?}");
    watched.stop().await;
}

#[tokio::test]
async fn an_end_that_systemd_undoes_itself_is_not_told() {
    let of = |unit| FakeUnit {
        policy: "always",
        ..unit
    };
    let systemd = Fake::start(&[("docker.service", of(FakeUnit::running(17)))]);
    let mut watched = Watched::new(&host(&systemd), &["docker.service"]);
    assert_eq!(
        watched.states().await,
        [state("docker.service", ActiveState::Active)]
    );
    let waiting = FakeUnit {
        active: "activating",
        sub: "auto-restart",
        ..of(FakeUnit::killed())
    };
    systemd.change("docker.service", of(FakeUnit::killed())).await;
    systemd.change("docker.service", waiting).await;
    assert_eq!(
        watched.states().await,
        [state("docker.service", ActiveState::Activating)]
    );
    // It gives up: now it is final.
    systemd.change("docker.service", of(FakeUnit::killed())).await;
    assert_eq!(
        watched.states().await,
        [state("docker.service", ActiveState::Failed)]
    );
    watched.stop().await;
}

#[tokio::test]
async fn a_bus_that_dies_and_returns_is_told_and_everything_is_told_anew() {
    let mut systemd = Fake::start(&[("kubelet.service", FakeUnit::running(17))]);
    let mut watched = Watched::new(&host(&systemd), &["kubelet.service"]);
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Active)]
    );

    systemd.bus_down().await;
    watched.unobservable().await;
    systemd.install("kubelet.service", FakeUnit::killed());
    systemd.bus_up();
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Failed)]
    );
    systemd.change("kubelet.service", FakeUnit::running(18)).await;
    assert_eq!(watched.unit().await.main_pid, 18);
    watched.stop().await;
}

#[tokio::test]
async fn a_systemd_that_leaves_the_bus_is_awaited() {
    let systemd = Fake::start(&[("kubelet.service", FakeUnit::running(17))]);
    let host = host(&systemd);
    let mut watched = Watched::new(&host, &["kubelet.service"]);
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Active)]
    );
    systemd.on_bus(false).await;
    assert_eq!(watched.unobservable().await, "systemd has left the bus");
    let error = host.unit_state("kubelet.service").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "systemd cannot be reached: systemd is not on the bus"
    );
    systemd.on_bus(true).await;
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Active)]
    );
    watched.stop().await;
}

#[tokio::test]
async fn a_unit_that_is_installed_later_is_seen() {
    let systemd = Fake::start(&[]);
    let mut watched = Watched::new(&host(&systemd), &["kubelet.service"]);
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::NotFound)]
    );
    systemd.install(
        "kubelet.service",
        FakeUnit {
            active: "inactive",
            ..FakeUnit::running(0)
        },
    );
    systemd.reload().await;
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Inactive)]
    );
    watched.stop().await;
}

#[tokio::test]
async fn a_unit_that_starts_without_a_reload_is_found() {
    let systemd = Fake::start(&[]);
    let mut watched = Watched::new(&host(&systemd), &["kubelet.service"]);
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::NotFound)]
    );
    systemd.change("kubelet.service", FakeUnit::running(3)).await;
    assert_eq!(watched.unit().await.active, ActiveState::Active);
    // Its file is read as well: otherwise it would be taken for absent when it stops.
    let read = watched.unit().await;
    assert_eq!((read.active, read.sub.as_str()), (ActiveState::Active, "running"));
    watched.stop().await;
}

#[tokio::test]
async fn an_alias_is_followed_under_the_name_that_was_asked_for() {
    let systemd = Fake::start(&[("crond.service", FakeUnit::running(5))]);
    systemd.alias("cron.service", "crond.service");
    let mut watched = Watched::new(&host(&systemd), &["cron.service"]);
    assert_eq!(
        watched.states().await,
        [state("cron.service", ActiveState::Active)]
    );
    systemd.change("crond.service", FakeUnit::killed()).await;
    assert_eq!(
        watched.states().await,
        [state("cron.service", ActiveState::Failed)]
    );
    watched.stop().await;
}

#[tokio::test]
async fn what_somebody_else_says_of_a_unit_is_not_believed() {
    let systemd = Fake::start(&[("kubelet.service", FakeUnit::running(17))]);
    let mut watched = Watched::new(&host(&systemd), &["kubelet.service"]);
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Active)]
    );
    systemd
        .change_as(":1.66", "kubelet.service", &FakeUnit::killed())
        .await;
    systemd.change("kubelet.service", FakeUnit::running(18)).await;
    assert_eq!(watched.unit().await.main_pid, 18);
    watched.stop().await;
}

#[tokio::test]
async fn weights_are_set_for_this_boot_and_read_back() {
    let systemd = Fake::start(&[("kubelet.service", FakeUnit::running(17))]);
    let host = host(&systemd);
    let weigh = |unit: &'static str, version| {
        let weights = Weights {
            cpu: 1000,
            io: 500,
            version,
        };
        timeout(SOON, host.unit_action(unit, UnitAction::Weigh(weights)))
    };
    let set = |pairs: [(&str, u64); 2]| pairs.map(|(name, value)| (name.to_owned(), value)).into();
    weigh("kubelet.service", Version::Two).await.unwrap().unwrap();
    assert_eq!(
        systemd.properties("kubelet.service"),
        set([("CPUWeight", 1000), ("IOWeight", 500)])
    );
    weigh("system.slice", Version::One).await.unwrap().unwrap();
    assert_eq!(
        systemd.properties("system.slice"),
        set([("CPUShares", 10_240), ("BlockIOWeight", 1000)])
    );
    // One that takes them and does not do it is found out.
    systemd.ignores_properties();
    let error = weigh("kubelet.service", Version::Two).await.unwrap().unwrap_err();
    assert!(
        error.to_string().contains("CPUWeight was set to 1000 and reads"),
        "{error}"
    );
}

#[tokio::test]
async fn a_restart_ends_with_its_own_job() {
    let systemd = Fake::start(&[("kubelet.service", FakeUnit::killed())]);
    let host = host(&systemd);
    let restart = || timeout(SOON, host.unit_action("kubelet.service", UnitAction::Restart));
    restart().await.unwrap().unwrap();
    systemd.jobs_end_with("failed");
    let error = restart().await.unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "restart kubelet.service: its job ended with \"failed\""
    );

    // The same over the connection of the watch.
    let mut watched = Watched::new(&host, &["kubelet.service"]);
    assert_eq!(
        watched.states().await,
        [state("kubelet.service", ActiveState::Failed)]
    );
    systemd.jobs_end_with("done");
    timeout(SOON, async {
        while host.current.borrow().is_none() {
            host.current.subscribe().changed().await.unwrap();
        }
    })
    .await
    .unwrap();
    systemd.calls();
    restart().await.unwrap().unwrap();
    assert_eq!(systemd.calls(), ["RestartUnit"]);
    watched.stop().await;
}

#[tokio::test]
async fn what_is_so_already_is_done_and_what_is_away_is_unreachable() {
    let mut systemd = Fake::start(&[]);
    let host = host(&systemd);
    for action in [UnitAction::Kill, UnitAction::ResetFailed] {
        timeout(SOON, host.unit_action("kubelet.service", action))
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!host.shutting_down().await);
    systemd.shut_down();
    assert!(host.shutting_down().await);
    let state = host.unit_state("kubelet.service").await.unwrap();
    assert_eq!(state.active, ActiveState::NotFound);

    systemd.bus_down().await;
    assert!(!host.shutting_down().await);
    let error = host
        .unit_action("kubelet.service", UnitAction::Restart)
        .await
        .unwrap_err();
    assert!(matches!(error, HostError::Unreachable(_)), "{error}");
}

/// Answers each connection with `answer`; with `None` it keeps silent.
async fn server(answer: Option<&'static [u8]>, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            let Some(answer) = answer else {
                silent.push(stream);
                continue;
            };
            if let Some(tls) = &tls {
                let Ok(stream) = tls.accept(stream).await else {
                    continue;
                };
                answer_one(stream, answer).await;
            } else {
                answer_one(stream, answer).await;
            }
        }
    });
    address
}

async fn answer_one<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &[u8]) {
    let mut head = [0; 1024];
    let read = stream.read(&mut head).await.unwrap();
    // One that speaks TLS to a plain server begins otherwise.
    let asked = head[..read].starts_with(b"GET /healthz HTTP/1.1\r\n") || head[0] == 0x16;
    assert!(asked, "{:?}", String::from_utf8_lossy(&head[..read]));
    // The other end may have gone.
    let _gone = stream.write_all(answer).await;
    let _gone = stream.shutdown().await;
}

fn expired_certificate() -> TlsAcceptor {
    let mut params = rcgen::CertificateParams::new(vec!["kubernetes.default".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn probe(address: SocketAddr, tls: bool, deadline: Duration) -> ProbeOutcome {
    let host = RealHost::new(target(address, tls), None, None);
    timeout(SOON, host.probe(ProbeTarget::Kubelet, deadline))
        .await
        .unwrap()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_probe_tells_health_sickness_silence_and_absence_apart() {
    let sick = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
    let healthy = server(Some(OK), None).await;
    assert_eq!(probe(healthy, false, SOON).await, ProbeOutcome::Healthy);
    let sick = server(Some(sick), None).await;
    assert_eq!(
        probe(sick, false, SOON).await,
        ProbeOutcome::Unhealthy { status: 500 }
    );
    let silent = server(None, None).await;
    let short = Duration::from_millis(50);
    assert_eq!(probe(silent, false, short).await, ProbeOutcome::TimedOut);
    let cut = server(Some(b""), None).await;
    assert_eq!(probe(cut, false, SOON).await, ProbeOutcome::Refused);
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    assert_eq!(probe(address, false, SOON).await, ProbeOutcome::Refused);
}

#[tokio::test]
async fn an_expired_certificate_of_another_name_is_no_sickness() {
    let server = server(Some(OK), Some(expired_certificate())).await;
    assert_eq!(probe(server, true, SOON).await, ProbeOutcome::Healthy);
}

#[tokio::test]
async fn a_probe_that_speaks_otherwise_than_its_target_says_nothing_of_it() {
    let plain = server(Some(OK), None).await;
    let outcome = probe(plain, true, SOON).await;
    assert!(
        matches!(outcome, ProbeOutcome::Unobservable { .. }),
        "{outcome:?}"
    );
    let other = server(Some(b"220 mail ESMTP\r\n"), None).await;
    let outcome = probe(other, false, SOON).await;
    assert!(
        matches!(outcome, ProbeOutcome::Unobservable { .. }),
        "{outcome:?}"
    );
    let host = RealHost::new(nowhere(), None, None);
    let outcome = host.probe(ProbeTarget::ApiServer, SOON).await;
    assert!(
        matches!(outcome, ProbeOutcome::Unobservable { .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn usage_is_what_statvfs_says() {
    let host = RealHost::new(nowhere(), None, None);
    let dir = tempfile::tempdir().unwrap();
    let seen = host.disk_usage(dir.path()).unwrap();
    assert_eq!(seen.mount_point, dir.path());
    assert!(seen.bytes_total > 0 && seen.bytes_available <= seen.bytes_total);
    assert!(host.disk_usage(&PathBuf::from("/nonexistent")).is_err());
}
