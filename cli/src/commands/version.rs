//! `blackstart version`.

use serde::Serialize;

use super::Context;
use crate::failure::Failure;
use crate::output::table::Line;

#[derive(Serialize)]
struct Version {
    version: &'static str,
    protocol: &'static str,
}

pub(super) fn run(context: &mut Context<'_>) -> Result<(), Failure> {
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        protocol: "blackstart.v1",
    };
    let lines = |_| {
        vec![Line::new(format!(
            "blackstart {} (protocol {})",
            version.version, version.protocol
        ))]
    };
    Ok(context.output.object("Version", &version, lines)?)
}
