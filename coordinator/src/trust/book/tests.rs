use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;
const GRACE: Duration = Duration::from_hours(60 * 24);

fn token() -> Token {
    Token {
        id: "t1".to_owned(),
        digest: secret_digest("secret"),
        made_at: NOW - 10,
        ends_at: NOW + 10,
        by: "ann".to_owned(),
        reason: String::new(),
        node: None,
        cluster: None,
        count: 2,
        left: 2,
        revoked_by: None,
    }
}

fn issued(key: &str) -> Issued {
    Issued {
        key: key.to_owned(),
        machine: "m".to_owned(),
        serial: "01".to_owned(),
        issued_at: NOW - DAY,
        ends_at: NOW + DAY,
        token: Some("t1".to_owned()),
        renewable_until: None,
        trusts: Vec::new(),
    }
}

fn revocation(at: u64) -> Revocation {
    Revocation {
        subject: "blackstart://node/n".parse().unwrap(),
        by: "ann".to_owned(),
        reason: "stolen".to_owned(),
        at,
        except: None,
    }
}

/// What becomes of node `n` of cluster `c` with key `k` on machine `m`.
fn joins(token: &Token, known: Option<&Issued>, revoked: Option<&Revocation>) -> Result<Joins, Refusal> {
    let (node, cluster) = (NodeName("n".to_owned()), ClusterName("c".to_owned()));
    let asks = Asks {
        node: &node,
        cluster: Some(&cluster),
        key: "k",
        machine: "m",
    };
    may_join(token, known, revoked, asks, NOW)
}

#[test]
fn a_token_is_good_for_what_it_names_as_often_as_it_says_and_until_it_ends() {
    let t = || "t1".to_owned();
    let of_node = |node: &str| Some(NodeName(node.to_owned()));
    let of_cluster = |cluster: &str| Some(ClusterName(cluster.to_owned()));
    for (token, expected) in [
        (token(), Ok(Joins::New)),
        (
            Token {
                node: of_node("n"),
                ..token()
            },
            Ok(Joins::New),
        ),
        (
            Token {
                cluster: of_cluster("c"),
                ..token()
            },
            Ok(Joins::New),
        ),
        (
            Token {
                node: of_node("o"),
                ..token()
            },
            Err(Refusal::OtherNode(t(), NodeName("o".to_owned()))),
        ),
        (
            Token {
                cluster: of_cluster("d"),
                ..token()
            },
            Err(Refusal::OtherCluster(t(), ClusterName("d".to_owned()))),
        ),
        (
            Token {
                ends_at: NOW,
                ..token()
            },
            Err(Refusal::Expired(t(), 0)),
        ),
        (
            Token { left: 0, ..token() },
            Err(Refusal::UsedUp(t(), "2 nodes".to_owned())),
        ),
        (
            Token {
                revoked_by: Some("ben".to_owned()),
                ..token()
            },
            Err(Refusal::TakenBack(t(), "ben".to_owned())),
        ),
    ] {
        assert_eq!(joins(&token, None, None), expected, "{token:?}");
    }
    let (node, key) = (NodeName("n".to_owned()), "k");
    let asks = Asks {
        node: &node,
        cluster: None,
        key,
        machine: "m",
    };
    let undeclared = may_join(&token(), None, None, asks, NOW);
    assert_eq!(undeclared, Err(Refusal::NotDeclared(node.clone())));
}

#[test]
fn only_a_token_that_names_it_takes_the_place_of_a_node_that_has_joined() {
    let known = issued("another key");
    assert!(matches!(
        joins(&token(), Some(&known), None),
        Err(Refusal::Known(_))
    ));
    let named = Token {
        node: Some(NodeName("n".to_owned())),
        ..token()
    };
    assert_eq!(joins(&named, Some(&known), None), Ok(Joins::New));
}

#[test]
fn who_asks_again_because_the_answer_was_lost_uses_the_token_once() {
    let used = Token { left: 0, ..token() };
    assert_eq!(joins(&used, Some(&issued("k")), None), Ok(Joins::Again));
    let mut elsewhere = issued("k");
    elsewhere.machine = "another".to_owned();
    assert!(matches!(
        joins(&used, Some(&elsewhere), None),
        Err(Refusal::UsedUp(..))
    ));
    let expired = Token {
        ends_at: NOW - 1,
        ..used
    };
    assert!(matches!(
        joins(&expired, Some(&issued("k")), None),
        Err(Refusal::Expired(..))
    ));
}

#[test]
fn after_a_revocation_only_a_later_token_that_names_the_node_and_another_key_help() {
    let named = Token {
        node: Some(NodeName("n".to_owned())),
        ..token()
    };
    let (before, after) = (revocation(NOW - 20), revocation(NOW - 5));
    assert_eq!(joins(&named, Some(&issued("old")), Some(&before)), Ok(Joins::New));
    assert!(matches!(
        joins(&named, None, Some(&after)),
        Err(Refusal::Revoked(..))
    ));
    assert!(matches!(
        joins(&token(), None, Some(&before)),
        Err(Refusal::Known(_))
    ));
    // Its key was given away: asking again with it does not help.
    assert!(matches!(
        joins(&named, Some(&issued("k")), Some(&before)),
        Err(Refusal::Revoked(..))
    ));
}

fn shown(ends: u64) -> Shown {
    Shown {
        peer: PeerIdentity::Node("n".to_owned()),
        serial: "01".to_owned(),
        key: "k".to_owned(),
        machine: None,
        ends,
    }
}

fn renews(shown: &Shown, known: Option<&Issued>, machine: &str) -> Result<(), Refusal> {
    let (node, cluster) = (NodeName("n".to_owned()), ClusterName("c".to_owned()));
    let asks = Asks {
        node: &node,
        cluster: Some(&cluster),
        key: "k",
        machine,
    };
    may_renew(shown, known, None, asks, NOW, GRACE)
}

#[test]
fn a_node_that_was_dark_for_long_renews_within_the_grace_and_by_an_operators_word_after_it() {
    let known = issued("k");
    for (ended_days_ago, allowed) in [(0, true), (30, true), (60, true), (61, false)] {
        let done = renews(&shown(NOW - ended_days_ago * DAY), Some(&known), "m");
        assert_eq!(done.is_ok(), allowed, "{ended_days_ago}: {done:?}");
    }
    let told = renews(&shown(NOW - 90 * DAY), Some(&known), "m").unwrap_err();
    assert_eq!(told, Refusal::BeyondGrace(90, 60, NodeName("n".to_owned())));
    let by_word = Issued {
        renewable_until: Some(NOW + 1),
        ..issued("k")
    };
    assert_eq!(renews(&shown(NOW - 90 * DAY), Some(&by_word), "m"), Ok(()));
    let spent = Issued {
        renewable_until: Some(NOW - 1),
        ..issued("k")
    };
    assert!(renews(&shown(NOW - 90 * DAY), Some(&spent), "m").is_err());
}

#[test]
fn a_copied_identity_renews_nowhere_else() {
    assert!(matches!(
        renews(&shown(NOW), Some(&issued("k")), "another"),
        Err(Refusal::OtherMachine(_))
    ));
    assert!(matches!(
        renews(&shown(NOW), Some(&issued("newer")), "m"),
        Err(Refusal::OtherKey(_))
    ));
    let bound = Shown {
        machine: Some("m".to_owned()),
        ..shown(NOW)
    };
    assert!(matches!(
        renews(&bound, None, "another"),
        Err(Refusal::OtherMachine(_))
    ));
    // One that was made by hand is bound by its first renewal.
    assert_eq!(renews(&shown(NOW), None, "whichever"), Ok(()));
    let other = Shown {
        key: "other".to_owned(),
        ..shown(NOW)
    };
    assert!(matches!(renews(&other, None, "m"), Err(Refusal::OtherKey(_))));
    let just_now = Issued {
        issued_at: NOW - 59,
        ..issued("k")
    };
    assert!(matches!(
        renews(&shown(NOW), Some(&just_now), "m"),
        Err(Refusal::JustNow(_, 59))
    ));
}

#[test]
fn a_revocation_is_of_one_certificate_or_of_all_of_a_peer_but_of_the_one_that_came_after() {
    let mut revoked = Revoked::default();
    assert_eq!(revoked.of(&shown(NOW)), None);
    let one: Subject = "serial:01".parse().unwrap();
    let by_serial = Revocation {
        subject: one.clone(),
        ..revocation(NOW)
    };
    revoked.0.insert(one, by_serial);
    assert!(revoked.of(&shown(NOW)).is_some());
    let other = Shown {
        serial: "02".to_owned(),
        ..shown(NOW)
    };
    assert_eq!(revoked.of(&other), None);
    revoked
        .0
        .insert("blackstart://node/n".parse().unwrap(), revocation(NOW));
    assert!(revoked.of(&other).is_some());
    let anew = Revocation {
        except: Some("k".to_owned()),
        ..revocation(NOW)
    };
    revoked.0.insert("blackstart://node/n".parse().unwrap(), anew);
    assert_eq!(revoked.of(&other), None);
    let stolen = Shown {
        key: "old".to_owned(),
        ..other
    };
    assert!(revoked.of(&stolen).is_some());
}

#[test]
fn subjects_survive_being_written_and_read_and_others_are_refused() {
    for text in ["blackstart://operator/ann", "serial:0a1b"] {
        assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
    }
    assert_eq!(
        "serial:0A:1B".parse::<Subject>().unwrap().to_string(),
        "serial:0a1b"
    );
    for text in [
        "",
        "ann",
        "serial:",
        "serial:xyz",
        "blackstart://root/x",
        "serial:../x",
    ] {
        assert!(text.parse::<Subject>().is_err(), "{text}");
    }
}

#[test]
fn who_kept_an_older_certificate_of_a_key_gets_no_other_one_once_the_last_was_revoked() {
    let subject = Subject::Serial("01".to_owned());
    let mut revoked = Revoked::default();
    revoked.0.insert(
        subject.clone(),
        Revocation {
            subject,
            ..revocation(NOW)
        },
    );
    let older = Shown {
        serial: "00".to_owned(),
        ..shown(NOW + DAY)
    };
    let last = issued(&older.key);
    assert!(revoked.of(&older).is_none(), "it is another number");
    assert!(revoked.of_renewal(&older, Some(&last)).is_some());
    // The node has joined anew since, with another key: the old one is refused by that.
    assert!(revoked.of_renewal(&older, Some(&issued("another key"))).is_none());
    assert!(revoked.of_renewal(&older, None).is_none());
}
