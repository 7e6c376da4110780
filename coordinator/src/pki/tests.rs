//! What is issued says the right things, and nothing that exists is lost.

use std::os::unix::fs::PermissionsExt;

use x509_parser::pem::parse_x509_pem;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn node(name: &str) -> PeerIdentity {
    PeerIdentity::Node(name.to_owned())
}

#[test]
fn a_fresh_authority_opens_again_and_issues_what_it_issued_before() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let first = Authority::create(&pki)
        .unwrap()
        .issue_node("10.128.38.1")
        .unwrap();
    let second = Authority::open(&pki).unwrap().issue_node("n2").unwrap();
    let [ca, first, second] =
        [&pki.join("ca.crt"), &first.certificate, &second.certificate].map(|path| Seen::read(path).unwrap());
    assert_eq!(ca.holder, Holder::Authority);
    assert_eq!(first.holder, Holder::Peer(node("10.128.38.1")));
    assert!(
        !ca.authority.is_empty() && ca.authority == first.authority && first.authority == second.authority
    );

    let names: Vec<_> = list(&pki)
        .unwrap()
        .into_iter()
        .map(|seen| seen.path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["ca.crt", "10.128.38.1.crt", "n2.crt"]);
}

#[test]
fn keys_are_for_their_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    let files = Authority::create(&pki).unwrap().issue_operator("ann").unwrap();
    assert_eq!(mode(&pki), 0o700);
    assert_eq!(mode(&pki.join("ca.key")), 0o600);
    assert_eq!(mode(&files.key), 0o600);
    assert!(fs::read_dir(&pki).unwrap().all(|entry| {
        let path = entry.unwrap().path();
        path.extension()
            .is_some_and(|extension| extension == "crt" || extension == "key")
    }));
}

#[test]
fn each_certificate_is_for_its_use_and_from_yesterday() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    let all = [
        (authority.issue_node("n").unwrap(), "blackstart://node/n", false),
        (
            authority.issue_operator("o").unwrap(),
            "blackstart://operator/o",
            false,
        ),
        (
            authority.issue_coordinator("c").unwrap(),
            "blackstart://coordinator/c",
            true,
        ),
    ];
    for (files, uri, is_server) in all {
        let bytes = fs::read(&files.certificate).unwrap();
        let (_, pem) = parse_x509_pem(&bytes).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((usage.client_auth, usage.server_auth), (true, is_server), "{uri}");
        assert!(!certificate.is_ca());
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        let names: Vec<_> = names.general_names.iter().map(ToString::to_string).collect();
        assert!(names.iter().any(|name| name.contains(uri)), "{names:?}");
        // A node that could show the coordinator's name could stand in for it.
        assert_eq!(
            names.iter().any(|name| name.contains(COORDINATOR_DNS_NAME)),
            is_server,
            "{names:?}"
        );

        let seen = Seen::read(&files.certificate).unwrap();
        let now = jiff::Timestamp::now();
        let hours = |span: jiff::SignedDuration| span.as_hours();
        assert!(
            (22..=25).contains(&hours(now.duration_since(seen.begins))),
            "{seen:?}"
        );
        assert!(
            (364 * 24..=365 * 24).contains(&hours(seen.ends.duration_since(now))),
            "{seen:?}"
        );
    }
}

#[test]
fn nothing_is_replaced_unasked_and_never_somebody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    let files = authority.issue_node("n").unwrap();
    let before = fs::read(&files.key).unwrap();
    let replace = IssueOptions {
        replace: true,
        ..IssueOptions::default()
    };

    assert!(matches!(
        Authority::create(dir.path()),
        Err(PkiError::Exists { .. })
    ));
    let told = authority.issue_node("n").unwrap_err();
    assert!(
        matches!(told, PkiError::Exists { .. }) && told.to_string().contains("--force"),
        "{told}"
    );
    let told = authority
        .issue(&PeerIdentity::Operator("n".to_owned()), replace)
        .unwrap_err();
    assert!(
        told.to_string()
            .contains("the certificate of blackstart://node/n"),
        "{told}"
    );
    assert_eq!(fs::read(&files.key).unwrap(), before);

    authority.issue(&node("n"), replace).unwrap();
    assert_ne!(fs::read(&files.key).unwrap(), before);
    assert_eq!(mode(&files.key), 0o600);
    // A key alone is worth as much.
    fs::remove_file(&files.certificate).unwrap();
    assert!(matches!(authority.issue_node("n"), Err(PkiError::Exists { .. })));
}

#[test]
fn names_and_lifetimes_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(dir.path()).unwrap();
    for name in ["", "ca", "CA", "../x", "a b", ".hidden"] {
        assert!(
            matches!(authority.issue_node(name), Err(PkiError::Name(_))),
            "{name:?}"
        );
    }
    for days in [0, AUTHORITY_DAYS + 1, u32::MAX] {
        let options = IssueOptions { days, replace: false };
        let told = authority.issue(&node("n"), options).unwrap_err();
        assert!(matches!(told, PkiError::Lifetime { .. }), "{told}");
    }
    assert!(!dir.path().join("n.key").exists());
}

#[test]
fn what_is_no_authority_is_told_with_advice() {
    let dir = tempfile::tempdir().unwrap();
    let told = Authority::open(dir.path()).unwrap_err().to_string();
    assert!(
        told.contains("ca.crt cannot be read") && told.contains("blackstart pki init"),
        "{told}"
    );

    let other = tempfile::tempdir().unwrap();
    Authority::create(dir.path()).unwrap();
    Authority::create(other.path()).unwrap();
    fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
    let told = Authority::open(dir.path()).unwrap_err().to_string();
    assert!(told.contains("not the key of ca.crt"), "{told}");

    let files = Authority::open(other.path()).unwrap().issue_node("n").unwrap();
    fs::copy(files.certificate, other.path().join("ca.crt")).unwrap();
    let told = Authority::open(other.path()).unwrap_err().to_string();
    assert!(told.contains("not an authority"), "{told}");
}
