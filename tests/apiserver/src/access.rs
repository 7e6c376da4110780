//! Who asks, and whether they may: bearer tokens, client certificates, and RBAC by the roles and bindings in the store, so that the
//! manifests that a product ships can be tested against what it calls
//! (<https://kubernetes.io/docs/reference/access-authn-authz/rbac/>).

use crate::json::{items, text};
use crate::refusal::Refusal;
use crate::request::Asked;
use crate::store::Store;
use serde_json::Value;
use std::collections::BTreeMap;

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name; the common name of a certificate.
    pub name: String,
    /// The groups; the organizations of a certificate.
    pub groups: Vec<String>,
}

impl User {
    /// A user in groups; every authenticated one is in `system:authenticated` too.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        groups.push("system:authenticated".into());
        Self {
            name: name.to_owned(),
            groups,
        }
    }

    /// Who shows nothing.
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".into(),
            groups: vec!["system:unauthenticated".into()],
        }
    }
}

/// How requests are authenticated and authorized.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Users by their bearer token.
    pub tokens: BTreeMap<String, User>,
    /// Whether roles and bindings decide. Otherwise everybody may do everything, also without a token.
    pub rbac: bool,
}

impl Access {
    /// Who it is: by the token, else by the certificate. A token that nobody has is refused (401).
    pub(crate) fn user(
        &self,
        authorization: Option<&str>,
        certificate: Option<&User>,
    ) -> Result<User, Refusal> {
        match (
            authorization.and_then(|value| value.strip_prefix("Bearer ")),
            certificate,
        ) {
            (Some(token), _) if self.rbac || !self.tokens.is_empty() => self
                .tokens
                .get(token.trim())
                .cloned()
                .ok_or_else(Refusal::unauthorized),
            (_, Some(user)) => Ok(user.clone()),
            (_, None) => Ok(User::anonymous()),
        }
    }

    /// 403 unless the user may do it.
    pub(crate) fn check(&self, store: &Store, user: &User, asked: &Asked) -> Result<(), Refusal> {
        if !self.rbac || allows(store, user, asked) {
            return Ok(());
        }
        if !asked.is_resource {
            return Err(Refusal::forbidden_path(&user.name, asked.verb, &asked.path));
        }
        let resource = match asked.subresource.as_str() {
            "" => asked.resource.clone(),
            subresource => format!("{}/{subresource}", asked.resource),
        };
        let place = match asked.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let why = format!(
            "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}",
            user.name, asked.verb, asked.group
        );
        let mut refusal = Refusal {
            code: 403,
            reason: "Forbidden",
            ..Refusal::bad_request("")
        };
        let mut shown = asked.resource.clone();
        if !asked.group.is_empty() {
            shown = format!("{shown}.{}", asked.group);
        }
        refusal.details = serde_json::json!({"kind": asked.resource});
        if asked.name.is_empty() {
            refusal.message = format!("{shown} is forbidden: {why}");
        } else {
            refusal.details["name"] = asked.name.clone().into();
            refusal.message = format!("{shown} \"{}\" is forbidden: {why}", asked.name);
        }
        if !asked.group.is_empty() {
            refusal.details["group"] = asked.group.clone().into();
        }
        Err(refusal)
    }
}

/// Whether a role that is bound to the user allows what is asked.
pub(crate) fn allows(store: &Store, user: &User, asked: &Asked) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    // Everybody may ask what is served and whether it is well, and what they may do (system:discovery, system:basic-user).
    let discovery = [
        "/api", "/apis", "/openapi", "/version", "/healthz", "/livez", "/readyz",
    ];
    if !asked.is_resource && discovery.iter().any(|path| asked.path.starts_with(path)) {
        return true;
    }
    if asked.resource.starts_with("selfsubject") && user.name != "system:anonymous" {
        return true;
    }
    let cluster = store.list("clusterrolebindings", None);
    let local = store
        .list("rolebindings", Some(&asked.namespace))
        .filter(|_| !asked.namespace.is_empty());
    cluster
        .chain(local)
        .filter(|binding| binds(binding, user))
        .any(|binding| {
            let called = text(binding, "/roleRef/name");
            let role = match text(binding, "/roleRef/kind") {
                "ClusterRole" => store.get("clusterroles", "", called),
                _ => store.get("roles", &asked.namespace, called),
            };
            role.is_some_and(|role| items(role, "/rules").iter().any(|rule| permits(rule, asked)))
        })
}

fn binds(binding: &Value, user: &User) -> bool {
    items(binding, "/subjects").iter().any(|subject| {
        let name = text(subject, "/name");
        match text(subject, "/kind") {
            "User" => name == user.name,
            "Group" => user.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                user.name == format!("system:serviceaccount:{}:{name}", text(subject, "/namespace"))
            }
            _ => false,
        }
    })
}

fn permits(rule: &Value, asked: &Asked) -> bool {
    let has = |list: &str, wanted: &str| {
        items(rule, list)
            .iter()
            .filter_map(Value::as_str)
            .any(|value| value == "*" || value == wanted)
    };
    if !has("/verbs", asked.verb) {
        return false;
    }
    if !asked.is_resource {
        return items(rule, "/nonResourceURLs")
            .iter()
            .filter_map(Value::as_str)
            .any(|path| {
                path == asked.path
                    || path
                        .strip_suffix('*')
                        .is_some_and(|prefix| asked.path.starts_with(prefix))
            });
    }
    let wanted = match asked.subresource.as_str() {
        "" => asked.resource.clone(),
        subresource => format!("{}/{subresource}", asked.resource),
    };
    let any = format!("*/{}", asked.subresource);
    let resource = has("/resources", &wanted) || !asked.subresource.is_empty() && has("/resources", &any);
    let names = items(rule, "/resourceNames");
    resource
        && has("/apiGroups", &asked.group)
        && (names.is_empty() || names.iter().any(|name| name.as_str() == Some(asked.one_name())))
}
