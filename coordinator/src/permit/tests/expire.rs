//! Permits that nobody gave back.

use super::super::expire::{CLAIM, Fate, Holder, Why, fate};
use super::*;

const SILENT_FOR: Duration = Duration::from_mins(30);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Node {
    Claims,
    /// In session, without a claim, and up or not.
    Mute(bool),
    Silent(Duration),
}

/// What becomes of a permit of so many minutes.
fn after(minutes: u64, asker: Asker, node: Node) -> Fate {
    let since = Instant::now();
    let now = since + Duration::from_mins(minutes);
    let session = match node {
        Node::Claims | Node::Mute(_) => Some(since - Duration::from_secs(1)),
        Node::Silent(_) => None,
    };
    let holder = Holder {
        session,
        well: (node == Node::Mute(true)).then_some(now),
        claimed: node == Node::Claims,
        silent_since: match node {
            Node::Silent(long) => now - long,
            Node::Claims | Node::Mute(_) => now,
        },
    };
    fate(
        &grant(wish("m1", PermitKind::Reboot, asker), since),
        &holder,
        SILENT_FOR,
        now,
    )
}

#[test]
fn what_becomes_of_a_permit_that_nobody_gives_back() {
    use Asker::{Agent, FleetLock};
    let short = Duration::from_mins(1);
    for (asker, node, within, later) in [
        (Agent, Node::Claims, Fate::Stands, Fate::Overdue),
        (
            Agent,
            Node::Mute(true),
            Fate::Over(Why::Well),
            Fate::Over(Why::Well),
        ),
        (Agent, Node::Mute(false), Fate::Stands, Fate::Over(Why::Unclaimed)),
        (Agent, Node::Silent(short), Fate::Stands, Fate::Stands),
        (
            Agent,
            Node::Silent(SILENT_FOR),
            Fate::Stands,
            Fate::Over(Why::Silent),
        ),
        (FleetLock, Node::Mute(true), Fate::Stands, Fate::Over(Why::Well)),
        (FleetLock, Node::Mute(false), Fate::Stands, Fate::Overdue),
        (FleetLock, Node::Silent(short), Fate::Stands, Fate::Stands),
        (
            FleetLock,
            Node::Silent(SILENT_FOR),
            Fate::Stands,
            Fate::Over(Why::Silent),
        ),
    ] {
        assert_eq!(after(5, asker, node), within, "{asker:?} {node:?}");
        assert_eq!(after(40, asker, node), later, "{asker:?} {node:?}");
    }
}

#[test]
fn an_agent_that_comes_back_has_time_to_say_what_it_has_and_old_words_do_not_count() {
    let since = Instant::now();
    let session = since + Duration::from_mins(1);
    let grant = grant(wish("m1", PermitKind::RuntimeRestart, Asker::Agent), since);
    let holder = |well| Holder {
        session: Some(session),
        well: Some(well),
        claimed: false,
        silent_since: session,
    };
    let judged = |well, now| fate(&grant, &holder(well), SILENT_FOR, now);
    let soon = session + CLAIM - Duration::from_millis(1);
    assert_eq!(judged(soon, soon), Fate::Stands);
    let later = session + CLAIM;
    assert_eq!(
        judged(session, later),
        Fate::Stands,
        "it attested that before this session"
    );
    assert_eq!(judged(later, later), Fate::Over(Why::Well));
}
