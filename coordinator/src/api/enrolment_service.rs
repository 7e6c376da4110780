//! Joining and renewing: the only calls that are taken without a certificate. So their messages are small, and one is worked at after
//! the other.

use std::sync::Arc;

use blackstart_proto::identity::valid_name;
use blackstart_proto::v1;
use blackstart_proto::v1::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status};

use crate::inventory::{NodeName, Role};
use crate::pki::CertificateRequest;
use crate::trust::desk::{Desk, DeskError, Given};

/// A certificate, a request for one, and some names.
const MAX_MESSAGE: usize = 16 << 10;

/// The service that nodes call before they have a certificate.
#[derive(Debug)]
pub struct Enrolment {
    desk: Arc<Desk>,
}

impl Enrolment {
    /// The service, with its limits.
    pub fn serve(desk: Arc<Desk>) -> EnrolmentServiceServer<Self> {
        EnrolmentServiceServer::new(Self { desk }).max_decoding_message_size(MAX_MESSAGE)
    }
}

/// Why the desk did not do it, as a status.
pub(super) fn refused(error: &DeskError) -> Status {
    let why = error.to_string();
    match error {
        DeskError::NoAuthority => Status::unimplemented(why),
        DeskError::Refused(_) => Status::permission_denied(why),
        DeskError::Invalid(_) => Status::invalid_argument(why),
        DeskError::NotFound(_) => Status::not_found(why),
        DeskError::Pki(_) => Status::internal(why),
        DeskError::Store(_) => Status::unavailable(why),
    }
}

/// On a thread that may wait for the disk.
pub(super) async fn at_the_desk<T: Send + 'static>(
    desk: &Arc<Desk>,
    work: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static,
) -> Result<T, Status> {
    let desk = Arc::clone(desk);
    spawn_blocking(move || work(&desk))
        .await
        .map_err(|_| Status::internal("it was broken off"))?
        .map_err(|error| refused(&error))
}

fn enrolled(given: Given) -> Response<v1::Enrolled> {
    let role = match given.role {
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
        Role::Etcd => "etcd",
    };
    Response::new(v1::Enrolled {
        certificate: given.certified.certificate.into_bytes().into(),
        authority: given.authority.into(),
        role: role.to_owned(),
        cluster: given.cluster.0,
    })
}

fn request(der: &[u8]) -> Result<CertificateRequest, Status> {
    CertificateRequest::read(der).map_err(Status::invalid_argument)
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn join(&self, call: Request<v1::JoinRequest>) -> Result<Response<v1::Enrolled>, Status> {
        let asked = call.into_inner();
        if !valid_name(&asked.node) {
            return Err(Status::invalid_argument("that is no name of a node"));
        }
        let request = request(&asked.request)?;
        let node = NodeName(asked.node);
        let given = at_the_desk(&self.desk, move |desk| {
            desk.join(&asked.token, &node, &asked.machine, &request)
        });
        given.await.map(enrolled)
    }

    async fn renew(&self, call: Request<v1::RenewRequest>) -> Result<Response<v1::Enrolled>, Status> {
        let asked = call.into_inner();
        let request = request(&asked.request)?;
        let given = at_the_desk(&self.desk, move |desk| {
            desk.renew(
                &asked.certificate,
                &asked.machine,
                &request,
                asked.keeps_authorities,
            )
        });
        given.await.map(enrolled)
    }
}
