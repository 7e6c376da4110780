//! What is read of a cluster when somebody asks, and not kept: pods whole, events, workloads. Beside the caches, and never taken for a
//! sign of life of their watches.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::{Request, StatusCode};
use kube::client::Body;
use serde_json::Value;
use tokio::time::timeout;

use super::Cluster;
use super::connection::{ANSWER, Connection, causes};

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
    #[error(
        "the coordinator may not read it ({0}): give it the rights of deploy/kubernetes/coordinator-rbac.yaml"
    )]
    Forbidden(String),
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
    /// One object or one page, by the path of its request.
    async fn read(&self, path: &str) -> Result<Value, ReadError> {
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
            StatusCode::FORBIDDEN => Err(ReadError::Forbidden(why())),
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
    pub async fn object(&self, path: &str) -> Result<Value, ReadError> {
        let path = format!("{path}?timeout={}s", ANSWER.as_secs());
        timeout(WITHIN, self.connection().read(&path))
            .await
            .unwrap_or_else(|_| Err(ReadError::Unreachable(format!("no answer within {WITHIN:?}"))))
    }

    /// All objects of a path, page by page. `narrowed`: further parameters, each with its `&` before it.
    ///
    /// # Errors
    /// They could not be read.
    pub async fn objects(&self, path: &str, narrowed: &str) -> Result<Vec<Value>, ReadError> {
        let all = async {
            let mut all = Vec::new();
            let mut more = String::new();
            for _ in 0..PAGES {
                let page = format!("{path}?limit={PAGE}{narrowed}{more}");
                let mut page = self.connection().read(&page).await?;
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
