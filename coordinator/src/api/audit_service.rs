//! The audit for operators: whether it is whole, and all of it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use blackstart_proto::v1;
use blackstart_proto::v1::audit_service_server::{AuditService, AuditServiceServer};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::auth;
use super::door::allowed;
use crate::audit::file::files;
use crate::audit::{Audit, verify};
use crate::trust::rights::{Place, Right};

/// Bytes in one message.
const PIECE: usize = 64 << 10;
/// Messages on their way to one reader.
const BACKLOG: usize = 4;

/// The service.
#[derive(Debug)]
pub struct Auditors {
    audit: Audit,
}

impl Auditors {
    /// Of this audit.
    pub fn serve(audit: Audit) -> AuditServiceServer<Self> {
        AuditServiceServer::new(Self { audit })
    }
}

/// Ends with the files, or with the reader.
fn send(dir: &Path, reader: &mpsc::Sender<Result<v1::AuditLines, Status>>) -> io::Result<()> {
    for path in files(dir)? {
        let mut file = File::open(path)?;
        loop {
            let mut piece = vec![0; PIECE];
            let length = file.read(&mut piece)?;
            if length == 0 {
                break;
            }
            piece.truncate(length);
            let lines = v1::AuditLines { lines: piece.into() };
            if reader.blocking_send(Ok(lines)).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn unreadable(error: &io::Error) -> Status {
    Status::internal(format!("the audit cannot be read: {error}"))
}

#[tonic::async_trait]
impl AuditService for Auditors {
    type ExportAuditStream = ReceiverStream<Result<v1::AuditLines, Status>>;

    async fn verify_audit(
        &self,
        call: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::AuditReport>, Status> {
        auth::require_operator(&call)?;
        allowed(call.extensions(), Right::Admin, Place::Everywhere)?;
        let expect = call.into_inner().expect;
        let expect = (!expect.is_empty()).then_some(expect);
        let report = verify(self.audit.dir().to_owned(), expect).await;
        let report = report.map_err(|error| unreadable(&error))?;
        Ok(Response::new(v1::AuditReport {
            records: report.records,
            first: report.first,
            last: report.head.sequence,
            head: report.head.to_string(),
            torn: report.torn,
            problems: report.problems,
        }))
    }

    async fn export_audit(
        &self,
        call: Request<v1::ExportAuditRequest>,
    ) -> Result<Response<Self::ExportAuditStream>, Status> {
        auth::require_operator(&call)?;
        allowed(call.extensions(), Right::Admin, Place::Everywhere)?;
        let (reader, stream) = mpsc::channel(BACKLOG);
        let dir = self.audit.dir().to_owned();
        spawn_blocking(move || {
            if let Err(error) = send(&dir, &reader) {
                let _gone = reader.blocking_send(Err(unreadable(&error)));
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
