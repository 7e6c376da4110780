//! Doubles of what a cluster's control plane does to a cold start, in simulated time: an API server that has limits, and the controller that
//! evicts pods of nodes whose leases are old. Pure: no clock, no chance; seconds go in, and what follows comes out.
//!
//! ```text
//!  kubelets that start ─► ApiServer: work waits ─► latency ─► probes of the masters' agents
//!                              │ too long: 429, and what was refused is asked again
//!                              └ for too long: it crashes, and every kubelet lists anew when it is back
//!  leases renewed, or not ─► NodeLifecycle: Unknown ─► taint, at the rate of the zone's mode ─► pods evicted
//! ```
//!
//! The numbers of the controller are Kubernetes' own (1.36, `pkg/controller/nodelifecycle`); those of the server are chosen, and only the shape is claimed:
//! replies that take longer than a kubelet waits make it ask again, so that an overload feeds itself.

use std::time::Duration;

/// What an API server can do.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Starting kubelets that it serves in a second: their lists, watches and creations.
    pub kubelets_per_second: f64,
    /// How long an answer takes when nothing waits.
    pub base_latency: Duration,
    /// Answers that would take longer are refused with 429.
    pub sheds_above: Duration,
    /// Kubelets give up a reply after this, close their connections and list again.
    pub patience: Duration,
    /// It crashes when kubelets have had to give up for so long.
    pub crashes_after: Duration,
    /// A crash takes so long.
    pub restarts_in: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            kubelets_per_second: 50.0,
            base_latency: Duration::from_millis(20),
            sheds_above: Duration::from_secs(5),
            patience: Duration::from_secs(10),
            crashes_after: Duration::from_secs(30),
            restarts_in: Duration::from_secs(20),
        }
    }
}

/// How an API server answers now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// 200, after so long.
    After(Duration),
    /// 429.
    TooManyRequests,
    /// Nobody listens.
    Down,
}

/// The API servers of one cluster, taken together.
#[derive(Debug, Clone)]
pub struct ApiServer {
    limits: Limits,
    /// Kubelets' starts whose work is not done.
    backlog: f64,
    /// Those that are connected, and list anew after a crash.
    connected: f64,
    overloaded: Duration,
    down: Duration,
    /// How often it crashed.
    pub crashes: u32,
    /// Seconds in which it refused.
    pub refusals: u32,
    /// The longest that an answer took.
    pub slowest: Duration,
}

impl ApiServer {
    /// One that has nothing to do.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            backlog: 0.0,
            connected: 0.0,
            overloaded: Duration::ZERO,
            down: Duration::ZERO,
            crashes: 0,
            refusals: 0,
            slowest: Duration::ZERO,
        }
    }

    /// A kubelet starts: it lists, watches and creates everything that it needs.
    pub fn kubelet_starts(&mut self) {
        self.backlog += 1.0;
        self.connected += 1.0;
    }

    /// How it answers now.
    pub fn reply(&self) -> Reply {
        if !self.down.is_zero() {
            Reply::Down
        } else if self.latency() > self.limits.sheds_above {
            Reply::TooManyRequests
        } else {
            Reply::After(self.latency())
        }
    }

    fn latency(&self) -> Duration {
        let waits = Duration::from_secs_f64(self.backlog / self.limits.kubelets_per_second);
        self.limits.base_latency + waits
    }

    /// Lets a second pass.
    pub fn second(&mut self) {
        const SECOND: Duration = Duration::from_secs(1);
        if !self.down.is_zero() {
            self.down = self.down.saturating_sub(SECOND);
            return;
        }
        self.backlog = (self.backlog - self.limits.kubelets_per_second).max(0.0);
        self.slowest = self.slowest.max(self.latency());
        if self.reply() == Reply::TooManyRequests {
            self.refusals += 1;
        }
        if self.latency() <= self.limits.patience {
            self.overloaded = Duration::ZERO;
            return;
        }
        // Whoever gave up asks again, for as much as could not be served meanwhile.
        self.backlog += self.limits.kubelets_per_second;
        self.overloaded += SECOND;
        if self.overloaded >= self.limits.crashes_after {
            self.crashes += 1;
            self.down = self.limits.restarts_in;
            self.overloaded = Duration::ZERO;
            self.backlog = self.connected;
        }
    }
}

/// `node-monitor-grace-period` (40 s before 1.32).
const GRACE: u64 = 50;
/// The default toleration of `not-ready` and `unreachable`.
const TOLERATION: u64 = 300;
/// `unhealthy-zone-threshold`, percent.
const UNHEALTHY_PERCENT: usize = 55;
/// `large-cluster-size-threshold`.
const LARGE: usize = 50;
/// `node-eviction-rate` is 0.1 a second, `secondary-node-eviction-rate` 0.01: a node each so many seconds.
const NORMAL_EVERY: u64 = 10;
/// See [`NORMAL_EVERY`].
const SECONDARY_EVERY: u64 = 100;

/// How a zone stands for the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disruption {
    /// Fewer than 55 % of its nodes are not ready.
    Normal,
    /// More, and some are ready.
    Partial,
    /// None is: nothing is evicted, and taints are taken back.
    Full,
}

#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    /// The second that its renewal was last seen in; of the beginning, what was stored.
    seen: u64,
    renewed: bool,
    tainted: Option<u64>,
    evicted: bool,
}

/// The controller that watches leases: one zone, as in a cluster without zone labels.
#[derive(Debug, Clone)]
pub struct NodeLifecycle {
    nodes: Vec<Lease>,
    /// The second that it began in; `None`: it does not run, and nothing is evicted.
    began: Option<u64>,
    was: Disruption,
    tainted_at: Option<u64>,
}

impl NodeLifecycle {
    /// Of so many nodes, none of which it has seen yet. It does not run.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes: vec![Lease::default(); nodes],
            began: None,
            was: Disruption::Full,
            tainted_at: None,
        }
    }

    /// It runs from `now` on, and takes what is stored for fresh: that is how a fleet that is dark shows as ready.
    pub fn begin(&mut self, now: u64) {
        self.began = Some(now);
        self.was = Disruption::Normal;
        for node in &mut self.nodes {
            node.seen = now;
        }
    }

    /// It runs.
    pub const fn runs(&self) -> bool {
        self.began.is_some()
    }

    /// How the zone stands.
    pub const fn disruption(&self) -> Disruption {
        self.was
    }

    /// The nodes whose pods were evicted.
    pub fn evicted(&self) -> usize {
        self.nodes.iter().filter(|node| node.evicted).count()
    }

    /// The lease of a node is renewed.
    pub fn renew(&mut self, node: usize, now: u64) {
        let lease = &mut self.nodes[node];
        lease.seen = now;
        lease.renewed = true;
        lease.tainted = None;
    }

    /// Looks at every lease, once a second.
    pub fn second(&mut self, now: u64) {
        if self.began.is_none() {
            return;
        }
        let old = |node: &Lease| now >= node.seen + GRACE;
        let unready = self.nodes.iter().filter(|node| old(node)).count();
        let is = if unready == self.nodes.len() {
            Disruption::Full
        } else if unready > 2 && unready * 100 >= self.nodes.len() * UNHEALTHY_PERCENT {
            Disruption::Partial
        } else {
            Disruption::Normal
        };
        let was = std::mem::replace(&mut self.was, is);
        if is == Disruption::Full {
            for node in &mut self.nodes {
                node.tainted = None;
            }
            return;
        }
        if was == Disruption::Full {
            // It could not see before, so it gives everybody the whole time once more.
            for node in &mut self.nodes {
                node.seen = now;
            }
            return;
        }
        let every = match is {
            Disruption::Normal => Some(NORMAL_EVERY),
            Disruption::Partial if self.nodes.len() > LARGE => Some(SECONDARY_EVERY),
            Disruption::Partial | Disruption::Full => None,
        };
        if every.is_some_and(|every| self.tainted_at.is_none_or(|at| now >= at + every))
            && let Some(node) = self
                .nodes
                .iter_mut()
                // The last: whose turn to be released is last as well.
                .rev()
                .find(|node| old(node) && node.tainted.is_none())
        {
            node.tainted = Some(now);
            self.tainted_at = Some(now);
        }
        for node in &mut self.nodes {
            node.evicted |= node.tainted.is_some_and(|at| now >= at + TOLERATION);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_brings_it_down_again_and_again_and_a_queue_does_not() {
        let limits = Limits {
            kubelets_per_second: 2.0,
            ..Limits::default()
        };
        let mut herd = ApiServer::new(limits.clone());
        (0..400).for_each(|_| herd.kubelet_starts());
        (0..600).for_each(|_| herd.second());
        assert!(herd.crashes > 5, "{herd:?}");
        assert_ne!(herd.reply(), Reply::After(limits.base_latency));

        let mut queue = ApiServer::new(limits.clone());
        for _ in 0..200 {
            queue.kubelet_starts();
            queue.kubelet_starts();
            queue.second();
        }
        assert_eq!((queue.crashes, queue.refusals), (0, 0));
        assert_eq!(queue.reply(), Reply::After(limits.base_latency));
    }

    /// The nodes whose pods are evicted in `seconds`, when the first `ready` of `nodes` renew their leases from the beginning.
    fn evicted(nodes: usize, ready: usize, seconds: u64) -> (usize, Disruption) {
        let mut controller = NodeLifecycle::new(nodes);
        controller.begin(0);
        for now in 0..seconds {
            (0..ready).for_each(|node| controller.renew(node, now));
            controller.second(now);
        }
        (controller.evicted(), controller.disruption())
    }

    #[test]
    fn a_few_dead_nodes_are_evicted_after_grace_and_toleration() {
        assert_eq!(evicted(100, 95, GRACE + TOLERATION), (0, Disruption::Normal));
        assert_eq!(evicted(100, 95, GRACE + TOLERATION + 1), (1, Disruption::Normal));
        assert_eq!(evicted(100, 95, GRACE + TOLERATION + 41), (5, Disruption::Normal));
    }

    #[test]
    fn a_zone_that_is_mostly_dark_is_evicted_slowly_or_not_at_all() {
        assert_eq!(
            evicted(100, 40, GRACE + TOLERATION + 101),
            (2, Disruption::Partial)
        );
        assert_eq!(
            evicted(50, 20, 3600),
            (0, Disruption::Partial),
            "small zones are left alone"
        );
        assert_eq!(evicted(100, 0, 3600), (0, Disruption::Full));
    }

    #[test]
    fn the_first_node_that_is_ready_starts_everybodys_time_anew() {
        let mut controller = NodeLifecycle::new(100);
        controller.begin(0);
        for now in 0..1000 {
            controller.second(now);
        }
        for now in 1000..1000 + GRACE {
            controller.renew(0, now);
            controller.second(now);
        }
        assert_eq!(controller.disruption(), Disruption::Normal);
        controller.second(1000 + GRACE);
        assert_eq!(controller.disruption(), Disruption::Partial);
    }
}
