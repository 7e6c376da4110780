//! What is revoked, and every connection that stands, so that a revocation ends them at once.
//!
//! A connection whose certificate is revoked is cut in both directions: what its holder still sends is not read, and nothing more goes
//! to it. It may come again, as long as a visitor may, so that its calls are refused with the reason.
//!
//! A holder has so many connections and no more: the newest takes the place of the oldest. A node has one, and a few that its power loss left
//! behind; whoever opens a thousand harms nobody else, and not even a session that is opened after.
//!
//! A revocation is in force before connections are cut, and every call looks at what is in force. So none slips through in between.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::task::Context;

use blackstart_proto::identity::PeerIdentity;
use futures_util::task::AtomicWaker;

use super::book::{Revocation, Revoked};
use crate::pki::Shown;

/// The list is tidied when it has grown to twice what was left of it, and not below this.
const TIDY: usize = 64;
/// Connections of one node at once.
const OF_A_NODE: usize = 8;
/// Of an operator, whose commands may run side by side on many machines, and of a coordinator.
const OF_ANOTHER: usize = 64;

/// Shared by all connections and calls of a coordinator, whether it leads or follows.
#[derive(Debug, Default)]
pub struct Gate {
    revoked: RwLock<Arc<Revoked>>,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Of each holder, the oldest first.
    passes: HashMap<PeerIdentity, Vec<Weak<Pass>>>,
    tidy_at: usize,
}

/// One connection's.
#[derive(Debug)]
pub(crate) struct Pass {
    shown: Shown,
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl Pass {
    /// To be asked before each read and write.
    ///
    /// # Errors
    /// The certificate of this connection has been revoked since it was made, or its holder has too many newer ones.
    pub(crate) fn stands(&self, cx: &Context<'_>) -> io::Result<()> {
        self.waker.register(cx.waker());
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the certificate was revoked, or its holder has too many connections",
            ));
        }
        Ok(())
    }

    /// Whether it was not cut before.
    fn cut(&self) -> bool {
        let anew = !self.cut.swap(true, Ordering::AcqRel);
        self.waker.wake();
        anew
    }
}

impl Gate {
    /// What is in force.
    pub fn revoked(&self) -> Arc<Revoked> {
        Arc::clone(&self.revoked.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the holder of this certificate is not let in.
    pub(crate) fn why_not(&self, shown: &Shown) -> Option<Revocation> {
        self.revoked().of(shown).cloned()
    }

    /// Why this peer is not let in, for whom another speaks.
    pub(crate) fn why_not_peer(&self, peer: &PeerIdentity) -> Option<Revocation> {
        self.revoked().of_peer(peer).cloned()
    }

    /// Notes a connection. It stands as long as its pass, and until that is cut.
    pub(crate) fn enter(&self, shown: Shown) -> Arc<Pass> {
        let pass = Arc::new(Pass {
            shown,
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        });
        let most = match pass.shown.peer {
            PeerIdentity::Node(_) => OF_A_NODE,
            PeerIdentity::Operator(_) | PeerIdentity::Coordinator(_) => OF_ANOTHER,
        };
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        if standing.passes.len() >= standing.tidy_at.max(TIDY) {
            standing.passes.retain(|_, of_one| {
                of_one.retain(|pass| pass.strong_count() > 0);
                !of_one.is_empty()
            });
            standing.tidy_at = standing.passes.len() * 2;
        }
        let of_one = standing.passes.entry(pass.shown.peer.clone()).or_default();
        of_one.retain(|pass| {
            pass.upgrade()
                .is_some_and(|pass| !pass.cut.load(Ordering::Acquire))
        });
        if of_one.len() >= most {
            tracing::debug!(holder = %pass.shown.peer, most, "the oldest of too many connections is cut");
            if let Some(oldest) = of_one.remove(0).upgrade() {
                oldest.cut();
            }
        }
        of_one.push(Arc::downgrade(&pass));
        pass
    }

    /// From now on this is revoked, and nothing else. Cuts the connections that this concerns, and says how many.
    pub fn put_in_force(&self, revoked: Revoked) -> usize {
        let revoked = Arc::new(revoked);
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&revoked);
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let concerned = standing
            .passes
            .values()
            .flatten()
            .filter_map(Weak::upgrade)
            .filter(|pass| revoked.of(&pass.shown).is_some());
        concerned.map(|pass| usize::from(pass.cut())).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn shown(node: &str) -> Shown {
        Shown {
            peer: PeerIdentity::Node(node.to_owned()),
            serial: node.to_owned(),
            key: String::new(),
            machine: None,
            ends: 0,
        }
    }

    #[test]
    fn a_revocation_cuts_whom_it_concerns_and_nobody_else() {
        let gate = Gate::default();
        let passes = ["a", "b"].map(|node| gate.enter(shown(node)));
        let cx = Context::from_waker(Waker::noop());
        let revocation = Revocation {
            subject: "blackstart://node/a".parse().unwrap(),
            by: "ann".to_owned(),
            reason: String::new(),
            at: 0,
            except: None,
        };
        let mut revoked = Revoked::default();
        revoked.0.insert(revocation.subject.clone(), revocation);
        assert_eq!(gate.put_in_force(revoked.clone()), 1);
        assert!(passes[0].stands(&cx).is_err());
        assert!(passes[1].stands(&cx).is_ok());
        assert!(gate.why_not(&shown("a")).is_some() && gate.why_not(&shown("b")).is_none());
        // Told again, it cuts nothing that is cut already.
        assert_eq!(gate.put_in_force(revoked), 0);
    }

    #[test]
    fn the_newest_of_too_many_connections_stand_and_those_of_others_as_well() {
        let gate = Gate::default();
        let cx = Context::from_waker(Waker::noop());
        let other = gate.enter(shown("b"));
        let passes: Vec<_> = (0..1000).map(|_| gate.enter(shown("a"))).collect();
        let (cut, stand) = passes.split_at(1000 - OF_A_NODE);
        assert!(cut.iter().all(|pass| pass.stands(&cx).is_err()));
        assert!(stand.iter().chain([&other]).all(|pass| pass.stands(&cx).is_ok()));
        // Those that have ended make room.
        drop(passes);
        let few: Vec<_> = (0..OF_A_NODE).map(|_| gate.enter(shown("a"))).collect();
        assert!(few.iter().all(|pass| pass.stands(&cx).is_ok()));
    }

    #[test]
    fn connections_that_have_ended_are_forgotten() {
        let gate = Gate::default();
        for number in 0..10_000 {
            drop(gate.enter(shown(&format!("a{}", number % 5000))));
        }
        let standing = gate.standing.lock().unwrap();
        assert!(standing.passes.len() <= TIDY, "{}", standing.passes.len());
    }
}
