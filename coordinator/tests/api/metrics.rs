//! A real scrape of a coordinator, and what is documented of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::{ColdStartRequest, Condition, GateState, Severity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Duration, sleep};

use crate::support::{World, within};

/// Scrapes until somebody listens and tells what is asked for.
async fn scrape(address: SocketAddr, line: &str) -> String {
    let ask = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                let head = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                let mut text = String::new();
                stream.read_to_string(&mut text).await.unwrap();
                if text.contains(line) {
                    return text;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    within(line, ask).await
}

#[tokio::test]
async fn a_scrape_tells_how_the_fleet_is_and_every_metric_is_documented() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    drop(listener);
    let world = World::with(|settings| settings.metrics = Some(listen)).await;
    let before = scrape(listen, "\nblackstart_coordinator_leading 1\n").await;
    assert!(
        before.contains("blackstart_coordinator_nodes{cluster=\"biz\",phase=\"ready\"} 0"),
        "{before}"
    );
    let mut agent = world.agent("biz-1", "boot-1").await;
    let mut report = agent.report_of(GateState::Passed, true);
    report.conditions = vec![Condition {
        kind: "DiskPressure".into(),
        subject: "/var".into(),
        severity: Severity::Warning.into(),
        ..Condition::default()
    }];
    agent.say(Body::Report(report)).await;
    let start = ColdStartRequest {
        clusters: vec!["biz".to_owned()],
        reason: String::new(),
    };
    world.operator().await.start_cold_start(start).await.unwrap();
    scrape(
        listen,
        "blackstart_coordinator_runs{runbook=\"cold-start\",state=",
    )
    .await;
    scrape(
        listen,
        "blackstart_coordinator_conditions{cluster=\"biz\",kind=\"DiskPressure\"} 1",
    )
    .await;
    let text = scrape(
        listen,
        "blackstart_coordinator_nodes{cluster=\"biz\",phase=\"ready\"} 1",
    )
    .await;
    assert!(text.contains("blackstart_coordinator_info{version="), "{text}");
    assert!(text.contains("blackstart_coordinator_runs_asking 0"), "{text}");
    let told: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    let document = include_str!("../../../docs/metrics.md");
    let documented: BTreeSet<_> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split(['`', '{']).next().unwrap())
        .filter(|name| name.starts_with("blackstart_coordinator_"))
        .collect();
    assert_eq!(documented, told);
    let alerts = include_str!("../../../deploy/prometheus/blackstart-alerts.yaml");
    for (at, _) in alerts.match_indices("blackstart_coordinator_") {
        let name = alerts[at..]
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap();
        assert!(told.contains(name), "{name} is not served");
    }
}
