//! Calls of the runbooks' service.

use blackstart_proto::v1;
use jiff::Timestamp;

use super::{Fleet, within};
use crate::failure::Failure;
use crate::view::{PodDiagnosis, Run, Runbook, RunbookPlan, RunbookRun, Workload};

impl Fleet {
    pub(crate) async fn runbooks(&mut self) -> Result<Vec<Runbook>, Failure> {
        let answer = self.runbooks.list_runbooks(v1::ListRunbooksRequest {});
        let answer = within(self.patience, self.address, answer).await?;
        Ok(answer.runbooks.into_iter().map(Runbook::from).collect())
    }

    pub(crate) async fn plan_runbook(&mut self, request: v1::RunbookRequest) -> Result<RunbookPlan, Failure> {
        let answer = within(self.patience, self.address, self.runbooks.plan_runbook(request)).await;
        answer.map(RunbookPlan::from).map_err(as_it_was_said)
    }

    pub(crate) async fn start_runbook(&mut self, request: v1::RunbookRequest) -> Result<RunbookRun, Failure> {
        let answer = within(self.patience, self.address, self.runbooks.start_runbook(request)).await;
        answer.map(RunbookRun::from).map_err(as_it_was_said)
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

    pub(crate) async fn approve_runbook(&mut self, id: &str) -> Result<RunbookRun, Failure> {
        let request = v1::RunbookRunRequest { id: id.to_owned() };
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
