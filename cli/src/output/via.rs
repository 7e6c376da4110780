//! By which way an answer came, in a line for people.

use blackstart_proto::leader::{Route, Way};

use super::words::harmless;

/// A way without what grows by itself: it is told when it changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    follower: String,
    leader: Option<String>,
}

impl Told {
    pub(super) fn of(route: &Route) -> Self {
        Self {
            follower: route.follower.clone(),
            leader: match &route.way {
                Way::Forwarded(leader) => Some(leader.clone()),
                Way::Store(_) => None,
            },
        }
    }
}

pub(super) fn line(route: &Route) -> String {
    let follower = harmless(&route.follower);
    match &route.way {
        Way::Forwarded(leader) => format!(
            "note: answered by {}, which leads, by way of {follower}: the leader was not reached from here",
            harmless(leader)
        ),
        Way::Store(age) => format!(
            "note: {follower} follows and reached no leader: this is from the store, as of {:.1} s ago; how nodes are now is not in it",
            age.as_secs_f64()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_answer_from_the_store_says_how_old_it_is_and_an_older_one_is_no_news() {
        let route = |ms| Route {
            follower: "c-2".to_owned(),
            way: Way::Store(Duration::from_millis(ms)),
        };
        assert!(
            line(&route(1240))
                .contains("c-2 follows and reached no leader: this is from the store, as of 1.2 s ago")
        );
        assert_eq!(Told::of(&route(1)), Told::of(&route(5000)));
    }
}
