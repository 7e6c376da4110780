//! Compiles `proto/blackstart/v1/*.proto` with protox, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(
        [
            "blackstart/v1/types.proto",
            "blackstart/v1/agent.proto",
            "blackstart/v1/fleet.proto",
            "blackstart/v1/runbook.proto",
            "blackstart/v1/enrolment.proto",
            "blackstart/v1/audit.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .codec_path("crate::codec::SmallBuffers")
        .compile_fds(files)?;
    Ok(())
}
