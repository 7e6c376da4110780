//! The whole cold start in simulated time: real decisions, real executor and journal, real rules of agents; simulated nodes, disks,
//! network and clocks. Everything that happens comes from one seed, and a seed repeats itself to the last line.
//!
//! ```text
//!  seed ─► script: fleet, policy, misfortunes ─► world: one queue of events ─┬─► node, agent   gate, orders, ledger
//!                                                     ▲                      ├─► lines         slow, cut, doubled
//!                                                     │                      └─► coordinator   executor on a store that crashes
//!                                                     └── laws: after every event, by what is true
//! ```
//!
//! | module | story |
//! |---|---|
//! | `script` | what a seed decides before anything happens |
//! | `world` | the queue of events, and simulated time |
//! | `strokes` | misfortunes, operators |
//! | `lives` | coordinators that come and go |
//! | `truth` | power, gates and kubelets; what is true of them |
//! | `node`, `agent` | a node; what its agent does |
//! | `lines` | connections |
//! | `coordinator`, `store` | one process, and its disk |
//! | `laws` | what must never be seen |
//! | [`scale`] | a large fleet, against an API server that can be overwhelmed |
//! | `mutations` | deliberate breaks that the laws have to find |
//! | `trace` | the hash of everything, and the last lines |

mod agent;
mod coordinator;
mod laws;
mod lines;
mod lives;
mod mutations;
mod node;
pub mod scale;
mod script;
mod store;
mod strokes;
mod trace;
mod truth;
mod world;

use std::io;

pub use laws::{Law, Violation};
pub use mutations::Mutation;

/// Milliseconds of simulated time since the beginning.
type Ms = u64;

/// How the simulation of one seed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which seed.
    pub seed: u64,
    /// The first law that was broken, if one was.
    pub violation: Option<Violation>,
    /// Of everything that happened.
    pub hash: u64,
    /// How many lines the trace has.
    pub lines: u64,
    /// How long it was, in simulated milliseconds.
    pub simulated_ms: u64,
    /// The last lines of the trace, or all of them.
    pub trace: Vec<String>,
}

/// Simulates one seed.
///
/// # Errors
/// No runtime can be made.
pub fn simulate(seed: u64, mutation: Option<Mutation>, keep_all: bool) -> io::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime.block_on(async {
        let mut world = world::World::new(seed, mutation, keep_all);
        world.run().await;
        Outcome {
            seed,
            violation: world.bench.found.take(),
            hash: world.trace.hash(),
            lines: world.trace.lines(),
            simulated_ms: world.now,
            trace: world.trace.into_last(),
        }
    }))
}
