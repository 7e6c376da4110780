//! The part of the configuration that is about runbooks.

use std::time::Duration;

use blackstart_proto::yaml::Table;

use super::read::{count, percent, positive, set, trigger};
use crate::kubernetes::objects::workload::WorkloadName;
use crate::policy::Trigger;
use crate::runbooks::policy::{Fence, RunbookPolicy, Triggers};

/// Longer than the five minutes that pods stay by default would shorten nothing.
const LONGEST: Duration = Duration::from_mins(5);

pub(super) fn read(mut table: Table, to: &mut RunbookPolicy) {
    if let Some(mut storm) = table.table("storm") {
        set(&mut to.storm_nodes, count(&mut storm, "nodes"));
        if to.storm_nodes < 2 {
            storm.problem("nodes", "must be at least 2: one node is no storm");
        }
        set(&mut to.storm_share_percent, percent(&mut storm, "share_percent"));
    }
    if let Some(table) = table.table("triggers") {
        triggers(table, &mut to.triggers);
    }
    set(&mut to.lost_for, positive(&mut table, "lost_for"));
    set(&mut to.overloaded_for, positive(&mut table, "overloaded_for"));
    set(&mut to.pending_for, positive(&mut table, "pending_for"));
    set(&mut to.quorum_chance, positive(&mut table, "quorum_chance"));
    set(&mut to.back_off, positive(&mut table, "back_off"));
    set(&mut to.readiness_every, positive(&mut table, "readiness_every"));
    set(
        &mut to.power_event_workers,
        count(&mut table, "power_event_workers"),
    );
    let fence = table.item("fence");
    let fence = fence.and_then(|item| item.choice(&[("propose", Fence::Propose), ("off", Fence::Off)]));
    set(&mut to.fence, fence);
    if let Some(item) = table.item("tolerate")
        && let Some(tolerate) = item.duration()
    {
        if tolerate > LONGEST || tolerate.subsec_nanos() != 0 {
            item.problem("expected whole seconds, 5m at most: that is what pods have by default");
        } else {
            to.tolerate = tolerate;
        }
    }
    for item in table.list("workloads").unwrap_or_default() {
        let Some(text) = item.string() else { continue };
        match WorkloadName::parse(&text) {
            Some(name) => to.workloads.push(name),
            None => item.problem(
                "expected NAMESPACE/KIND/NAME, such as gateway-system/deployment/gateway-proxy; kinds: deployment, statefulset",
            ),
        }
    }
}

fn triggers(mut table: Table, to: &mut Triggers) {
    for (key, of) in [
        ("node_down", &mut to.node_down),
        ("network_loss", &mut to.network_loss),
        ("overload", &mut to.overload),
        ("resource_shortage", &mut to.resource_shortage),
        ("cold_start_verify", &mut to.cold_start_verify),
    ] {
        set(of, table.item(key).as_ref().and_then(trigger));
    }
    if let Some(item) = table.item("etcd")
        && let Some(etcd) = trigger(&item)
    {
        if etcd == Trigger::Auto {
            item.problem("expected propose or off: data is given up by an operator's word alone");
        } else {
            to.etcd = etcd;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::parse;
    use crate::policy::Trigger;

    #[test]
    fn runbooks_are_tuned_and_what_is_wrong_is_told() {
        let text = "runbooks: {triggers: {overload: auto}, tolerate: 5s, workloads: [gateway-system/deployment/gateway-proxy]}\n";
        let runbooks = parse("f", text).unwrap().runbooks;
        assert_eq!(runbooks.triggers.overload, Trigger::Auto);
        assert_eq!(runbooks.triggers.node_down, Trigger::Propose);
        assert_eq!(runbooks.tolerate, Duration::from_secs(5));
        assert_eq!(runbooks.workloads[0].key.name, "gateway-proxy");
        let text = "\
runbooks:
  storm: {nodes: 1}
  triggers: {drain: auto, etcd: auto}
  tolerate: 10m
  workloads: [web]
";
        let problems = parse("f", text).unwrap_err();
        let fields: Vec<_> = problems.list.iter().map(|one| one.field.as_str()).collect();
        for field in [
            "storm.nodes",
            "triggers.drain",
            "triggers.etcd",
            "tolerate",
            "workloads[0]",
        ] {
            let field = format!("runbooks.{field}");
            assert!(fields.contains(&field.as_str()), "{field} in {problems}");
        }
    }
}
