//! A client that sees everything of an answer: its status, its headers, its stream.

#![allow(dead_code, unreachable_pub, reason = "each test binary takes what it needs")]

use blackstart_apiserver::{Certificate, Double};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Nothing takes this long, also on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(90);

#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    pub headers: Vec<(&'static str, String)>,
}

#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl Client {
    pub fn of(double: &Double) -> Self {
        Self {
            address: double.address(),
            headers: Vec::new(),
        }
    }

    pub fn with(mut self, header: &'static str, value: &str) -> Self {
        self.headers.push((header, value.to_owned()));
        self
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: String,
    ) -> hyper::Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.address)
            .await
            .expect("connect to the double");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "double");
        if !body.is_empty() {
            request = request.header("content-type", content_type);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        sender
            .send_request(request.body(Full::new(Bytes::from(body))).unwrap())
            .await
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: Option<Value>,
    ) -> hyper::Result<Answer> {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let sent = self.send(method, path, content_type, body);
        let response = timeout(DEADLINE, sent)
            .await
            .expect("an answer within the deadline")?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Ok(Answer {
            code: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, "", None).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, "application/json", Some(body))
            .await
            .unwrap()
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, "application/json", Some(body))
            .await
            .unwrap()
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        let kind = "application/strategic-merge-patch+json";
        self.call("PATCH", path, kind, Some(body)).await.unwrap()
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, "", None).await.unwrap()
    }

    pub async fn watch(&self, path: &str) -> Watch {
        let response = self.send("GET", path, "", String::new()).await.unwrap();
        assert_eq!(response.status(), 200);
        Watch {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }
}

#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    rest: Vec<u8>,
}

impl Watch {
    /// The next event, `None` at the end, an error if the stream is cut.
    pub async fn next(&mut self) -> Result<Option<Value>, hyper::Error> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line).unwrap()));
            }
            match timeout(DEADLINE, self.body.frame())
                .await
                .expect("an event within the deadline")
            {
                Some(frame) => self.rest.extend(frame?.into_data().unwrap_or_default()),
                None => return Ok(None),
            }
        }
    }

    /// The next event as `TYPE name`.
    pub async fn said(&mut self) -> String {
        let event = self.next().await.unwrap().expect("an event before the end");
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or_default()
        )
    }
}

/// The raw answer to a GET over TLS; empty if the handshake or the connection failed.
pub async fn over_tls(
    double: &Double,
    authority: &str,
    certificate: Option<&Certificate>,
    path: &str,
) -> String {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match certificate {
        Some(Certificate { certificate, key }) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            builder
                .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
                .unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    let stream = TcpStream::connect(double.address()).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let Ok(mut stream) = TlsConnector::from(Arc::new(config)).connect(name, stream).await else {
        return String::new();
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: double\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let speak = async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    };
    // With TLS 1.3 a client learns that its certificate is refused when it reads.
    let _ = timeout(DEADLINE, speak)
        .await
        .expect("an answer within the deadline");
    String::from_utf8_lossy(&answer).into_owned()
}
