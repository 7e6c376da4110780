//! What was seen of the node's network.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// One look at a part of the network. A part that cannot be looked at sends nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkSignal {
    /// The way out.
    Path(PathSignal),
    /// Who can be reached.
    Reach(ReachSignal),
    /// The network configuration of pods.
    Cni(CniSignal),
    /// Whether a name is resolved.
    Dns(DnsSignal),
}

/// The way out: default routes, and the links that have, or had, them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PathSignal {
    /// The default routes of the main table, IPv4 first.
    pub routes: Vec<DefaultRoute>,
    /// A default route was there in this boot.
    pub had_route: bool,
    /// The interfaces of these, or, when there is none, of the last ones.
    pub links: Vec<Link>,
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DefaultRoute {
    /// Its next hop; `None` on a link without.
    pub gateway: Option<IpAddr>,
    /// Its interface.
    pub interface: String,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: LinkState,
}

/// How an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Up, with carrier.
    Carrier,
    /// Up, without carrier: cable, switch port, or the other end.
    NoCarrier,
    /// Set down.
    Down,
    /// Not there any more.
    Gone,
    /// Cannot be told.
    Unknown,
}

/// Who can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReachSignal {
    /// The coordinator; `None` when there is none, or it was not tried yet.
    pub coordinator: Option<bool>,
    /// Each configured peer; `None` when it could not be tried.
    pub peers: Vec<(SocketAddr, Option<bool>)>,
}

/// The network configuration of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CniSignal {
    /// Where it is.
    pub dir: PathBuf,
    /// What is there.
    pub found: CniFound,
}

/// What there is in the configuration directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CniFound {
    /// A configuration that can be used.
    Usable,
    /// No file of a configuration.
    Empty,
    /// Files, none of which can be used: the first, with what is wrong with it.
    Broken {
        /// Its name.
        file: String,
        /// For people.
        why: String,
    },
    /// The directory is not there.
    NoDirectory,
}

/// Whether a name is resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsSignal {
    /// Which.
    pub name: String,
    /// Why it is not, for people.
    pub resolved: Result<(), String>,
}
