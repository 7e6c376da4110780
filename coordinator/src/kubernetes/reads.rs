//! What is read of a cluster when somebody asks, and not kept: pods whole, events, workloads. Beside the caches, and never taken for a
//! sign of life of their watches.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Request, StatusCode};
use kube::client::Body;
use serde_json::Value;
use tokio::time::timeout;

use super::Cluster;
use super::capabilities::GroupVersion;
use super::connection::{ANSWER, Connection, causes};
use super::rights::{Lacking, Resource, Right, Verb};

/// No more of one answer is read, bytes: a page of 500 pods with long specs.
const LONGEST: usize = 32 << 20;
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// No list is followed for more pages than this: 50,000 objects.
const PAGES: usize = 100;
/// A whole list is there by then, or is given up.
const WITHIN: Duration = Duration::from_secs(20);

/// Why something was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("there is none")]
    Gone,
    /// The coordinator lacks a right.
    #[error("{0}")]
    Forbidden(Box<Lacking>),
    /// The server does not give it.
    #[error("the API server answers {status}: {why}")]
    Refused {
        /// HTTP.
        status: u16,
        /// What it says.
        why: String,
    },
    /// Nobody answered.
    #[error("no API server answered: {0}")]
    Unreachable(String),
}

/// Marks a request whose answer says nothing of a watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aside;

impl Connection {
    /// One object or one page, by the path of its request. `right`: what it takes, and in which namespace.
    async fn read(&self, path: &str, (right, namespace): (Right, &str)) -> Result<Value, ReadError> {
        let unreachable = ReadError::Unreachable;
        let client = self
            .client()
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let mut request = Request::get(path)
            .header(hyper::header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| unreachable(error.to_string()))?;
        request.extensions_mut().insert(Aside);
        let answer = client
            .send(request)
            .await
            .map_err(|error| unreachable(causes(&error)))?;
        let (parts, body) = answer.into_parts();
        let said = Limited::new(body, LONGEST).collect().await;
        let said = said.map_err(|error| unreachable(causes(&*error)))?.to_bytes();
        let value: Value = serde_json::from_slice(&said).unwrap_or_default();
        let why = || {
            value["message"]
                .as_str()
                .unwrap_or(parts.status.as_str())
                .to_owned()
        };
        match parts.status {
            status if status.is_success() => Ok(value),
            StatusCode::NOT_FOUND => Err(ReadError::Gone),
            StatusCode::FORBIDDEN => Err(ReadError::Forbidden(Box::new(Lacking {
                right,
                namespace: namespace.to_owned(),
                said: why(),
            }))),
            status => Err(ReadError::Refused {
                status: status.as_u16(),
                why: why(),
            }),
        }
    }
}

impl Cluster {
    /// One object.
    ///
    /// # Errors
    /// It is not there, or could not be read.
    pub async fn object(&self, resource: Resource, namespace: &str, name: &str) -> Result<Value, ReadError> {
        let path = format!(
            "{}/{name}?timeout={}s",
            resource.path(None, namespace),
            ANSWER.as_secs()
        );
        let right = Right::to(Verb::Get, resource);
        timeout(WITHIN, self.connection().read(&path, (right, namespace)))
            .await
            .unwrap_or_else(|_| Err(ReadError::Unreachable(format!("no answer within {WITHIN:?}"))))
    }

    /// All objects of a namespace, or of all if it is empty, page by page. `narrowed`: further parameters, each with its `&` before it.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn objects(
        &self,
        resource: Resource,
        namespace: &str,
        narrowed: &str,
    ) -> Result<Vec<Value>, ReadError> {
        self.objects_of(resource, None, namespace, narrowed).await
    }

    /// The same, of this version of their group.
    pub(super) async fn objects_of(
        &self,
        resource: Resource,
        version: Option<&GroupVersion>,
        namespace: &str,
        narrowed: &str,
    ) -> Result<Vec<Value>, ReadError> {
        let version = version.and_then(|version| version.0.split_once('/'));
        let path = resource.path(version.map(|(_, version)| version), namespace);
        let right = Right::to(Verb::List, resource);
        let all = async {
            let mut all = Vec::new();
            let mut more = String::new();
            for _ in 0..PAGES {
                let page = format!("{path}?limit={PAGE}{narrowed}{more}");
                let mut page = self.connection().read(&page, (right, namespace)).await?;
                if let Value::Array(items) = page["items"].take() {
                    all.extend(items);
                }
                match page["metadata"]["continue"].as_str() {
                    Some(next) if !next.is_empty() => more = format!("&continue={}", encoded(next)),
                    Some(_) | None => return Ok(all),
                }
            }
            Ok(all)
        };
        timeout(WITHIN, all)
            .await
            .unwrap_or_else(|_| Err(ReadError::Unreachable(format!("no answer within {WITHIN:?}"))))
    }
}

/// As it may stand in a query.
pub fn encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
