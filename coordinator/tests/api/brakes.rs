//! Holds and storms, as agents and operators see them.

use blackstart_proto::v1::agent_message::Body;
use blackstart_proto::v1::coordinator_message::Body as Told;
use blackstart_proto::v1::{
    Brakes, Condition, GateState, GetNodeRequest, Hold, HoldScope, LiftHoldRequest, ListConditionsRequest,
    ListHoldsRequest, ListStormsRequest, SetHoldRequest, Severity, ThawStormRequest,
};
use tonic::Code;

use crate::support::{Agent, World, hello, within};

/// The next that the agent is told of what is held, like that.
async fn braked(agent: &mut Agent, what: &str, like: impl Fn(&Brakes) -> bool) -> Brakes {
    within(what, async {
        loop {
            if let Told::Brakes(brakes) = agent.told().await.unwrap()
                && like(&brakes)
            {
                return brakes;
            }
        }
    })
    .await
}

async fn welcomed(world: &World, node: &str) -> (Agent, Brakes) {
    let line = world.line(&world.files(node)).await.unwrap();
    let mut agent = Agent::open(line, hello(node, "a")).await.unwrap();
    let Told::Welcome(welcome) = agent.told().await.unwrap() else {
        panic!("no welcome");
    };
    (agent, welcome.brakes.unwrap())
}

#[tokio::test]
async fn a_hold_reaches_its_nodes_at_once_and_at_each_session_also_of_the_next_coordinator() {
    let mut world = World::new().await;
    let mut operator = world.operator().await;
    let (mut first, none) = welcomed(&world, "biz-1").await;
    assert!(none.holds.is_empty() && none.epoch > 0);
    let ask = |scope: HoldScope, target: &str, remedy: &str, silence| SetHoldRequest {
        scope: scope.into(),
        target: target.into(),
        remedy: remedy.into(),
        silence,
        reason: "new disk".into(),
        ends_in_ms: 3_600_000,
    };
    for (wrong, code) in [
        (ask(HoldScope::Node, "nobody", "", false), Code::NotFound),
        (ask(HoldScope::Fleet, "", "reboot", false), Code::InvalidArgument),
        (ask(HoldScope::Local, "biz-1", "", false), Code::InvalidArgument),
    ] {
        assert_eq!(operator.set_hold(wrong).await.unwrap_err().code(), code);
    }
    operator
        .set_hold(ask(HoldScope::Cluster, "biz", "prune", false))
        .await
        .unwrap();
    let told = braked(&mut first, "the hold", |brakes| brakes.holds.len() == 1).await;
    assert_eq!(
        (told.holds[0].remedy.as_str(), told.holds[0].by.as_str()),
        ("prune", "ann")
    );
    assert!((3_500_000..=3_600_000).contains(&told.holds[0].ends_in_ms));
    operator
        .set_hold(ask(HoldScope::Node, "biz-1", "", true))
        .await
        .unwrap();
    braked(&mut first, "the silence", |brakes| brakes.holds.len() == 2).await;
    drop(first);
    world.stop().await;

    world.start(|_| {}).await;
    let mut operator = world.operator().await;
    let (mut first, told) = welcomed(&world, "biz-1").await;
    assert_eq!(told.holds.len(), 2);
    assert_eq!(welcomed(&world, "biz-2").await.1.holds.len(), 1);
    let holds = operator.list_holds(ListHoldsRequest::default()).await.unwrap();
    assert_eq!(holds.into_inner().holds.len(), 2);
    let name = "biz-1".to_owned();
    let detail = operator
        .get_node(GetNodeRequest { name })
        .await
        .unwrap()
        .into_inner();
    assert!(detail.holds.iter().any(|hold| hold.silence));

    let lift = || LiftHoldRequest {
        scope: HoldScope::Node.into(),
        target: "biz-1".into(),
        silence: true,
        ..LiftHoldRequest::default()
    };
    operator.lift_hold(lift()).await.unwrap();
    braked(&mut first, "the end of silence", |brakes| brakes.holds.len() == 1).await;
    let again = operator.lift_hold(lift()).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    world.stop().await;
}

/// Says that these stand now. It is seen well first: what stands at the first report may have stood for long.
async fn falls_ill(agent: &mut Agent, conditions: &[&str], holds: &[Hold]) {
    for conditions in [&[][..], conditions] {
        let mut report = agent.report_of(GateState::Passed, true);
        let stands = |kind: &&str| Condition {
            kind: (*kind).into(),
            subject: "it".into(),
            severity: Severity::Critical.into(),
            ..Condition::default()
        };
        report.conditions = conditions.iter().map(stands).collect();
        report.holds = holds.to_vec();
        agent.say(Body::Report(report)).await;
    }
}

#[tokio::test]
async fn a_silenced_node_counts_neither_as_ill_nor_among_the_nodes_of_a_storm() {
    for by_the_coordinator in [true, false] {
        let mut world = World::with(|settings| settings.storm.nodes = 2).await;
        let mut operator = world.operator().await;
        let mut own = Vec::new();
        if by_the_coordinator {
            let silence = SetHoldRequest {
                scope: HoldScope::Node.into(),
                target: "biz-1".into(),
                silence: true,
                reason: "new disk".into(),
                ..SetHoldRequest::default()
            };
            operator.set_hold(silence).await.unwrap();
        } else {
            own.push(Hold {
                scope: HoldScope::Local.into(),
                silence: true,
                by: "root".into(),
                reason: "new disk".into(),
                ..Hold::default()
            });
        }
        let mut silenced = world.agent("biz-1", "a").await;
        falls_ill(&mut silenced, &["UnitFailed"], &own).await;
        let mut others = [world.agent("biz-2", "a").await, world.agent("biz-3", "a").await];
        for other in &mut others {
            falls_ill(other, &["UnitFailed"], &[]).await;
        }
        let told = braked(&mut others[1], "the freeze", |brakes| !brakes.freezes.is_empty()).await;
        let why = &told.freezes[0].why;
        assert!(
            why.contains("2 of 2 nodes") && !why.contains("biz-1"),
            "by the coordinator: {by_the_coordinator}: {why}"
        );
        drop((silenced, others));
        world.stop().await;
    }
}

#[tokio::test]
async fn one_condition_on_many_nodes_freezes_the_others_and_an_exempt_one_does_not() {
    let mut world = World::with(|settings| settings.storm.nodes = 2).await;
    let mut operator = world.operator().await;
    let mut third = world.agent("biz-3", "a").await;
    let mut agents = Vec::new();
    for name in ["biz-1", "biz-2"] {
        let mut agent = world.agent(name, "a").await;
        falls_ill(&mut agent, &["DiskPressure", "UnitFailed"], &[]).await;
        agents.push(agent);
    }
    let told = braked(&mut third, "the freeze", |brakes| !brakes.freezes.is_empty()).await;
    assert_eq!(told.freezes.len(), 1);
    assert_eq!(told.freezes[0].condition, "UnitFailed");
    assert!(told.freezes[0].ends_in_ms > 0 && told.freezes[0].why.contains("2 of 3 nodes"));
    let storms = operator
        .list_storms(ListStormsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((storms.storms.len(), storms.storms[0].standing), (1, 2));
    let conditions = operator
        .list_conditions(ListConditionsRequest::default())
        .await
        .unwrap()
        .into_inner()
        .conditions;
    assert!(
        conditions
            .iter()
            .filter_map(|one| one.condition.as_ref())
            .any(|one| one.kind == "Storm" && one.subject == "UnitFailed")
    );

    let thaw = |condition: &str| ThawStormRequest {
        cluster: "biz".into(),
        condition: condition.into(),
    };
    let other = operator.thaw_storm(thaw("UnitInactive")).await.unwrap_err();
    assert_eq!(other.code(), Code::NotFound);
    operator.thaw_storm(thaw("UnitFailed")).await.unwrap();
    braked(&mut third, "the thaw", |brakes| brakes.freezes.is_empty()).await;
    // It still stands, and does not freeze anew: nothing was raised since.
    let storms = operator
        .list_storms(ListStormsRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(storms.storms.is_empty());
    drop(agents);
    world.stop().await;
}
