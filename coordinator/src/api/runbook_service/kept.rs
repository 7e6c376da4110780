//! The runs that a store has, as a coordinator that follows tells them: how they stood, and not what they wait for.

use std::collections::BTreeMap;
use std::sync::Arc;

use blackstart_proto::v1;
use blackstart_proto::v1::runbook_service_server::{RunbookService, RunbookServiceServer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{MAX_MESSAGE, auth, convert, infos, refused, told};
use crate::runbooks::status::RunbookStatus;
use crate::runbooks::{OpenError, Refusal, remembered};
use crate::store::Store;

/// The service, of what is stored alone.
#[derive(Debug)]
pub(crate) struct KeptRunbooks {
    runs: BTreeMap<String, Arc<RunbookStatus>>,
}

impl KeptRunbooks {
    /// Of this store. Blocks.
    ///
    /// # Errors
    /// It does not answer, or a journal in it cannot be understood.
    pub(crate) fn of(store: &dyn Store) -> Result<Self, OpenError> {
        Ok(Self {
            runs: remembered(store)?,
        })
    }

    /// The service, with its limits.
    pub(crate) fn serve(self) -> RunbookServiceServer<Self> {
        RunbookServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// Never asked of a store: see `kind` of a follower's calls.
fn not_kept<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("only the coordinator that leads can do this"))
}

#[tonic::async_trait]
impl RunbookService for KeptRunbooks {
    async fn list_runbooks(
        &self,
        request: Request<v1::ListRunbooksRequest>,
    ) -> Result<Response<v1::ListRunbooksResponse>, Status> {
        auth::require_operator(&request)?;
        Ok(Response::new(infos()))
    }

    async fn list_runbook_runs(
        &self,
        request: Request<v1::ListRunbookRunsRequest>,
    ) -> Result<Response<v1::ListRunbookRunsResponse>, Status> {
        auth::require_operator(&request)?;
        Ok(Response::new(told(&self.runs)))
    }

    async fn get_runbook_run(
        &self,
        request: Request<v1::RunbookRunRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        auth::require_operator(&request)?;
        let id = request.into_inner().id;
        match self.runs.get(&id) {
            Some(run) => Ok(Response::new(convert::run(run))),
            None => Err(refused(&Refusal::UnknownRun(id))),
        }
    }

    async fn plan_runbook(
        &self,
        _: Request<v1::RunbookRequest>,
    ) -> Result<Response<v1::RunbookPlan>, Status> {
        not_kept()
    }

    async fn start_runbook(
        &self,
        _: Request<v1::RunbookRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        not_kept()
    }

    async fn approve_runbook(
        &self,
        _: Request<v1::ApproveRunbookRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        not_kept()
    }

    async fn abort_runbook(
        &self,
        _: Request<v1::RunbookRunRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        not_kept()
    }

    async fn diagnose_pods(
        &self,
        _: Request<v1::DiagnosePodsRequest>,
    ) -> Result<Response<v1::DiagnosePodsResponse>, Status> {
        not_kept()
    }

    async fn list_workloads(
        &self,
        _: Request<v1::ListWorkloadsRequest>,
    ) -> Result<Response<v1::ListWorkloadsResponse>, Status> {
        not_kept()
    }

    async fn get_etcd(&self, _: Request<v1::GetEtcdRequest>) -> Result<Response<v1::EtcdView>, Status> {
        not_kept()
    }

    async fn verify_etcd_snapshots(
        &self,
        _: Request<v1::GetEtcdRequest>,
    ) -> Result<Response<v1::VerifyEtcdSnapshotsResponse>, Status> {
        not_kept()
    }

    type FetchEtcdSnapshotStream = ReceiverStream<Result<v1::FetchedEtcdSnapshot, Status>>;

    async fn fetch_etcd_snapshot(
        &self,
        _: Request<v1::FetchEtcdSnapshotRequest>,
    ) -> Result<Response<Self::FetchEtcdSnapshotStream>, Status> {
        not_kept()
    }
}
