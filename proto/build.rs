//! Compiles `proto/blackstart/v1/*.proto`, and what is spoken of etcd's API, with protox, so that no `protoc` is needed. Beside the code it writes
//! the descriptors of the former, by which a coordinator tells what it can be asked.

use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=etcd");
    let files = protox::compile(
        [
            "blackstart/v1/types.proto",
            "blackstart/v1/agent.proto",
            "blackstart/v1/fleet.proto",
            "blackstart/v1/runbook.proto",
            "blackstart/v1/enrolment.proto",
            "blackstart/v1/audit.proto",
            "blackstart/v1/etcd.proto",
            "blackstart/v1/control_plane.proto",
        ],
        ["proto"],
    )?;
    let mut described = files.clone();
    for file in &mut described.file {
        // Comments and places in the text: most of it, and nobody is told them.
        file.source_code_info = None;
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("blackstart.v1.bin"), described.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::SmallBuffers")
        // Much larger than all else that an agent says, and seldom said.
        .boxed(".blackstart.v1.EtcdAnswer.body.report")
        .compile_fds(files)?;
    let etcd = protox::compile(["etcd.proto"], ["etcd"])?;
    tonic_prost_build::configure().compile_fds(etcd)?;
    Ok(())
}
