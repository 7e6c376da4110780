//! docker's events of containers → what they add up to for each. Pure.
//!
//! Only containers that somebody wants up are told: those with a restart policy, and those of pods, which the kubelet
//! starts again under a new id (the pod's sandbox is not one of them). What a person or the kubelet ends, docker
//! announces by a `kill` event before the `die`; that is no failure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bollard::models::EventMessage;

use crate::signal::ContainerSignal;

/// So many containers are kept apart; then the one is forgotten that has been silent for longest.
const MAX: usize = 512;
/// docker keeps this many events for who asks again (`eventsLimit`, daemon/events/events.go).
const REPLAYED: usize = 256;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The container's id.
    pub(super) id: String,
    name: String,
    image: String,
    /// Of a pod.
    pod: bool,
    what: What,
    /// When, nanoseconds since the Unix epoch.
    at: i64,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It was started.
    Start,
    /// It ended.
    Die { status: i64 },
    /// The OOM killer took a process of it.
    Oom,
    /// Somebody had a signal sent to it that ends most programs.
    Kill,
    /// Its health check came to another result.
    Health { unhealthy: bool },
    /// It was removed.
    Destroy,
}

/// Signals that programs take as a request, not as their end: HUP, USR1, USR2, WINCH.
const HARMLESS: [&str; 4] = ["1", "10", "12", "28"];

impl Event {
    /// `None` for the sandbox of a pod.
    pub(super) fn new(
        id: String,
        name: &str,
        image: String,
        labels: &HashMap<String, String>,
        what: What,
        at: i64,
    ) -> Option<Self> {
        let label = |name: &str| labels.get(name).map(String::as_str);
        let container = label("io.kubernetes.container.name");
        let pod = container.zip(label("io.kubernetes.pod.name"));
        if container == Some("POD") || label("io.kubernetes.docker.type") == Some("podsandbox") {
            return None;
        }
        let name = match pod {
            Some((container, pod)) => {
                let namespace = label("io.kubernetes.pod.namespace").unwrap_or("default");
                format!("{namespace}/{pod}/{container}")
            }
            None => name.to_owned(),
        };
        Some(Self {
            id,
            name,
            image,
            pod: pod.is_some(),
            what,
            at,
        })
    }
}

/// An event as docker tells it; `None` if it is none that matters.
pub(crate) fn parse(message: EventMessage) -> Option<Event> {
    let actor = message.actor?;
    let attributes = actor.attributes.unwrap_or_default();
    let attribute = |name: &str| attributes.get(name).map_or("", String::as_str);
    let action = message.action?;
    let what = match action.as_str() {
        "start" => What::Start,
        "die" => What::Die {
            status: attribute("exitCode").parse().unwrap_or(-1),
        },
        "oom" => What::Oom,
        "kill" if !HARMLESS.contains(&attribute("signal")) => What::Kill,
        "destroy" => What::Destroy,
        _ => match action.strip_prefix("health_status: ")? {
            "unhealthy" => What::Health { unhealthy: true },
            _ => What::Health { unhealthy: false },
        },
    };
    Event::new(
        actor.id?,
        attribute("name"),
        attribute("image").to_owned(),
        &attributes,
        what,
        message.time_nano.unwrap_or(0),
    )
}

/// All containers that somebody wants up.
#[derive(Debug)]
pub(super) struct Containers {
    /// When the watch began, nanoseconds since the Unix epoch.
    begun: i64,
    known: BTreeMap<String, Known>,
    /// Which have a restart policy, by id.
    policies: HashMap<String, bool>,
    /// The last events: a stream that begins anew repeats them. Not by order of time alone, for the wall clock may jump.
    seen: VecDeque<(i64, String, What)>,
    /// Counts events.
    tick: u64,
}

#[derive(Debug)]
struct Known {
    id: String,
    signal: ContainerSignal,
    /// It has ended; and whether somebody had asked for it.
    ended: Option<bool>,
    asked: bool,
    tick: u64,
}

impl Containers {
    /// Nothing seen yet, at `begun` (nanoseconds since the Unix epoch).
    pub(super) fn new(begun: i64) -> Self {
        Self {
            begun,
            known: BTreeMap::new(),
            policies: HashMap::new(),
            seen: VecDeque::new(),
            tick: 0,
        }
    }

    /// From where to ask for events (again).
    pub(super) fn since(&self) -> i64 {
        self.seen.back().map_or(self.begun, |(at, ..)| *at)
    }

    /// It was not told before.
    pub(super) fn is_new(&mut self, event: &Event) -> bool {
        let this = (event.at, event.id.clone(), event.what);
        if self.seen.contains(&this) {
            return false;
        }
        if self.seen.len() >= REPLAYED {
            self.seen.pop_front();
        }
        self.seen.push_back(this);
        true
    }

    /// Whether the container of `event` has a restart policy has to be found out first.
    pub(super) fn asks_for_policy(&self, event: &Event) -> bool {
        !event.pod && event.what != What::Destroy && !self.policies.contains_key(&event.id)
    }

    /// Takes in what was found out.
    pub(super) fn policy(&mut self, id: &str, has_policy: bool) {
        // Ids are forgotten when they are destroyed; those whose end was missed must not add up.
        if self.policies.len() >= MAX {
            self.policies.clear();
        }
        self.policies.insert(id.to_owned(), has_policy);
    }

    /// Takes in an event, and tells what is of the container now if that changed.
    pub(super) fn observe(&mut self, event: &Event) -> Option<ContainerSignal> {
        self.tick += 1;
        if event.what == What::Destroy {
            self.policies.remove(&event.id);
            let known = self
                .known
                .get_mut(&event.name)
                .filter(|known| known.id == event.id)?;
            let before = known.signal.clone();
            known.signal.running = false;
            known.signal.unhealthy = false;
            return (known.signal != before).then(|| known.signal.clone());
        }
        if !event.pod && self.policies.get(&event.id) != Some(&true) {
            return None;
        }
        if !self.known.contains_key(&event.name) {
            self.make_room();
        }
        let known = self.known.entry(event.name.clone()).or_insert_with(|| Known {
            id: event.id.clone(),
            signal: ContainerSignal {
                name: event.name.clone(),
                image: event.image.clone(),
                running: false,
                unhealthy: false,
                restarts: 0,
                failures: 0,
                oom_kills: 0,
                last_exit: None,
            },
            ended: None,
            asked: false,
            tick: 0,
        });
        known.tick = self.tick;
        let before = known.signal.clone();
        known.observe(event);
        (known.signal != before).then(|| known.signal.clone())
    }

    /// Takes in which containers are unhealthy now, and tells those that no longer are.
    pub(super) fn only_these_unhealthy(&mut self, these: &[Event]) -> Vec<ContainerSignal> {
        self.known
            .values_mut()
            .filter(|known| known.signal.unhealthy && these.iter().all(|event| event.id != known.id))
            .map(|known| {
                known.signal.unhealthy = false;
                known.signal.clone()
            })
            .collect()
    }

    fn make_room(&mut self) {
        if self.known.len() < MAX {
            return;
        }
        let oldest = self.known.iter().min_by_key(|(_, known)| known.tick);
        if let Some(name) = oldest.map(|(name, _)| name.clone()) {
            self.known.remove(&name);
        }
    }
}

impl Known {
    fn observe(&mut self, event: &Event) {
        // A pod's container is replaced by another one, which may be created before the old one is removed.
        if self.id != event.id {
            self.id.clone_from(&event.id);
            self.signal.image.clone_from(&event.image);
            self.asked = false;
        }
        let signal = &mut self.signal;
        match event.what {
            What::Start => {
                // A pod is never started again by hand: whatever ended its container, this is a restart.
                if self.ended.take().is_some_and(|asked| event.pod || !asked) {
                    signal.restarts += 1;
                }
                signal.running = true;
                signal.unhealthy = false;
                self.asked = false;
            }
            What::Die { status } => {
                signal.running = false;
                signal.unhealthy = false;
                signal.last_exit = Some(status);
                if status != 0 && !self.asked {
                    signal.failures += 1;
                }
                self.ended = Some(self.asked);
            }
            What::Oom => signal.oom_kills += 1,
            What::Kill => self.asked = true,
            What::Health { unhealthy } => {
                signal.unhealthy = unhealthy;
                signal.running = true;
            }
            What::Destroy => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(action: &str, attributes: &[(&str, &str)], at: i64) -> EventMessage {
        let attributes = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        EventMessage {
            action: Some(action.to_owned()),
            actor: Some(bollard::models::EventActor {
                id: Some("c1".to_owned()),
                attributes: Some(attributes),
            }),
            time_nano: Some(at),
            ..EventMessage::default()
        }
    }

    const WEB: &[(&str, &str)] = &[("name", "web"), ("image", "shop:1"), ("exitCode", "3")];
    const POD: &[(&str, &str)] = &[
        ("name", "k8s_app_web-0_prod_uid_0"),
        ("image", "shop:1"),
        ("exitCode", "137"),
        ("io.kubernetes.container.name", "app"),
        ("io.kubernetes.pod.name", "web-0"),
        ("io.kubernetes.pod.namespace", "prod"),
    ];

    fn after(with_policy: bool, attributes: &[(&str, &str)], actions: &[&str]) -> Option<ContainerSignal> {
        let mut containers = Containers::new(0);
        let mut last = None;
        for (at, action) in (0..).zip(actions) {
            let Some(event) = parse(message(action, attributes, at)) else {
                continue;
            };
            if containers.asks_for_policy(&event) {
                containers.policy(&event.id, with_policy);
            }
            last = containers.observe(&event).or(last);
        }
        last
    }

    #[test]
    fn deaths_and_restarts_add_up_and_what_was_asked_for_is_no_failure() {
        for (actions, restarts, failures, running) in [
            (&["start", "die", "start", "die", "start"][..], 2, 2, true),
            (&["start", "kill", "die", "start"], 0, 0, true),
            (&["start", "kill", "die", "start", "die", "start"], 1, 1, true),
            (&["start", "die"], 0, 1, false),
            (&["start", "exec_create: sh", "top"], 0, 0, true),
        ] {
            let seen = after(true, WEB, actions).unwrap();
            assert_eq!(
                (seen.restarts, seen.failures, seen.running),
                (restarts, failures, running),
                "{actions:?}"
            );
            assert_eq!(seen.name, "web");
        }
    }

    #[test]
    fn a_reload_by_signal_is_no_request_to_end() {
        let mut containers = Containers::new(0);
        containers.policy("c1", true);
        let hup = [WEB, &[("signal", "1")]].concat();
        let events = [("start", WEB), ("kill", &hup[..]), ("die", WEB)];
        let last = events
            .iter()
            .filter_map(|(action, attributes)| parse(message(action, attributes, 0)))
            .filter_map(|event| containers.observe(&event))
            .last();
        assert_eq!(last.unwrap().failures, 1);
    }

    #[test]
    fn what_nobody_wants_up_is_not_told() {
        assert_eq!(after(false, WEB, &["start", "oom", "die"]), None);
        let sandbox = [POD, &[("io.kubernetes.docker.type", "podsandbox")]].concat();
        assert_eq!(after(true, &sandbox, &["start", "die"]), None);
    }

    #[test]
    fn a_pods_container_keeps_its_name_when_it_is_replaced_and_every_start_is_a_restart() {
        let seen = after(
            false,
            POD,
            &["start", "oom", "die", "start", "kill", "die", "start"],
        )
        .unwrap();
        assert_eq!(seen.name, "prod/web-0/app");
        assert_eq!(
            (seen.restarts, seen.failures, seen.oom_kills, seen.last_exit),
            (2, 1, 1, Some(137))
        );
    }

    #[test]
    fn a_repeated_stream_tells_nothing_twice_even_after_the_clock_jumped() {
        let mut containers = Containers::new(0);
        for at in [900, 901, 100] {
            let event = parse(message("die", WEB, at)).unwrap();
            assert!(containers.is_new(&event));
            assert!(!containers.is_new(&event));
        }
        assert_eq!(containers.since(), 100);
    }

    #[test]
    fn health_is_cleared_by_the_end_of_the_container_and_by_a_new_look() {
        let ill = after(true, WEB, &["start", "health_status: unhealthy"]).unwrap();
        assert!(ill.unhealthy);
        for end in ["die", "destroy", "health_status: healthy"] {
            let seen = after(true, WEB, &["start", "health_status: unhealthy", end]).unwrap();
            assert!(!seen.unhealthy, "{end}");
        }
        let mut containers = Containers::new(0);
        containers.policy("c1", true);
        let event = parse(message("health_status: unhealthy", WEB, 1)).unwrap();
        containers.observe(&event);
        assert!(containers.only_these_unhealthy(&[event]).is_empty());
        assert_eq!(containers.only_these_unhealthy(&[]).len(), 1);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut containers = Containers::new(0);
        for n in 0..3 * MAX {
            let mut event = parse(message("die", POD, 0)).unwrap();
            event.name = n.to_string();
            containers.observe(&event);
            containers.policy(&n.to_string(), true);
        }
        assert_eq!(containers.known.len(), MAX);
        assert!(containers.policies.len() <= MAX);
        assert!(containers.known.contains_key(&(3 * MAX - 1).to_string()));
    }
}
