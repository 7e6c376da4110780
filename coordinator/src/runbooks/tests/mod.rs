//! Runbooks over a double of the API server that speaks the real protocol, with simulated machines and agents.

mod agents;
mod bed;
mod control_plane;
mod crash;
mod etcd;
mod etcd_newcomer;
mod maintenance;
mod network_loss;
mod node_down;
mod overload;
mod plans;
mod shortage;
mod storm;
mod triggers;
mod verify;

mod heal;
mod heal_crash;
mod node_component;
mod rights;
mod scale;
mod workload_heal;
