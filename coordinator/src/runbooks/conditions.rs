//! What agents find wrong on their nodes, for runbooks: a way to look, not a copy.

use std::fmt;
use std::sync::Arc;

use crate::fleet::message::Condition;
use crate::inventory::NodeName;

type Looks = dyn Fn(&NodeName) -> Vec<Condition> + Send + Sync;

/// Looks at what stood at a node's last report.
#[derive(Clone)]
pub struct Conditions(Arc<Looks>);

impl Conditions {
    /// By this.
    pub fn new(look: impl Fn(&NodeName) -> Vec<Condition> + Send + Sync + 'static) -> Self {
        Self(Arc::new(look))
    }

    /// What stands on a node.
    pub fn of(&self, node: &NodeName) -> Vec<Condition> {
        (self.0)(node)
    }
}

impl Default for Conditions {
    /// Nothing anywhere.
    fn default() -> Self {
        Self::new(|_| Vec::new())
    }
}

impl fmt::Debug for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conditions")
    }
}
