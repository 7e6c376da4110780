//! A real scrape.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::condition::ConditionKind;
use crate::link::LinkState;
use crate::local::tests::Known;
use crate::signal::{ClockSignal, LogId};

const SOON: Duration = Duration::from_secs(30);

struct Served {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

async fn serving(known: &Known, meters: &Meters) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (meters, window) = (meters.clone(), known.window.clone());
    let task = tokio::spawn(async move {
        metrics::accept(&listener, &draw(meters, window), &CancellationToken::new()).await;
    });
    Served {
        address,
        _task: AbortOnDropHandle::new(task),
    }
}

async fn get(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut text = String::new();
    timeout(SOON, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}

fn busy() -> Meters {
    let meters = Meters::default();
    for _ in 0..3 {
        meters.seen(&Signal::Clock(ClockSignal {
            synchronised: None,
            jump_ms: 0,
            behind: Duration::ZERO,
            ..ClockSignal::default()
        }));
    }
    let log = LogId {
        dev: 1,
        ino: 1,
        path: "/a".into(),
        deleted: false,
    };
    let outcome = Outcome::Succeeded {
        detail: String::new(),
    };
    meters.ended(&Remedy::ReclaimLog { log }, &outcome);
    meters.passed(Duration::from_micros(300));
    meters
}

#[tokio::test]
async fn a_scrape_tells_how_the_node_is_and_the_next_one_how_it_is_then() {
    let known = Known::new();
    let served = serving(&known, &busy()).await;
    let text = get(served.address, "GET /metrics").await;
    for line in [
        r#"blackstart_agent_conditions{kind="UnitFailed"} 1"#,
        r#"blackstart_agent_conditions{kind="ClockBehind"} 0"#,
        r#"blackstart_agent_remedies_total{remedy="reclaim-log",outcome="succeeded"} 1"#,
        r#"blackstart_agent_signals_total{signal="clock"} 3"#,
        r#"blackstart_agent_unit_state{unit="kubelet.service",state="failed"} 1"#,
        r#"blackstart_agent_disk_available_bytes{mount_point="/var"} 100"#,
        r#"blackstart_agent_budget_left{subject="kubelet.service",remedy="restart-unit"} 2"#,
        r#"blackstart_agent_gate_state{state="absent"} 1"#,
        r#"blackstart_agent_pass_seconds_bucket{le="0.0005"} 1"#,
        "blackstart_agent_link_up 0",
        "# EOF",
    ] {
        assert!(text.lines().any(|told| told == line), "{line} is not in {text}");
    }
    assert!(
        text.contains("content-type: application/openmetrics-text"),
        "{text}"
    );

    let address = "10.0.0.1:7443".parse().unwrap();
    let since = Instant::now();
    known.link.send_replace(LinkState::Up { since, address });
    known
        .picture
        .send_modify(|picture| Arc::make_mut(picture).units.clear());
    let text = get(served.address, "GET /metrics").await;
    assert!(text.contains("blackstart_agent_link_up 1"), "{text}");
    assert!(!text.contains("unit_state{"), "{text}");
}

#[tokio::test]
async fn anything_else_is_refused_and_a_silent_peer_holds_nobody_up() {
    let known = Known::new();
    let served = serving(&known, &Meters::default()).await;
    let _silent = TcpStream::connect(served.address).await.unwrap();
    assert!(get(served.address, "GET /").await.starts_with("HTTP/1.1 404"));
    assert!(
        get(served.address, "POST /metrics")
            .await
            .starts_with("HTTP/1.1 405")
    );
}

/// What a scrape of a node that has everything names, as it is asked for, with its kind.
fn told() -> BTreeSet<(String, String)> {
    let known = Known::new();
    let mut settings = (*known.window.settings()).clone();
    settings.api_server = Some(crate::config::ProbeSettings::new(6443, "/readyz"));
    let mut window = known.window.clone();
    window.settings = tokio::sync::watch::channel(Arc::new(settings)).1;
    let text = page::page(&busy(), &window).unwrap();
    // `# TYPE NAME KIND`: counters are called with `_total` where they are asked for.
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told = types.map(|line| {
        let (name, kind) = line.split_once(' ').unwrap();
        let total = if kind == "counter" { "_total" } else { "" };
        (format!("{name}{total}"), kind.to_owned())
    });
    told.collect()
}

#[test]
fn every_metric_is_documented_and_nothing_else() {
    let told: BTreeSet<_> = told().into_iter().map(|(name, _)| name).collect();
    let document = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split(['`', '{']).next().unwrap().to_owned())
        .filter(|name| name.starts_with("blackstart_agent_"))
        .collect();
    assert_eq!(documented, told);
}

/// Alerts and dashboards ask for nothing that is not served, and for no kind of condition that there is not.
#[test]
fn the_shipped_alerts_and_the_dashboard_ask_for_what_there_is() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (name, kind) in told() {
        if kind == "histogram" {
            known.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
        known.insert(name);
    }
    let kinds: BTreeSet<_> = ConditionKind::ALL.iter().map(ToString::to_string).collect();
    let files = [
        include_str!("../../../deploy/prometheus/blackstart-alerts.yaml"),
        include_str!("../../../deploy/grafana/blackstart-agents.json"),
    ];
    serde_json::from_str::<serde_json::Value>(files[1]).unwrap();
    for text in files {
        let asked: Vec<_> = text.match_indices("blackstart_agent_").collect();
        assert!(asked.len() >= 7, "{asked:?}");
        for (at, _) in asked {
            let name = text[at..]
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next()
                .unwrap();
            assert!(known.contains(name), "{name} is not served");
        }
        for (at, before) in text.match_indices("kind=") {
            let rest = &text[at + before.len()..];
            let named = rest.split('"').nth(1).unwrap().trim_end_matches('\\');
            for kind in named.split('|') {
                assert!(kinds.contains(kind), "{kind} is no condition");
            }
        }
    }
}
