//! What a coordinator that follows answers agents: who leads. They dial on.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::task::{Context, Poll};

use blackstart_proto::leader::elsewhere;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::leader::Seen;

/// Stands in for the service `S`, and refuses every call of it.
#[derive(Debug)]
pub(crate) struct Elsewhere<S> {
    seen: watch::Receiver<Seen>,
    service: PhantomData<fn() -> S>,
}

impl<S> Elsewhere<S> {
    pub(crate) fn new(seen: watch::Receiver<Seen>) -> Self {
        Self {
            seen,
            service: PhantomData,
        }
    }
}

// Derived, it would want `S: Clone`.
impl<S> Clone for Elsewhere<S> {
    fn clone(&self) -> Self {
        Self::new(self.seen.clone())
    }
}

impl<S: NamedService> NamedService for Elsewhere<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Elsewhere<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        ready(Ok(refusal(&self.seen.borrow()).into_http()))
    }
}

pub(super) fn refusal(seen: &Seen) -> Status {
    match (&seen.leader, &seen.trouble) {
        (Some(leader), _) => {
            let at: Vec<_> = leader.addresses.iter().map(ToString::to_string).collect();
            let text = format!(
                "this coordinator follows; {} leads, at {}",
                leader.name,
                at.join(", ")
            );
            elsewhere(text, &leader.addresses)
        }
        (None, Some(why)) => elsewhere(
            format!("this coordinator does not lead, and nobody can: {why}"),
            &[],
        ),
        (None, None) => elsewhere("this coordinator does not lead; who does is being found out", &[]),
    }
}

#[cfg(test)]
mod tests {
    use blackstart_proto::leader::leader_at;

    use super::*;
    use crate::leader::Card;

    #[test]
    fn the_leader_is_named_if_there_is_one() {
        let address = "10.0.0.1:7443".parse().unwrap();
        let card = Card {
            name: "one".to_owned(),
            addresses: vec![address],
            version: String::new(),
        };
        let status = refusal(&Seen {
            leader: Some(card),
            trouble: None,
        });
        assert_eq!(leader_at(&status), [address]);
        assert!(
            status.message().contains("one leads, at 10.0.0.1:7443"),
            "{status}"
        );
        let status = refusal(&Seen {
            leader: None,
            trouble: Some("no etcd".to_owned()),
        });
        assert!(status.message().contains("no etcd"), "{status}");
        assert_eq!(leader_at(&status), []);
    }
}
