//! What came of an attempt that failed, in words that name the line of the configuration to look at.

use std::error::Error;
use std::io;

use blackstart_proto::tls::TlsFiles;
use rustls::{AlertDescription, CertificateError};
use tonic::Status;

/// Every cause of an error, beginning with itself.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // An `io::Error` does not give the error that it wraps as its source, but that one's source.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

/// The alert by which the other end refused a TLS handshake of ours. TLS 1.3 sends it when HTTP/2 already speaks, and h2 keeps
/// the cause as text alone.
pub(crate) fn alert(error: &(dyn Error + 'static)) -> Option<String> {
    causes(error).find_map(|cause| {
        if let Some(rustls::Error::AlertReceived(alert)) = cause.downcast_ref::<rustls::Error>() {
            return Some(format!("{alert:?}"));
        }
        let text = cause.to_string();
        let (_, alert) = text.split_once("received fatal alert: ")?;
        Some(alert.trim().to_owned())
    })
}

/// Why a member of etcd did not do it. A status with a source was made on this side.
pub(super) fn why(status: &Status, endpoint: &str, files: Option<&TlsFiles>) -> String {
    let said = status.message();
    let Some(source) = status.source() else {
        return said.to_owned();
    };
    if let Some(files) = files {
        if let Some(alert) = alert(source) {
            return of_alert(&alert, files);
        }
        let tls = causes(source).find_map(|cause| cause.downcast_ref::<rustls::Error>());
        if let Some(why) = tls.and_then(|error| of_tls(error, files)) {
            return why;
        }
    }
    let last = causes(source)
        .last()
        .map(ToString::to_string)
        .filter(|last| last != said);
    let why = last.map_or_else(|| said.to_owned(), |last| format!("{said}: {last}"));
    let connected = !causes(source).any(<dyn Error>::is::<tonic::ConnectError>);
    if let Some(files) = files.filter(|_| connected && endpoint.starts_with("https:")) {
        // TLS 1.3 refuses a client's certificate only after the handshake, and the alert is often lost with the connection.
        return format!(
            "{why}; if this stays, it does not take our certificate {} (store.etcd.certificate): it has to be one for clients, of the authority in etcd's --trusted-ca-file",
            files.certificate.display()
        );
    }
    if connected && endpoint.starts_with("http:") {
        // What a server that wants TLS says to plain text is no HTTP, or nothing.
        return format!("{why}; if this member speaks TLS, store.etcd.endpoints wants https://");
    }
    why
}

fn of_alert(alert: &str, files: &TlsFiles) -> String {
    let certificate = files.certificate.display();
    if alert == format!("{:?}", AlertDescription::CertificateExpired) {
        return format!(
            "it says that our certificate {certificate} (store.etcd.certificate) has expired; compare the clocks of both machines first"
        );
    }
    format!(
        "it refused our certificate {certificate} (store.etcd.certificate), TLS alert {alert}: it has to be one for clients, of the authority in etcd's --trusted-ca-file"
    )
}

#[allow(clippy::wildcard_enum_match_arm, reason = "rustls' own open enums")]
fn of_tls(error: &rustls::Error, files: &TlsFiles) -> Option<String> {
    let why = match error {
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => format!(
            "its certificate is not from the authority in {} (store.etcd.ca)",
            files.ca.display()
        ),
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => "its certificate has expired or is not yet valid; compare the clocks of both machines first"
            .to_owned(),
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            "its certificate does not name this address (store.etcd.endpoints) as a subject alternative name"
                .to_owned()
        }
        rustls::Error::InvalidMessage(_) => {
            "what listens there does not speak TLS; store.etcd.endpoints says https://".to_owned()
        }
        _ => return None,
    };
    Some(why)
}
