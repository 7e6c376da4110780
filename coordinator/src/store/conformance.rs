//! What every [`Store`] must do, whatever is behind it. Each check gets a way to open the same store again.

use super::{NewEntry, Store, StoreError};

/// All of it. `fresh` makes a store of its own that is empty, as a function that opens it (again).
pub(crate) fn all<S: Store, O: Fn() -> S>(fresh: impl Fn() -> O) {
    epochs_rise_for_ever(&fresh());
    a_raised_epoch_stays_behind(&fresh());
    a_journal_is_what_was_appended(&fresh());
    an_entry_out_of_turn_is_refused_and_changes_nothing(&fresh());
    a_batch_is_appended_whole_or_not_at_all(&fresh());
    runs_stand_in_the_order_of_their_first_entries(&fresh());
    a_value_is_the_last_that_was_put(&fresh());
    a_scan_finds_its_prefix_and_nothing_else(&fresh());
}

fn epochs_rise_for_ever<S: Store>(open: &impl Fn() -> S) {
    let mut highest = 0;
    for _ in 0..3 {
        let store = open();
        for _ in 0..3 {
            let epoch = store.next_epoch().unwrap();
            assert!(epoch > highest, "{epoch} after {highest}");
            highest = epoch;
        }
    }
}

fn a_raised_epoch_stays_behind<S: Store>(open: &impl Fn() -> S) {
    let store = open();
    let least = store.next_epoch().unwrap() + 1000;
    store.raise_epoch(least).unwrap();
    store.raise_epoch(1).unwrap();
    drop(store);
    assert!(open().next_epoch().unwrap() > least);
}

fn a_journal_is_what_was_appended<S: Store>(open: &impl Fn() -> S) {
    let store = open();
    assert_eq!(store.journal("a").unwrap(), Vec::<Vec<u8>>::new());
    // Names that begin alike, an empty entry, and a large one.
    let large = vec![7; 300_000];
    for (index, entry) in [&b"one"[..], b"", &large].into_iter().enumerate() {
        store.append("a", index as u64, entry).unwrap();
        store.append("a-b", index as u64, b"other").unwrap();
    }
    drop(store);
    let store = open();
    assert_eq!(
        store.journal("a").unwrap(),
        [b"one".to_vec(), Vec::new(), large.clone()]
    );
    assert_eq!(store.journal("a-b").unwrap().len(), 3);
    store.append("a", 3, b"goes on").unwrap();
}

fn an_entry_out_of_turn_is_refused_and_changes_nothing<S: Store>(open: &impl Fn() -> S) {
    let store = open();
    store.append("a", 0, b"first").unwrap();
    for index in [0, 2, u64::MAX] {
        let error = store.append("a", index, b"second").unwrap_err();
        assert!(matches!(error, StoreError::OutOfTurn { has: 1, .. }), "{error}");
    }
    assert!(store.append("b", 1, b"first").is_err());
    assert_eq!(store.journal("a").unwrap(), [b"first"]);
    assert_eq!(store.runs().unwrap(), ["a"]);
    store.append("a", 1, b"second").unwrap();
}

fn a_batch_is_appended_whole_or_not_at_all<S: Store>(open: &impl Fn() -> S) {
    let entry = |run: &str, index: u64| NewEntry {
        run: run.to_owned(),
        index,
        bytes: format!("{run} {index}").into_bytes(),
    };
    let store = open();
    store.append_all(&[]).unwrap();
    assert_eq!(store.runs().unwrap(), Vec::<String>::new());
    store
        .append_all(&[entry("b", 0), entry("a", 0), entry("b", 1), entry("b", 2)])
        .unwrap();
    // One out of turn, after others that are not, takes them with it.
    for bad in [entry("b", 3), entry("a", 0), entry("c", 1)] {
        let error = store
            .append_all(&[entry("b", 3), entry("d", 0), bad])
            .unwrap_err();
        assert!(matches!(error, StoreError::OutOfTurn { .. }), "{error}");
    }
    drop(store);
    let store = open();
    assert_eq!(store.runs().unwrap(), ["b", "a"]);
    assert_eq!(store.journal("b").unwrap(), [b"b 0", b"b 1", b"b 2"]);
    assert_eq!(store.journal("a").unwrap(), [b"a 0"]);
    store.append_all(&[entry("b", 3)]).unwrap();
}

fn runs_stand_in_the_order_of_their_first_entries<S: Store>(open: &impl Fn() -> S) {
    let store = open();
    assert_eq!(store.runs().unwrap(), Vec::<String>::new());
    for run in ["z", "a", "m"] {
        store.append(run, 0, b"x").unwrap();
    }
    store.append("z", 1, b"x").unwrap();
    drop(store);
    assert_eq!(open().runs().unwrap(), ["z", "a", "m"]);
}

fn a_value_is_the_last_that_was_put<S: Store>(open: &impl Fn() -> S) {
    let store = open();
    assert_eq!(store.get("k").unwrap(), None);
    store.put("k", b"old").unwrap();
    store.put("k", b"new").unwrap();
    store
        .put_all(&[
            ("k".to_owned(), b"newer".to_vec()),
            ("l".to_owned(), b"l".to_vec()),
        ])
        .unwrap();
    store.put_all(&[]).unwrap();
    drop(store);
    assert_eq!(open().get("k").unwrap().as_deref(), Some(&b"newer"[..]));
    assert_eq!(open().get("l").unwrap().as_deref(), Some(&b"l"[..]));
}

fn a_scan_finds_its_prefix_and_nothing_else<S: Store>(open: &impl Fn() -> S) {
    let store = open();
    for key in ["node/b", "node/a", "node", "nodes/c", "m", "node/\u{10ffff}"] {
        store.put(key, key.as_bytes()).unwrap();
    }
    let keys = |prefix| {
        let found = store.scan(prefix).unwrap();
        assert!(found.iter().all(|(key, value)| key.as_bytes() == value));
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(keys("node/"), ["node/a", "node/b", "node/\u{10ffff}"]);
    assert_eq!(keys("nothing"), Vec::<String>::new());
    assert_eq!(keys("").len(), 6);
}
