//! Who may do what, and that the record of requests is what a manifest of least privilege has to allow.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod client;

use blackstart_apiserver::{Access, Authority, Clock, Double, Options, User};
use client::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn manifests() -> Vec<Value> {
    vec![
        json!({
            "kind": "ClusterRole", "metadata": {"name": "drainer"},
            "rules": [
                {"apiGroups": [""], "resources": ["nodes", "pods"], "verbs": ["get", "list"]},
                {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
                {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["one"], "verbs": ["get"]},
            ],
        }),
        json!({
            "kind": "ClusterRoleBinding", "metadata": {"name": "drainer"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "drainer"},
            "subjects": [{"kind": "Group", "name": "drainers"}],
        }),
        json!({
            "kind": "Role", "metadata": {"name": "local", "namespace": "kube-system"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}],
        }),
        json!({
            "kind": "RoleBinding", "metadata": {"name": "local", "namespace": "kube-system"},
            "roleRef": {"kind": "Role", "name": "local"}, "subjects": [{"kind": "User", "name": "ann"}],
        }),
    ]
}

#[tokio::test]
async fn roles_and_bindings_decide() {
    let tokens = BTreeMap::from([("secret".to_owned(), User::new("ann", &["drainers"]))]);
    let options = Options {
        clock: Clock::manual(),
        access: Access { tokens, rbac: true },
        ..Options::default()
    };
    let double = Double::start(options).await.unwrap();
    double.with(|world| world.apply_manifests(&manifests())).unwrap();
    let ann = Client::of(&double).with("authorization", "Bearer secret");
    for (path, code) in [
        ("/api/v1/nodes", 200),
        ("/api/v1/nodes?watch=true", 403),
        ("/api/v1/namespaces/default/pods", 200),
        ("/apis/apps/v1/namespaces/default/deployments/one", 404),
        ("/apis/apps/v1/namespaces/default/deployments/two", 403),
        ("/api/v1/namespaces/kube-system/configmaps", 200),
        ("/api/v1/namespaces/default/configmaps", 403),
        ("/readyz", 200),
        ("/metrics", 403),
    ] {
        assert_eq!(ann.get(path).await.code, code, "{path}");
    }
    let refused = ann.delete("/api/v1/namespaces/default/pods/a").await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            403,
            "pods \"a\" is forbidden: User \"ann\" cannot delete resource \"pods\" in API group \"\" in the namespace \"default\""
        )
    );
    assert_eq!(refused.body["reason"], "Forbidden");
    let nobody = Client::of(&double).get("/api/v1/nodes").await;
    let expected = "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope";
    assert_eq!((nobody.code, nobody.message()), (403, expected));
    let wrong = Client::of(&double)
        .with("authorization", "Bearer wrong")
        .get("/api/v1/nodes")
        .await;
    assert_eq!((wrong.code, wrong.message()), (401, "Unauthorized"));

    let review = |verb: &str| {
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "subresource": "eviction", "namespace": "default"}},
        })
    };
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(
        ann.post(path, review("create")).await.body["status"]["allowed"],
        true
    );
    assert_eq!(
        ann.post(path, review("delete")).await.body["status"]["allowed"],
        false
    );

    let recorded = double.requests();
    let deletion = recorded.iter().find(|request| request.verb == "delete").unwrap();
    assert_eq!(
        (
            deletion.user.as_str(),
            deletion.resource.as_str(),
            deletion.namespace.as_str(),
            deletion.code
        ),
        ("ann", "pods", "default", 403)
    );
}

#[tokio::test]
async fn a_client_certificate_speaks_for_its_common_name_and_organization() {
    let authority = Authority::new().unwrap();
    let options = Options {
        tls: Some(authority.server(&["127.0.0.1".parse().unwrap()]).unwrap()),
        access: Access {
            rbac: true,
            ..Access::default()
        },
        ..Options::default()
    };
    let double = Double::start(options).await.unwrap();
    let master = authority.client("admin", "system:masters").unwrap();
    let other = authority.client("bob", "visitors").unwrap();
    for (certificate, code, user) in [
        (Some(master), 200, "admin"),
        (Some(other), 403, "bob"),
        (None, 403, "system:anonymous"),
    ] {
        let answer = client::over_tls(
            &double,
            &authority.certificate,
            certificate.as_ref(),
            "/api/v1/nodes",
        )
        .await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")),
            "{user}: {answer}"
        );
        assert_eq!(double.requests().last().unwrap().user, user);
    }
    let stranger = Authority::new()
        .unwrap()
        .client("mallory", "system:masters")
        .unwrap();
    let answer = client::over_tls(&double, &authority.certificate, Some(&stranger), "/api/v1/nodes").await;
    assert!(
        !answer.starts_with("HTTP/1.1"),
        "a certificate of another authority was believed: {answer}"
    );
}
