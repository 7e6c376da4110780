//! Runbooks for operators. What changes something is logged with the operator's name, and the run keeps it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use blackstart_proto::v1;
use blackstart_proto::v1::runbook_service_server::{RunbookService, RunbookServiceServer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status};

mod fetch;
pub(crate) mod kept;
mod options;

use super::auth;
use super::convert::{etcd, runbook as convert};
use super::door::allowed;
use crate::inventory::{ClusterName, NodeName};
use crate::kubernetes::objects::workload::WorkloadKind;
use crate::runbooks::declared::Declared;
use crate::runbooks::plan::{Proof, Request as Asked, Runbook};
use crate::runbooks::status::RunbookStatus;
use crate::runbooks::subject::{Mending, Of, Subject};
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

pub(super) fn asked(by: &str, wire: v1::RunbookRequest, declared: &[Declared]) -> Result<Asked, Status> {
    let runbook = Runbook::named(&wire.runbook).ok_or_else(|| {
        Status::not_found(format!(
            "there is no runbook {:?}; known: {}",
            wire.runbook,
            Runbook::ALL.map(Runbook::as_str).join(", ")
        ))
    })?;
    let subject = subject(runbook, &wire, declared)?;
    let mut options = options::asked(&wire)?;
    if subject.is_some() {
        // It is the subject's.
        options.cluster = None;
    }
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
        subject,
        mending: Mending {
            skip_back_off: wire.skip_back_off,
            add_memory: wire.add_memory,
            rollback: wire.rollback,
            steady: match wire.steady_ms {
                0 => Mending::default().steady,
                ms => Duration::from_millis(ms),
            },
        },
    })
}

/// What a request is about in place of a node.
fn subject(
    runbook: Runbook,
    wire: &v1::RunbookRequest,
    declared: &[Declared],
) -> Result<Option<Subject>, Status> {
    if !runbook.has_subject() {
        return Ok(None);
    }
    let of = if runbook == Runbook::WorkloadHeal {
        if let Some(known) = declared.iter().find(|one| one.name == wire.workload) {
            return Ok(Some(Subject {
                cluster: known.cluster.clone(),
                namespace: known.namespace.clone(),
                of: Of::Workload {
                    kind: known.kind,
                    name: known.object.clone(),
                },
            }));
        }
        let given = wire.workload.split_once('/');
        let Some((kind, name)) = given.and_then(|(kind, name)| Some((WorkloadKind::named(kind)?, name)))
        else {
            let known: Vec<_> = declared.iter().map(|one| one.name.as_str()).collect();
            return Err(Status::not_found(format!(
                "no workload {:?} is declared; declared: {}; or say KIND/NAME with --cluster and --namespace",
                wire.workload,
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            )));
        };
        Of::Workload {
            kind,
            name: name.to_owned(),
        }
    } else if wire.pod.is_empty() {
        Of::AllPods
    } else {
        Of::Pod(wire.pod.clone())
    };
    let called = |what: &str, text: &str| {
        if is_name(text) {
            Ok(())
        } else {
            Err(Status::invalid_argument(format!(
                "{runbook} is about pods and not about a node: the {what} {text:?} is no name (blackstart pods heal, blackstart workload heal)"
            )))
        }
    };
    called("cluster", &wire.cluster)?;
    called("namespace", &wire.namespace)?;
    match &of {
        Of::AllPods => {}
        Of::Pod(name) | Of::Workload { name, .. } => called("name", name)?,
    }
    Ok(Some(Subject {
        cluster: ClusterName(wire.cluster.clone()),
        namespace: wire.namespace.clone(),
        of,
    }))
}

/// As it may stand in a path of the API.
pub(super) fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

fn refused(refusal: &Refusal) -> Status {
    let why = refusal.to_string();
    match refusal {
        Refusal::UnknownNode(_)
        | Refusal::UnknownRun(_)
        | Refusal::UnknownSubject { .. }
        | Refusal::UnknownCluster(_)
        | Refusal::UnknownPod(_) => Status::not_found(why),
        Refusal::Storm { .. }
        | Refusal::Read(_)
        | Refusal::Open(_)
        | Refusal::Plan(_)
        | Refusal::Lane(_)
        | Refusal::Asks { .. }
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

/// The runbooks that there are.
fn infos() -> v1::ListRunbooksResponse {
    let runbooks = Runbook::ALL.map(|runbook| {
        let (description, chapter) = describe(runbook);
        v1::RunbookInfo {
            name: runbook.to_string(),
            description: description.to_owned(),
            chapter: chapter.to_owned(),
        }
    });
    v1::ListRunbooksResponse {
        runbooks: runbooks.into(),
    }
}

/// Runs, oldest first.
fn told(runs: &BTreeMap<String, Arc<RunbookStatus>>) -> v1::ListRunbookRunsResponse {
    let mut runs: Vec<_> = runs.values().collect();
    runs.sort_by_key(|run| run.started_unix_ms);
    v1::ListRunbookRunsResponse {
        runs: runs.into_iter().map(|run| convert::run(run)).collect(),
    }
}

#[tonic::async_trait]
impl RunbookService for RunbookOperators {
    async fn list_runbooks(
        &self,
        request: Request<v1::ListRunbooksRequest>,
    ) -> Result<Response<v1::ListRunbooksResponse>, Status> {
        auth::require_operator(&request)?;
        Ok(Response::new(infos()))
    }

    async fn plan_runbook(
        &self,
        request: Request<v1::RunbookRequest>,
    ) -> Result<Response<v1::RunbookPlan>, Status> {
        let operator = auth::require_operator(&request)?;
        let asked = asked(&operator, request.into_inner(), self.runbooks.declared())?;
        self.runbooks.ask(&asked).await;
        let plan = self
            .runbooks
            .plan(asked)
            .await
            .map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(convert::plan(&plan)))
    }

    async fn start_runbook(
        &self,
        request: Request<v1::RunbookRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        let operator = auth::require_operator(&request)?;
        let asked = asked(&operator, request.get_ref().clone(), self.runbooks.declared())?;
        if asked.options.despite_storm {
            tracing::warn!(operator, runbook = %asked.runbook, subject = asked.about(), "an operator begins a runbook whatever the storm");
        }
        self.runbooks.ask(&asked).await;
        let plan = self
            .runbooks
            .plan(asked.clone())
            .await
            .map_err(|refusal| refused(&refusal))?;
        allowed(request.extensions(), Right::Operate, Place::In(&plan.cluster))?;
        steered(&operator, "start", self.runbooks.start(asked).await)
    }

    async fn list_runbook_runs(
        &self,
        request: Request<v1::ListRunbookRunsRequest>,
    ) -> Result<Response<v1::ListRunbookRunsResponse>, Status> {
        auth::require_operator(&request)?;
        Ok(Response::new(told(&self.runbooks.runs())))
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
        request: Request<v1::ApproveRunbookRequest>,
    ) -> Result<Response<v1::RunbookRun>, Status> {
        let operator = auth::require_operator(&request)?;
        let v1::ApproveRunbookRequest { id, asks } = request.get_ref().clone();
        let of = Some(asks.as_str()).filter(|asks| !asks.is_empty());
        let run = self.may(request.extensions(), Right::Approve, &id)?;
        let asked = &run.plan.request;
        if run.is_proposal {
            // Whoever accepts it starts it.
            allowed(request.extensions(), Right::Operate, Place::In(&run.plan.cluster))?;
        }
        let started = run.accepted_by.as_ref().unwrap_or(&asked.by);
        self.roles
            .second_person(asked.runbook.as_str(), started, &operator)?;
        let done = self.runbooks.approve(&id, of, operator.clone()).await;
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

    async fn diagnose_pods(
        &self,
        request: Request<v1::DiagnosePodsRequest>,
    ) -> Result<Response<v1::DiagnosePodsResponse>, Status> {
        auth::require_operator(&request)?;
        let wire = request.into_inner();
        for (what, text) in [("namespace", &wire.namespace), ("pod", &wire.pod)] {
            if !text.is_empty() && !is_name(text) {
                return Err(Status::invalid_argument(format!(
                    "{what} {text:?}: expected a name"
                )));
            }
        }
        let subject = Subject {
            cluster: ClusterName(wire.cluster),
            namespace: wire.namespace,
            of: if wire.pod.is_empty() {
                Of::AllPods
            } else {
                Of::Pod(wire.pod)
            },
        };
        let (found, lacks) = self
            .runbooks
            .diagnose(&subject)
            .await
            .map_err(|refusal| refused(&refusal))?;
        let diagnoses = found.into_iter().map(convert::diagnosis).collect();
        Ok(Response::new(v1::DiagnosePodsResponse { diagnoses, lacks }))
    }

    async fn list_workloads(
        &self,
        request: Request<v1::ListWorkloadsRequest>,
    ) -> Result<Response<v1::ListWorkloadsResponse>, Status> {
        auth::require_operator(&request)?;
        let all = self.runbooks.workloads().await.into_iter();
        let workloads = all
            .map(|(declared, known)| convert::workload(declared, known))
            .collect();
        Ok(Response::new(v1::ListWorkloadsResponse { workloads }))
    }

    async fn get_etcd(&self, request: Request<v1::GetEtcdRequest>) -> Result<Response<v1::EtcdView>, Status> {
        auth::require_operator(&request)?;
        let cluster = ClusterName(request.into_inner().cluster);
        let seen = self.runbooks.etcd(&cluster).await;
        let seen = seen.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(etcd::view(&cluster, &seen.view)))
    }

    async fn verify_etcd_snapshots(
        &self,
        request: Request<v1::GetEtcdRequest>,
    ) -> Result<Response<v1::VerifyEtcdSnapshotsResponse>, Status> {
        auth::require_operator(&request)?;
        let cluster = ClusterName(request.into_inner().cluster);
        let checked = self.runbooks.verify_etcd_snapshots(&cluster).await;
        let checked = checked.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(etcd::checks(checked)))
    }

    type FetchEtcdSnapshotStream = ReceiverStream<Result<v1::FetchedEtcdSnapshot, Status>>;

    async fn fetch_etcd_snapshot(
        &self,
        request: Request<v1::FetchEtcdSnapshotRequest>,
    ) -> Result<Response<Self::FetchEtcdSnapshotStream>, Status> {
        let by = auth::require_operator(&request)?;
        let cluster = ClusterName(request.get_ref().cluster.clone());
        allowed(request.extensions(), Right::Admin, Place::In(&cluster))?;
        let asked = request.into_inner();
        tracing::warn!(%by, %cluster, node = asked.node, file = asked.file, "a snapshot of etcd is fetched");
        let stream = fetch::begin(self.runbooks.clone(), cluster, asked).await?;
        Ok(Response::new(stream))
    }
}
