//! Which right each call needs, and which operator has it.
//!
//! | right | what it is for |
//! |---|---|
//! | view | seeing everything: nodes, runs, events, plans |
//! | operate | starting, pausing and aborting runs, holds, storms, permits |
//! | approve | letting a run go on that waits for an operator's word |
//! | admin | tokens, certificates, the audit's export; and all of the above |
//!
//! `operate` does not include `approve`, nor the other way round: who may do both has both. Whoever has any right may view, and everywhere;
//! the others hold in the clusters that they are given for. Without `operators` in the configuration, every operator's certificate is an
//! admin's.

use std::collections::BTreeMap;
use std::fmt;

use tonic::Status;

use crate::inventory::ClusterName;

/// What an operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See.
    View,
    /// Begin, steer and hold.
    Operate,
    /// Let go on.
    Approve,
    /// Everything.
    Admin,
}

impl Right {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::View, Self::Operate, Self::Approve, Self::Admin];

    /// As it is written in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Approve => "approve",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A right, and where it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The role's.
    pub right: Right,
    /// `None`: in every cluster.
    pub clusters: Option<Vec<ClusterName>>,
}

/// What one operator may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grants {
    /// The operator.
    pub operator: String,
    /// Empty: nothing.
    pub list: Vec<Grant>,
}

/// Where a right is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// Somewhere; where, is decided later.
    Anywhere,
    /// In this cluster.
    In(&'a ClusterName),
    /// In all of them.
    Everywhere,
}

impl Grants {
    /// Has this operator the right there?
    pub fn has(&self, right: Right, place: Place<'_>) -> bool {
        self.list.iter().any(|grant| {
            let enough = grant.right == right || grant.right == Right::Admin || right == Right::View;
            let there = right == Right::View
                || match (place, &grant.clusters) {
                    (Place::Anywhere, _) | (_, None) => true,
                    (Place::In(cluster), Some(clusters)) => clusters.contains(cluster),
                    (Place::Everywhere, Some(_)) => false,
                };
            enough && there
        })
    }

    /// Refuses where the right is missing, and says which.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`.
    pub fn require(&self, right: Right, place: Place<'_>) -> Result<(), Status> {
        if self.has(right, place) {
            return Ok(());
        }
        let place = match place {
            Place::Anywhere => String::new(),
            Place::In(cluster) => format!(" in cluster {cluster}"),
            Place::Everywhere => " in all clusters, which this concerns".to_owned(),
        };
        Err(Status::permission_denied(format!(
            "operator {} lacks the right \"{right}\"{place}; has {}. Rights are given in `operators` of the coordinator's configuration",
            self.operator,
            self.told()
        )))
    }

    fn told(&self) -> String {
        if self.list.is_empty() {
            return "none".to_owned();
        }
        let grants = self.list.iter().map(|grant| match &grant.clusters {
            None => grant.right.to_string(),
            Some(clusters) => {
                let clusters: Vec<_> = clusters.iter().map(|cluster| cluster.0.as_str()).collect();
                format!("{} in {}", grant.right, clusters.join(", "))
            }
        });
        grants.collect::<Vec<_>>().join("; ")
    }
}

/// What may cost a cluster its last writes is never one person's decision.
const ALWAYS_TWO: [&str; 2] = ["etcd-quorum", "etcd-all"];

/// Who may do what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    /// By the operator's name in the certificate; `None`: everybody is an admin.
    pub operators: Option<BTreeMap<String, Vec<Grant>>>,
    /// Runbooks that nobody approves whom they were started by.
    pub two_persons: Vec<String>,
}

impl Roles {
    /// What this operator may do.
    pub fn of(&self, operator: &str) -> Grants {
        let list = match &self.operators {
            None => vec![Grant {
                right: Right::Admin,
                clusters: None,
            }],
            Some(operators) => operators.get(operator).cloned().unwrap_or_default(),
        };
        Grants {
            operator: operator.to_owned(),
            list,
        }
    }

    /// May `approves` let a run of this runbook go on that `started` has started?
    ///
    /// # Errors
    /// `PERMISSION_DENIED`: it wants two persons, and this is one.
    pub fn second_person(&self, runbook: &str, started: &str, approves: &str) -> Result<(), Status> {
        let wants_two = ALWAYS_TWO.contains(&runbook) || self.two_persons.iter().any(|name| name == runbook);
        if started != approves || !wants_two {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "{runbook} wants two persons (always, or by `two_persons` in the coordinator's configuration): {started} has started this run, and somebody else \
             with the right \"approve\" must let it go on"
        )))
    }
}

/// Whom a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// Whoever reaches it, without a certificate.
    Anybody,
    /// Whoever has shown a certificate, or an operator's token, that counts: nodes, coordinators, operators whatever their roles.
    Known,
    /// Nodes.
    Nodes,
    /// Operators with this right.
    Operators(Right),
}

/// Whom each call is for; `None`: there is no such call.
pub(crate) fn of_call(path: &str) -> Option<For> {
    use Right::{Admin, Approve, Operate, View};
    match path {
        // Whether this coordinator leads, and no more: an agent's host may ask as well.
        "/grpc.health.v1.Health/Check" | "/grpc.health.v1.Health/Watch" => return Some(For::Known),
        // What could be asked. The same stands in the public `.proto` files; still it is nobody's business who may ask nothing.
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
        | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => {
            return Some(For::Operators(View));
        }
        _ => {}
    }
    let (service, call) = path.strip_prefix("/blackstart.v1.")?.split_once('/')?;
    let right = match (service, call) {
        ("EnrolmentService", "Join" | "Renew") => return Some(For::Anybody),
        ("AgentService", "Session") => return Some(For::Nodes),
        ("CoordinatorService", "ListCoordinators")
        | (
            "FleetService",
            "ListClusters" | "ListNodes" | "GetNode" | "ListConditions" | "ListRemedies" | "ListRuns"
            | "GetRun" | "WatchEvents" | "WatchRun" | "PlanColdStart" | "ListHolds" | "ListStorms"
            | "ListPermits",
        )
        | (
            "RunbookService",
            "ListRunbooks"
            | "PlanRunbook"
            | "ListRunbookRuns"
            | "GetRunbookRun"
            | "DiagnosePods"
            | "ListWorkloads"
            | "GetEtcd"
            | "VerifyEtcdSnapshots",
        )
        | ("TrustService", "ListCertificates" | "RenewOperator") => View,
        (
            "FleetService",
            "StartColdStart" | "PauseRun" | "ResumeRun" | "AbortRun" | "SetHold" | "LiftHold" | "ThawStorm"
            | "ReleasePermit",
        )
        | ("RunbookService", "StartRunbook" | "AbortRunbook") => Operate,
        ("RunbookService", "ApproveRunbook") => Approve,
        ("TrustService", "CreateToken" | "ListTokens" | "RevokeToken" | "Revoke" | "AllowRenewal")
        | ("RunbookService", "FetchEtcdSnapshot")
        | ("AuditService", "VerifyAudit" | "ExportAudit") => Admin,
        _ => return None,
    };
    Some(For::Operators(right))
}

/// Does this call change something, or take away what others do not see? Then it stands in the audit.
pub(crate) fn is_command(path: &str) -> bool {
    let call = path.rsplit('/').next().unwrap_or_default();
    match of_call(path) {
        Some(For::Operators(Right::View)) => call == "RenewOperator",
        Some(For::Operators(Right::Operate | Right::Approve | Right::Admin)) => {
            !matches!(call, "ListTokens" | "VerifyAudit")
        }
        Some(For::Anybody | For::Known | For::Nodes) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROTOS: [&str; 5] = [
        include_str!("../../../proto/proto/blackstart/v1/agent.proto"),
        include_str!("../../../proto/proto/blackstart/v1/fleet.proto"),
        include_str!("../../../proto/proto/blackstart/v1/runbook.proto"),
        include_str!("../../../proto/proto/blackstart/v1/enrolment.proto"),
        include_str!("../../../proto/proto/blackstart/v1/audit.proto"),
    ];

    #[test]
    fn every_call_names_whom_it_is_for() {
        let mut calls = 0;
        for proto in PROTOS {
            let mut service = "";
            for line in proto.lines() {
                let mut words = line.trim().split([' ', '(']);
                match words.next() {
                    Some("service") => service = words.next().unwrap(),
                    Some("rpc") => {
                        let path = format!("/blackstart.v1.{service}/{}", words.next().unwrap());
                        assert!(
                            of_call(&path).is_some(),
                            "{path}: say in of_call() which right it needs"
                        );
                        calls += 1;
                    }
                    Some(_) | None => {}
                }
            }
        }
        assert!(calls > 30, "{calls}");
        assert!(is_command("/blackstart.v1.FleetService/SetHold"));
        assert!(is_command("/blackstart.v1.AuditService/ExportAudit"));
        for call in [
            "FleetService/ListNodes",
            "TrustService/ListTokens",
            "EnrolmentService/Join",
            "No/Such",
        ] {
            assert!(!is_command(&format!("/blackstart.v1.{call}")), "{call}");
        }
        assert_eq!(of_call("/blackstart.v1.FleetService/Nothing"), None);
        for (call, whom) in [
            ("health.v1.Health/Check", Some(For::Known)),
            ("health.v1.Health/Watch", Some(For::Known)),
            // A later version of the health protocol has one: nobody has given it a right.
            ("health.v1.Health/List", None),
            (
                "reflection.v1.ServerReflection/ServerReflectionInfo",
                Some(For::Operators(Right::View)),
            ),
            (
                "reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                Some(For::Operators(Right::View)),
            ),
        ] {
            let path = format!("/grpc.{call}");
            assert_eq!(of_call(&path), whom, "{path}");
            assert!(!is_command(&path), "{path}");
        }
    }

    fn grants(list: &[(Right, Option<&str>)]) -> Grants {
        let list = list.iter().map(|(right, cluster)| Grant {
            right: *right,
            clusters: cluster.map(|cluster| vec![ClusterName(cluster.to_owned())]),
        });
        Grants {
            operator: "ben".to_owned(),
            list: list.collect(),
        }
    }

    #[test]
    fn a_right_holds_where_it_is_given_and_viewing_everywhere() {
        let (a, b) = (ClusterName("a".to_owned()), ClusterName("b".to_owned()));
        let ben = grants(&[(Right::Operate, Some("a")), (Right::Approve, None)]);
        for (right, place, expected) in [
            (Right::View, Place::In(&b), true),
            (Right::View, Place::Everywhere, true),
            (Right::Operate, Place::Anywhere, true),
            (Right::Operate, Place::In(&a), true),
            (Right::Operate, Place::In(&b), false),
            (Right::Operate, Place::Everywhere, false),
            (Right::Approve, Place::In(&b), true),
            (Right::Approve, Place::Everywhere, true),
            (Right::Admin, Place::Anywhere, false),
        ] {
            assert_eq!(ben.has(right, place), expected, "{right} {place:?}");
        }
        let of_one_cluster = grants(&[(Right::Admin, Some("a"))]);
        for right in Right::ALL {
            assert!(of_one_cluster.has(right, Place::In(&a)), "{right}");
            assert_eq!(
                of_one_cluster.has(right, Place::In(&b)),
                right == Right::View,
                "{right}"
            );
        }
        assert!(!grants(&[]).has(Right::View, Place::Anywhere));
    }

    #[test]
    fn a_refusal_says_which_right_is_missing_where_and_what_there_is() {
        let b = ClusterName("b".to_owned());
        let refused = grants(&[(Right::Operate, Some("a"))]).require(Right::Operate, Place::In(&b));
        let told = refused.unwrap_err();
        for part in [
            "operator ben lacks the right \"operate\" in cluster b",
            "has operate in a",
        ] {
            assert!(told.message().contains(part), "{told}");
        }
        let none = Roles {
            operators: Some(BTreeMap::new()),
            two_persons: Vec::new(),
        };
        let told = none.of("eve").require(Right::View, Place::Anywhere).unwrap_err();
        assert!(told.message().contains("has none"), "{told}");
        assert!(
            Roles::default()
                .of("eve")
                .require(Right::Admin, Place::Everywhere)
                .is_ok()
        );
    }

    #[test]
    fn who_starts_what_wants_two_persons_does_not_approve_it() {
        let roles = Roles {
            operators: None,
            two_persons: vec!["node-down".to_owned()],
        };
        assert!(roles.second_person("node-down", "ann", "ben").is_ok());
        assert!(roles.second_person("etcd-quorum", "ann", "ann").is_err());
        assert!(roles.second_person("maintenance", "ann", "ann").is_ok());
        let told = roles.second_person("node-down", "ann", "ann").unwrap_err();
        assert!(told.message().contains("ann has started this run"), "{told}");
    }
}
