//! The table of threats in docs/security.md names tests that exist.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SECURITY: &str = include_str!("../../docs/security.md");

/// Names of all tests under a directory.
fn tests(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                match line.strip_prefix("async fn ").or(line.strip_prefix("fn ")) {
                    Some(rest) if is_test => {
                        found.insert(rest.split('(').next().unwrap().to_owned());
                        is_test = false;
                    }
                    Some(_) => is_test = false,
                    // Attributes may stand between, as `expect` and `ignore` do.
                    None => is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
                }
            }
        }
    }
}

#[test]
fn every_row_of_the_threat_table_names_tests_that_exist() {
    let mut known = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for part in ["agent", "cli", "coordinator", "proto", "tests"] {
        tests(&root.join(part), &mut known);
    }
    let rows: Vec<Vec<_>> = SECURITY
        .lines()
        .skip_while(|line| !line.starts_with("| what is at stake |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.trim_matches('|').split(" | ").collect())
        .collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    for row in rows {
        let named: Vec<_> = row.last().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() && row.len() == 4, "{row:?} names no test");
        for test in named {
            assert!(known.contains(test), "{}: there is no test {test}", row[1]);
        }
    }
}
