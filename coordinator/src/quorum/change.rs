//! Whether a change of who is in the cluster may be made. Pure, on the numbers as they are right before it.
//!
//! A change that is allowed leaves enough healthy voters for a quorum of what is left, counting nobody who is not seen to be well: an added
//! voter counts against, and not for, until it answers. etcd itself refuses less (`--strict-reconfig-check` counts who is connected).

use super::judge::{Seen, View, majority};

/// A learner may be promoted once it has carried out so many hundredths of the leader's log: etcd's own rule (`readyPercent`,
/// server/etcdserver/server.go).
const READY_PERCENT: u64 = 90;

/// May this member be taken out?
///
/// # Errors
/// Why not.
pub fn may_remove(view: &View, id: u64) -> Result<String, String> {
    standing(view)?;
    let Some(member) = view.member(id) else {
        return Err(format!("{id:x} is no member"));
    };
    if member.health.is_ok() {
        return Err(format!("{} is well: nothing is lost", member.words()));
    }
    let voters = view.voters() - usize::from(member.votes());
    if voters == 0 {
        return Err(format!("{} is the last voter", member.words()));
    }
    enough(view.healthy(), voters, "are left after the removal")
}

/// May another one be added?
///
/// # Errors
/// Why not.
pub fn may_add(view: &View, learner: bool) -> Result<String, String> {
    standing(view)?;
    // etcd takes one at a time (`--max-learners`, 1 by default).
    if let Some(other) = view.members.iter().find(|seen| seen.is_learner && learner) {
        return Err(format!(
            "{} is a learner still: one goes at a time",
            other.words()
        ));
    }
    if learner {
        return Ok(format!("{}; a learner does not count", view.words()));
    }
    enough(
        view.healthy(),
        view.voters() + 1,
        "there would be with another voter",
    )
}

/// May this learner vote from now on?
///
/// # Errors
/// Why not, or not yet.
pub fn may_promote(view: &View, id: u64) -> Result<String, String> {
    standing(view)?;
    let learner = view.member(id).ok_or_else(|| format!("{id:x} is no member"))?;
    in_sync(view, learner)?;
    enough(view.healthy() + 1, view.voters() + 1, "there are with it")
}

/// A member has nearly all that the leader has.
///
/// # Errors
/// How far it is.
pub fn in_sync(view: &View, member: &Seen) -> Result<String, String> {
    member
        .health
        .clone()
        .map_err(|why| format!("{}: {why}", member.words()))?;
    let leader = view.leader.and_then(|id| view.member(id)).and_then(Seen::status);
    let (Some(leader), Some(status)) = (leader, member.status()) else {
        return Err("the leader's agent does not tell how long its log is".to_owned());
    };
    let done = u128::from(status.applied_index) * 100;
    if done < u128::from(leader.raft_index) * u128::from(READY_PERCENT) {
        return Err(format!(
            "{} has {} of the leader's {} entries",
            member.words(),
            status.applied_index,
            leader.raft_index
        ));
    }
    Ok(format!(
        "{} has {} of the leader's {} entries, revision {}",
        member.words(),
        status.applied_index,
        leader.raft_index,
        status.revision
    ))
}

fn standing(view: &View) -> Result<(), String> {
    if view.has_quorum() {
        return Ok(());
    }
    Err(format!(
        "there is no quorum ({}): nothing can be changed in the cluster before others are back",
        view.words()
    ))
}

fn enough(healthy: usize, voters: usize, of: &str) -> Result<String, String> {
    let needed = majority(voters);
    if healthy < needed {
        return Err(format!(
            "{healthy} voters are well, and {needed} of the {voters} that {of} make a quorum: one more failure, or this change, would stop all writes"
        ));
    }
    Ok(format!(
        "{healthy} voters are well, {needed} of the {voters} that {of} make a quorum"
    ))
}
