//! What can be asked of a running agent on its own node, with nothing else up: no coordinator, no network, no certificate.
//!
//! ```text
//!  blackstart-agent status ──ask──► runtime_dir/agent.sock ──serve──► Window: picture, ledger, link ──► answer
//!                           one line of JSON                                   one document of JSON
//! ```
//!
//! Two questions change something: a hold (or silence) is made or lifted here, which only ever keeps the agent from acting. Nothing that is
//! asked makes it act. The socket is for root alone, by its mode and by the kernel's word on
//! who is at the other end. One question a connection, of bounded size, answered by a deadline, a few at a time.
//!
//! | module | story |
//! |---|---|
//! | [`answer`] | what can be answered, as it stands in JSON |
//! | [`window`] | how an answer is drawn from what the agent knows |
//! | `hold` | what is held on the node itself |
//! | [`serve`](serve()) | the agent's end of the socket |
//! | [`ask`](ask()) | the other end |

pub mod answer;
mod ask;
mod hold;
mod serve;
#[cfg(test)]
pub(crate) mod tests;
pub mod window;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use ask::{AskError, ask};
pub use serve::serve;

/// Longer questions are not read, bytes.
const MAX_QUESTION: u64 = 4 << 10;
/// Longer answers are not given, nor read, bytes.
const MAX_ANSWER: u64 = 8 << 20;
/// So many connections are served at a time; further ones wait for their turn.
const AT_ONCE: usize = 4;
/// A question is asked, answered, and the answer taken within this.
const DEADLINE: Duration = Duration::from_secs(5);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    /// How the agent and its node are.
    Status,
    /// What stands.
    Conditions,
    /// What was done.
    Remedies {
        /// The newest so many.
        last: usize,
    },
    /// What a condition means, with the settings in force.
    Explain {
        /// Its name.
        condition: String,
    },
    /// Hold a remedy, every remedy, or silence the node.
    Hold {
        /// The remedy's name; absent: every one.
        remedy: Option<String>,
        /// Silence the node.
        silence: bool,
        /// Who asks.
        by: String,
        /// Why.
        reason: String,
        /// It ends by itself after this.
        for_ms: Option<u64>,
    },
    /// Lift what was held on this node.
    Lift {
        /// The remedy's name; absent: every one.
        remedy: Option<String>,
        /// The node's silence.
        silence: bool,
    },
}
