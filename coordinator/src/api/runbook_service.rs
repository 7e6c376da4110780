//! Runbooks for operators. What changes something is logged with the operator's name, and the run keeps it.

use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1;
use blackstart_proto::v1::runbook_service_server::{RunbookService, RunbookServiceServer};
use tonic::{Extensions, Request, Response, Status};

mod options;

use super::auth;
use super::convert::runbook as convert;
use super::door::allowed;
use crate::inventory::NodeName;
use crate::runbooks::plan::{Proof, Request as Asked, Runbook};
use crate::runbooks::status::RunbookStatus;
use crate::runbooks::{Refusal, Runbooks, describe};
use crate::trust::rights::{Place, Right, Roles};

/// An operator's message is no larger.
const MAX_MESSAGE: usize = 64 << 10;
/// Characters of an operator's words that are kept.
const WORDS: usize = 1024;
/// Pods may take so long to go unless something else is asked for: twenty times their usual grace of 30 s.
const DRAIN_WITHIN: Duration = Duration::from_mins(10);

/// The service that operators call.
#[derive(Debug)]
pub struct RunbookOperators {
    runbooks: Runbooks,
    roles: Arc<Roles>,
}

impl RunbookOperators {
    /// Of these runbooks. `roles`: which of them want two persons.
    pub const fn new(runbooks: Runbooks, roles: Arc<Roles>) -> Self {
        Self { runbooks, roles }
    }

    /// The run, if the caller has the right in its cluster.
    fn may(&self, call: &Extensions, right: Right, id: &str) -> Result<Arc<RunbookStatus>, Status> {
        let run = self.runbooks.run(id).map_err(|refusal| refused(&refusal))?;
        allowed(call, right, Place::In(&run.plan.cluster))?;
        Ok(run)
    }

    /// The service, with its limits.
    pub fn serve(self) -> RunbookServiceServer<Self> {
        RunbookServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }
}

fn asked(by: &str, wire: v1::RunbookRequest) -> Result<Asked, Status> {
    let runbook = Runbook::named(&wire.runbook).ok_or_else(|| {
        Status::not_found(format!(
            "there is no runbook {:?}; known: {}",
            wire.runbook,
            Runbook::ALL.map(Runbook::as_str).join(", ")
        ))
    })?;
    let options = options::asked(&wire)?;
    let words = |text: String| -> String { text.trim().chars().take(WORDS).collect() };
    let proof = words(wire.proof);
    Ok(Asked {
        options,
        runbook,
        node: NodeName(wire.node),
        by: by.to_owned(),
        reason: words(wire.reason),
        drain_within: match wire.drain_within_ms {
            0 => DRAIN_WITHIN,
            ms => Duration::from_millis(ms),
        },
        delete_local_data: wire.delete_local_data,
        delete_unmanaged: wire.delete_unmanaged,
        proof: (!proof.is_empty()).then(|| Proof::Operator {
            by: by.to_owned(),
            what: proof,
        }),
    })
}

fn refused(refusal: &Refusal) -> Status {
    let why = refusal.to_string();
    match refusal {
        Refusal::UnknownNode(_) | Refusal::UnknownRun(_) | Refusal::UnknownSubject { .. } => {
            Status::not_found(why)
        }
        Refusal::Storm { .. }
        | Refusal::Open(_)
        | Refusal::Plan(_)
        | Refusal::Lane(_)
        | Refusal::State(_)
        | Refusal::Journal(_) => Status::failed_precondition(why),
        Refusal::Stopping => Status::unavailable(why),
    }
}

fn steered(
    operator: &str,
    word: &'static str,
    done: Result<Arc<RunbookStatus>, Refusal>,
) -> Result<Response<v1::RunbookRun>, Status> {
    match done {
        Ok(run) => {
            tracing::info!(operator, word, run = run.id, state = ?run.state, "an operator steers a runbook");
            Ok(Response::new(convert::run(&run)))
        }
        Err(refusal) => {
            tracing::info!(operator, word, why = %refusal, "an operator's word to a runbook was refused");
            Err(refused(&refusal))
        }
    }
}

#[tonic::async_trait]
impl RunbookService for RunbookOperators {
    async fn list_runbooks(
        &self,
        request: Request<v1::ListRunbooksRequest>,
    ) -> Result<Response<v1::ListRunbooksResponse>, Status> {
        auth::require_operator(&request)?;
        let runbooks = Runbook::ALL.map(|runbook| {
            let (description, chapter) = describe(runbook);
            v1::RunbookInfo {
                name: runbook.to_string(),
                description: description.to_owned(),
                chapter: chapter.to_owned(),
            }
        });
        Ok(Response::new(v1::ListRunbooksResponse {
            runbooks: runbooks.into(),
        }))
    }

    async fn plan_runbook(
        &self,
        request: Request<v1::RunbookRequest>,
    ) -> Result<Response<v1::RunbookPlan>, Status> {
        let operator = auth::require_operator(&request)?;
        let asked = asked(&operator, request.into_inner())?;
        self.runbooks.ask(&asked).await;
        let plan = self.runbooks.plan(asked).map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(convert::plan(&plan)))
    }

    async fn start_runbook(
        &self,
        request: Request<v1::RunbookRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        let operator = auth::require_operator(&request)?;
        let asked = asked(&operator, request.get_ref().clone())?;
        if asked.options.despite_storm {
            tracing::warn!(operator, runbook = %asked.runbook, subject = asked.subject(), "an operator begins a runbook whatever the storm");
        }
        self.runbooks.ask(&asked).await;
        let plan = self
            .runbooks
            .plan(asked.clone())
            .map_err(|refusal| refused(&refusal))?;
        allowed(request.extensions(), Right::Operate, Place::In(&plan.cluster))?;
        steered(&operator, "start", self.runbooks.start(asked).await)
    }

    async fn list_runbook_runs(
        &self,
        request: Request<v1::ListRunbookRunsRequest>,
    ) -> Result<Response<v1::ListRunbookRunsResponse>, Status> {
        auth::require_operator(&request)?;
        let runs = self.runbooks.runs();
        let mut runs: Vec<_> = runs.values().collect();
        runs.sort_by_key(|run| run.started_unix_ms);
        let runs = runs.into_iter().map(|run| convert::run(run)).collect();
        Ok(Response::new(v1::ListRunbookRunsResponse { runs }))
    }

    async fn get_runbook_run(
        &self,
        request: Request<v1::RunbookRunRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        auth::require_operator(&request)?;
        let run = self.runbooks.run(&request.into_inner().id);
        let run = run.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(convert::run(&run)))
    }

    async fn approve_runbook(
        &self,
        request: Request<v1::RunbookRunRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        let operator = auth::require_operator(&request)?;
        let id = request.get_ref().id.clone();
        let run = self.may(request.extensions(), Right::Approve, &id)?;
        let asked = &run.plan.request;
        if run.is_proposal {
            // Whoever accepts it starts it.
            allowed(request.extensions(), Right::Operate, Place::In(&run.plan.cluster))?;
        }
        let started = run.accepted_by.as_ref().unwrap_or(&asked.by);
        self.roles
            .second_person(asked.runbook.as_str(), started, &operator)?;
        let done = self.runbooks.approve(&id, operator.clone()).await;
        steered(&operator, "approve", done)
    }

    async fn abort_runbook(
        &self,
        request: Request<v1::RunbookRunRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        let operator = auth::require_operator(&request)?;
        self.may(request.extensions(), Right::Operate, &request.get_ref().id)?;
        let id = request.into_inner().id;
        let done = self.runbooks.abort(&id, operator.clone()).await;
        steered(&operator, "abort", done)
    }
}
