//! Calls of the runbooks' service.

use std::time::Duration;

use blackstart_proto::v1;
use jiff::Timestamp;
use tokio_stream::{Stream, StreamExt};

use super::{Fleet, failure, within};
use crate::failure::Failure;
use crate::view::{Etcd, EtcdSnapshot, PodDiagnosis, Run, Runbook, RunbookPlan, RunbookRun, Workload};

/// Disks are waited for, longer than for an ordinary answer.
const READ_AGAIN: Duration = Duration::from_mins(6);

impl Fleet {
    pub(crate) async fn runbooks(&mut self) -> Result<Vec<Runbook>, Failure> {
        let answer = self.runbooks.list_runbooks(v1::ListRunbooksRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.runbooks.into_iter().map(Runbook::from).collect())
    }

    pub(crate) async fn plan_runbook(&mut self, request: v1::RunbookRequest) -> Result<RunbookPlan, Failure> {
        let patience = self.patience_for(&request);
        let answer = within(patience, self.address, self.runbooks.plan_runbook(request)).await;
        answer.map(RunbookPlan::from).map_err(as_it_was_said)
    }

    pub(crate) async fn start_runbook(&mut self, request: v1::RunbookRequest) -> Result<RunbookRun, Failure> {
        let patience = self.patience_for(&request);
        let answer = within(patience, self.address, self.runbooks.start_runbook(request)).await;
        answer.map(RunbookRun::from).map_err(as_it_was_said)
    }

    /// What is restored is looked for on disks first.
    fn patience_for(&self, request: &v1::RunbookRequest) -> Duration {
        if request.runbook == "etcd-all" {
            self.patience.max(READ_AGAIN)
        } else {
            self.patience
        }
    }

    /// A snapshot: which it is, and its pieces from an offset on.
    pub(crate) async fn fetch_etcd_snapshot(
        &mut self,
        request: v1::FetchEtcdSnapshotRequest,
    ) -> Result<impl Stream<Item = Result<v1::FetchedEtcdSnapshot, Failure>> + use<>, Failure> {
        let asked = self.runbooks.fetch_etcd_snapshot(request);
        let stream = within(self.patience, self.address, asked)
            .await
            .map_err(as_it_was_said)?;
        let address = self.address;
        Ok(stream.map(move |piece| piece.map_err(|status| failure(address, &status))))
    }

    pub(crate) async fn diagnose_pods(
        &mut self,
        request: v1::DiagnosePodsRequest,
    ) -> Result<(Vec<PodDiagnosis>, Vec<String>), Failure> {
        let answer = within(self.patience, self.address, self.runbooks.diagnose_pods(request)).await;
        let answer = answer.map_err(as_it_was_said)?;
        let found = answer.diagnoses.into_iter().map(PodDiagnosis::from);
        Ok((found.collect(), answer.lacks))
    }

    pub(crate) async fn workloads(&mut self) -> Result<Vec<Workload>, Failure> {
        let answer = self.runbooks.list_workloads(v1::ListWorkloadsRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.workloads.into_iter().map(Workload::from).collect())
    }

    pub(crate) async fn etcd(&mut self, cluster: &str) -> Result<Etcd, Failure> {
        let request = v1::GetEtcdRequest {
            cluster: cluster.to_owned(),
        };
        let answer = within(self.patience, self.address, self.runbooks.get_etcd(request)).await;
        answer
            .map(Etcd::from)
            .map_err(|failure| failure.of("cluster", cluster))
    }

    /// Every snapshot as it was read again, and who could not be asked.
    pub(crate) async fn verify_etcd_snapshots(
        &mut self,
        cluster: &str,
    ) -> Result<(Vec<EtcdSnapshot>, Vec<String>), Failure> {
        let request = v1::GetEtcdRequest {
            cluster: cluster.to_owned(),
        };
        let asked = self.runbooks.verify_etcd_snapshots(request);
        let answer = within(self.patience.max(READ_AGAIN), self.address, asked).await;
        let answer = answer.map_err(|failure| failure.of("cluster", cluster))?;
        let (mut snapshots, mut lacks) = (Vec::new(), Vec::new());
        for node in answer.nodes {
            if !node.trouble.is_empty() {
                lacks.push(format!("{}: {}", node.node, node.trouble));
            }
            snapshots.extend(
                node.checks
                    .into_iter()
                    .filter_map(|check| Some(EtcdSnapshot::of(&node.node, check.snapshot?, check.damage))),
            );
        }
        Ok((snapshots, lacks))
    }

    pub(crate) async fn runbook_runs(&mut self) -> Result<Vec<RunbookRun>, Failure> {
        let answer = self.runbooks.list_runbook_runs(v1::ListRunbookRunsRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.runs.into_iter().map(RunbookRun::from).collect())
    }

    /// Cold starts, rejoins and runbooks, oldest first.
    pub(crate) async fn all_runs(&mut self) -> Result<Vec<Run>, Failure> {
        let mut runs = self.runs().await?;
        let now = Timestamp::now();
        let more = self.runbook_runs().await?;
        runs.extend(more.iter().map(|run| run.in_a_line(now)));
        runs.sort_by_key(|run| run.started_at);
        Ok(runs)
    }

    pub(crate) async fn runbook_run(&mut self, id: &str) -> Result<RunbookRun, Failure> {
        let request = v1::RunbookRunRequest { id: id.to_owned() };
        let answer = within(
            self.patience,
            self.address,
            self.runbooks.get_runbook_run(request),
        )
        .await;
        answer
            .map(RunbookRun::from)
            .map_err(|failure| failure.of("run", id))
    }

    /// Approves of what the run asks, as it was shown; `None`: of whatever waits.
    pub(crate) async fn approve_runbook(
        &mut self,
        id: &str,
        asks: Option<&str>,
    ) -> Result<RunbookRun, Failure> {
        let request = v1::ApproveRunbookRequest {
            id: id.to_owned(),
            asks: asks.unwrap_or_default().to_owned(),
        };
        let answer = within(
            self.patience,
            self.address,
            self.runbooks.approve_runbook(request),
        )
        .await;
        answer
            .map(RunbookRun::from)
            .map_err(|failure| failure.of("run", id))
    }

    pub(crate) async fn abort_runbook(&mut self, id: &str) -> Result<RunbookRun, Failure> {
        let request = v1::RunbookRunRequest { id: id.to_owned() };
        let answer = within(self.patience, self.address, self.runbooks.abort_runbook(request)).await;
        answer
            .map(RunbookRun::from)
            .map_err(|failure| failure.of("run", id))
    }
}

/// A node or a runbook may be what is not there: the coordinator says which.
fn as_it_was_said(failure: Failure) -> Failure {
    if let Failure::NotFound { name, .. } = failure {
        return Failure::Absent {
            what: name,
            advice: "blackstart get nodes; blackstart runbook list".to_owned(),
        };
    }
    failure
}
