//! The coordinator as a program, with a real collector: what it logs arrives as records, and a collector that is away holds nothing up.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const SOON: Duration = Duration::from_mins(1);

struct Collector(mpsc::UnboundedSender<ExportLogsServiceRequest>);

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

/// A coordinator's directory, as `init` makes it, and its process.
fn start(dir: &Path, collector: SocketAddr) -> Child {
    let program = env!("CARGO_BIN_EXE_blackstart-coordinator");
    let made = std::process::Command::new(program)
        .arg("init")
        .args(["--dir", dir.to_str().unwrap(), "--operator", "ann"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let file = dir.join("coordinator.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = text
        .lines()
        .filter(|line| {
            !["listen", "state_dir", "runtime_dir", "inventory"]
                .iter()
                .any(|key| line.starts_with(key))
        })
        .collect();
    let at = dir.display();
    let inventory =
        "clusters:\n- {name: biz, nodes: [{name: biz-1, role: control-plane, address: 10.0.0.1}]}\n";
    std::fs::write(dir.join("inventory.yaml"), inventory).unwrap();
    let text = format!(
        "{}\nlisten: [\"127.0.0.1:0\"]\nstate_dir: {at}/state\nruntime_dir: {at}/run\ninventory: {at}/inventory.yaml\notlp: {{endpoint: \"http://{collector}\"}}\n",
        lines.join("\n")
    );
    std::fs::write(&file, text).unwrap();
    Command::new(program)
        .args(["run", "--config", file.to_str().unwrap()])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn what_is_logged_arrives_at_a_collector_that_came_late_and_its_absence_is_said_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dir = tempfile::tempdir().unwrap();
    let mut coordinator = start(dir.path(), address);
    let mut lines = BufReader::new(coordinator.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    let away = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            said.push(line);
            if said.last().unwrap().contains("does not reach the collector") {
                return;
            }
        }
        panic!("it ended: {said:#?}");
    };
    timeout(SOON, away).await.unwrap();

    let (records, mut received) = mpsc::unbounded_channel();
    let listener = TcpListener::bind(address).await.unwrap();
    let serving = Server::builder()
        .add_service(LogsServiceServer::new(Collector(records)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serving);
    // Its end is logged, and goes out before it ends.
    let pid = i32::try_from(coordinator.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    let found = async {
        loop {
            let request = received.recv().await.unwrap();
            let text = format!("{request:?}");
            if text.contains("coordinator ends") {
                return text;
            }
        }
    };
    let text = timeout(SOON, found).await.unwrap();
    assert!(
        text.contains("blackstart-coordinator") && text.contains("service.version"),
        "{text}"
    );
    assert!(
        timeout(SOON, coordinator.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let mut rest = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        rest.push(line);
    }
    assert!(
        !rest
            .iter()
            .any(|line| line.contains("does not reach the collector")),
        "{rest:#?}"
    );
    serving.abort();
}
