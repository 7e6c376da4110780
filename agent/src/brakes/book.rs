//! Every hold and freeze that this node knows of, its own and the coordinator's. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::{Freeze, Held, Hold, Standing, Word};

/// More holds of its own than this a node does not take.
pub const MAX_HOLDS: usize = 64;
/// A freeze lasts no longer than this without being renewed, whatever the coordinator says.
pub const LONGEST_FREEZE: Duration = Duration::from_mins(10);

/// The book.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Book {
    /// The node's own.
    pub local: Vec<Hold>,
    /// The coordinator's.
    pub told: Word,
}

/// A word of a coordinator that another has superseded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Superseded {
    /// Its epoch…
    pub epoch: u64,
    /// …is lower than this one, which was obeyed.
    pub obeyed: u64,
}

impl Book {
    /// Takes in a hold of the node's own, in place of an earlier one of the same.
    ///
    /// # Errors
    /// There are too many.
    pub fn hold(&mut self, hold: Hold, now: Instant) -> Result<(), String> {
        self.local
            .retain(|known| known.what != hold.what && known.until.is_none_or(|until| until > now));
        if self.local.len() >= MAX_HOLDS {
            return Err(format!("{MAX_HOLDS} holds stand already; lift some first"));
        }
        self.local.push(hold);
        Ok(())
    }

    /// Lifts a hold of the node's own; `None`: there is none that stands.
    pub fn lift(&mut self, what: Held, now: Instant) -> Option<Hold> {
        self.local
            .retain(|hold| hold.until.is_none_or(|until| until > now));
        let at = self.local.iter().position(|hold| hold.what == what)?;
        Some(self.local.remove(at))
    }

    /// Takes in all that the coordinator says, in place of what it said before. `obeyed`: the highest epoch that the ledger has.
    ///
    /// # Errors
    /// It is of an older epoch, and means nothing.
    pub fn told(&mut self, mut word: Word, obeyed: u64, now: Instant) -> Result<(), Superseded> {
        let obeyed = obeyed.max(self.told.epoch);
        if word.epoch < obeyed {
            return Err(Superseded {
                epoch: word.epoch,
                obeyed,
            });
        }
        let latest = now + LONGEST_FREEZE;
        for Freeze { until, .. } in &mut word.freezes {
            *until = (*until).min(latest);
        }
        self.told = word;
        Ok(())
    }

    /// What is in force.
    pub fn standing(&self, now: Instant) -> Standing {
        Standing {
            holds: self.local.iter().chain(&self.told.holds).cloned().collect(),
            freezes: self.told.freezes.clone(),
        }
        .at(now)
    }
}

#[cfg(test)]
mod tests {
    use blackstart_proto::remedy::RemedyKind;

    use super::super::Scope;
    use super::*;
    use crate::condition::ConditionKind;

    fn hold(scope: Scope, what: Held, until: Option<Instant>) -> Hold {
        Hold {
            scope,
            what,
            by: "ann".into(),
            reason: "new disk".into(),
            until,
        }
    }

    #[test]
    fn a_hold_replaces_the_same_one_and_ends_when_lifted_or_by_its_time() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut book = Book::default();
        book.hold(hold(Scope::Local, Held::Every, None), now).unwrap();
        book.hold(hold(Scope::Local, Held::Every, Some(later)), now)
            .unwrap();
        assert_eq!(book.local.len(), 1);
        let standing = book.standing(now);
        assert!(standing.hold(Some(RemedyKind::Prune), now).is_some());
        assert!(standing.hold(None, now).is_some());
        assert_eq!(standing.next_end(now), Some(later));
        assert!(book.standing(later).holds.is_empty());
        assert_eq!(book.lift(Held::Every, later), None);

        book.hold(hold(Scope::Local, Held::Remedy(RemedyKind::Prune), None), now)
            .unwrap();
        let standing = book.standing(now);
        assert!(standing.hold(Some(RemedyKind::RestartUnit), later).is_none());
        assert!(standing.hold(None, later).is_none());
        assert!(book.lift(Held::Remedy(RemedyKind::Prune), now).is_some());
        assert_eq!(book.standing(later), Standing::default());
    }

    #[test]
    fn the_coordinators_word_is_whole_and_of_no_lower_epoch_and_leaves_the_nodes_own() {
        let now = Instant::now();
        let mut book = Book::default();
        book.hold(hold(Scope::Local, Held::Silence, None), now).unwrap();
        let freeze = Freeze {
            kind: ConditionKind::UnitFailed,
            why: String::new(),
            until: now + Duration::from_hours(5),
        };
        let word = |epoch, freezes: &[Freeze]| Word {
            epoch,
            holds: vec![hold(Scope::Fleet, Held::Every, None)],
            freezes: freezes.to_vec(),
        };
        book.told(word(3, &[freeze]), 2, now).unwrap();
        let standing = book.standing(now);
        assert_eq!(standing.holds.len(), 2);
        assert!(standing.freeze(ConditionKind::UnitFailed, now).is_some());
        assert!(
            standing
                .freeze(ConditionKind::UnitFailed, now + LONGEST_FREEZE)
                .is_none()
        );
        for (epoch, obeyed) in [(2, 0), (3, 4)] {
            assert!(book.told(word(epoch, &[]), obeyed, now).is_err());
        }
        book.told(word(3, &[]), 3, now).unwrap();
        assert!(book.standing(now).freezes.is_empty());
        assert!(book.standing(now).silence(now).is_some());
    }
}
