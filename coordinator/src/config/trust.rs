//! Enrolment and operators' roles: YAML → settings.

use std::collections::BTreeMap;
use std::time::Duration;

use blackstart_proto::identity::valid_name;
use blackstart_proto::yaml::{Item, Table};

use super::read::{absolute, absolute_item, positive, set};
use crate::inventory::ClusterName;
use crate::runbooks::plan::Runbook;
use crate::trust::desk::EnrolmentSettings;
use crate::trust::oidc::OidcSettings;
use crate::trust::rights::{Grant, Right, Roles};

const DAY: Duration = Duration::from_hours(24);
/// A shorter one would be renewed all the time.
const SHORTEST_LIFETIME: Duration = Duration::from_hours(1);

pub(super) fn enrolment(mut table: Table) -> EnrolmentSettings {
    let mut to = EnrolmentSettings {
        authority: "/etc/blackstart/pki".into(),
        lifetime: 90 * DAY,
        grace: 60 * DAY,
    };
    set(&mut to.authority, absolute(&mut table, "authority"));
    if let Some(item) = table.item("lifetime")
        && let Some(lifetime) = item.duration()
    {
        if lifetime < SHORTEST_LIFETIME {
            item.problem("must be at least 1h: it is renewed at half of it");
        } else {
            to.lifetime = lifetime;
        }
    }
    set(&mut to.grace, positive(&mut table, "grace"));
    to
}

pub(super) fn roles(top: &mut Table, to: &mut Roles) {
    if let Some(items) = top.list("operators") {
        let mut operators = BTreeMap::<String, Vec<Grant>>::new();
        for item in items {
            if let Some((name, grant)) = operator(item) {
                operators.entry(name).or_default().push(grant);
            }
        }
        let is_admin = |grant: &Grant| grant.right == Right::Admin && grant.clusters.is_none();
        if !operators.values().flatten().any(is_admin) {
            top.problem(
                "operators",
                "names no admin of all clusters: nobody could make tokens or revoke certificates",
            );
        }
        to.operators = Some(operators);
    }
    for item in top.list("two_persons").unwrap_or_default() {
        let Some(name) = item.string() else { continue };
        if Runbook::named(&name).is_some() {
            to.two_persons.push(name);
        } else {
            item.problem(format!(
                "there is no runbook {name:?}; known: {}",
                Runbook::ALL.map(Runbook::as_str).join(", ")
            ));
        }
    }
}

pub(super) fn oidc(top: &mut Table, roles: &Roles) -> Option<OidcSettings> {
    let mut table = top.table("oidc")?;
    let text = |table: &mut Table, key| table.required(key).and_then(|item| item.string());
    let (issuer, audience) = (text(&mut table, "issuer"), text(&mut table, "audience"));
    let keys = table.required("keys").and_then(|item| absolute_item(&item));
    let claim = table.string("claim").unwrap_or_else(|| "sub".to_owned());
    let suffix = table.string("suffix").unwrap_or_default();
    if roles.operators.is_none() {
        top.problem(
            "oidc",
            "wants `operators`: without it everybody whom the identity provider knows would be an admin",
        );
    }
    Some(OidcSettings {
        issuer: issuer?,
        audience: audience?,
        keys: keys?,
        claim,
        suffix,
    })
}

fn operator(item: Item) -> Option<(String, Grant)> {
    let mut table = item.table()?;
    let (named, role) = (table.required("name"), table.required("role"));
    let clusters: Option<Vec<_>> = table
        .list("clusters")
        .map(|items| items.iter().filter_map(Item::string).map(ClusterName).collect());
    if clusters.as_ref().is_some_and(Vec::is_empty) {
        table.problem("clusters", "names none; without it the role holds in all");
    }
    let right = role.and_then(|role| role.choice(&Right::ALL.map(|right| (right.as_str(), right))));
    let named = named?;
    let name = named.string()?;
    if !valid_name(&name) {
        named.problem("no operator's certificate can have this name");
        return None;
    }
    let right = right?;
    Some((name, Grant { right, clusters }))
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use crate::trust::rights::Place;

    const SHIPPED: &str = include_str!("../../../deploy/coordinator.yaml");

    /// A block of the shipped example that is commented out, as an operator would uncomment it.
    fn block(key: &str) -> String {
        let start = SHIPPED.find(&format!("# {key}:")).unwrap();
        let lines = SHIPPED[start..].lines().map_while(|line| line.strip_prefix("# "));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_shipped_example_of_enrolment_shows_the_defaults() {
        let shipped = parse("f", &block("enrolment")).unwrap().enrolment;
        assert_eq!(shipped, parse("f", "enrolment: {}").unwrap().enrolment);
        assert!(shipped.is_some());
    }

    #[test]
    fn the_shipped_example_of_operators_is_a_valid_one() {
        let roles = parse("f", &block("operators")).unwrap().roles;
        assert!(roles.of("ann").has(Right::Admin, Place::Everywhere));
        let biz = ClusterName("biz".to_owned());
        let ben = roles.of("ben");
        assert!(ben.has(Right::Operate, Place::In(&biz)) && ben.has(Right::Approve, Place::In(&biz)));
        assert!(!ben.has(Right::Operate, Place::Everywhere) && !ben.has(Right::Admin, Place::Anywhere));
        assert_eq!(roles.two_persons, ["node-down"]);
    }

    #[test]
    fn the_shipped_example_of_an_identity_provider_is_a_valid_one() {
        let oidc = parse("f", &format!("{}\n{}", block("operators"), block("oidc")))
            .unwrap()
            .oidc;
        let oidc = oidc.unwrap();
        assert_eq!(
            (oidc.claim.as_str(), oidc.suffix.as_str()),
            ("email", "@example.com")
        );
    }

    #[test]
    fn a_provider_without_roles_would_make_everybody_an_admin() {
        let text = "oidc: {issuer: 'https://sso', audience: blackstart, keys: /k.json}";
        let told = parse("f", text).unwrap_err().to_string();
        assert!(told.contains("`operators`") && told.contains("admin"), "{told}");
        let told = parse("f", "oidc: {isuer: x, keys: k.json}")
            .unwrap_err()
            .to_string();
        for part in ["did you mean \"issuer\"?", "oidc.audience", "oidc.keys"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn what_is_wrong_with_them_is_told() {
        let text = "\
enrolment: {lifetime: 5m, grace: 0s, authority: pki}
operators:
  - {name: ann, role: operate}
  - {name: ../x, role: admin}
  - {name: ben, role: root}
  - {role: admin}
  - {name: eve, role: view, clusters: []}
two_persons: [maintenence]
";
        let problems = parse("f", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|p| (p.line, p.field.as_str())).collect();
        for field in [
            (1, "enrolment.lifetime"),
            (1, "enrolment.grace"),
            (1, "enrolment.authority"),
            (4, "operators[1].name"),
            (5, "operators[2].role"),
            (6, "operators[3].name"),
            (7, "operators[4].clusters"),
            (8, "two_persons[0]"),
        ] {
            assert!(fields.contains(&field), "{field:?} in {problems}");
        }
        let nobody = parse("f", "operators: [{name: ann, role: operate}]").unwrap_err();
        assert!(nobody.to_string().contains("names no admin"), "{nobody}");
    }
}
