//! Calls of the audit's service.

use blackstart_proto::v1;
use tokio_stream::{Stream, StreamExt};

use super::{Fleet, failure, within};
use crate::failure::Failure;
use crate::view::AuditReport;

impl Fleet {
    pub(crate) async fn verify_audit(&mut self, expect: &str) -> Result<AuditReport, Failure> {
        let request = v1::VerifyAuditRequest {
            expect: expect.to_owned(),
        };
        let answer = within(self.patience, self.address, self.audit.verify_audit(request)).await?;
        Ok(AuditReport {
            records: answer.records,
            first: answer.first,
            last: answer.last,
            head: answer.head,
            torn_bytes: answer.torn,
            problems: answer.problems,
        })
    }

    /// The files' content, in pieces.
    pub(crate) async fn export_audit(
        &mut self,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, Failure>> + use<>, Failure> {
        let asked = self.audit.export_audit(v1::ExportAuditRequest {});
        let stream = within(self.patience, self.address, asked).await?;
        let address = self.address;
        Ok(stream.map(move |piece| {
            piece
                .map(|piece| piece.lines.to_vec())
                .map_err(|status| failure(address, &status))
        }))
    }
}
