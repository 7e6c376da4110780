//! One file a source; each turns the outside world into typed signals.

pub mod beat;
pub mod certificates;
pub mod cgroup;
pub mod clock;
pub mod disk;
mod follow;
pub mod holders;
pub mod kernel;
pub mod load;
pub mod logs;
pub mod memory;
pub mod mounts;
pub mod network;
pub mod pleg;
pub mod probe;
mod proc_file;
pub(crate) mod psi;
mod rate;
pub mod runtime;
pub mod static_pods;
pub mod unit_memory;
mod walk;
