//! Compiles the interface definitions, without protoc.

use std::error::Error;

const DEFINITIONS: [&str; 4] = ["device_plugin", "dra", "plugin_registration", "pod_resources"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = DEFINITIONS.map(|name| format!("proto/{name}.proto"));
    prost_build::Config::new().compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}
