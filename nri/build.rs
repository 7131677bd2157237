//! Compiles the interface definition, without protoc.

use std::error::Error;

const DEFINITION: &str = "proto/api.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={DEFINITION}");
    let files = protox::compile([DEFINITION], ["proto"])?;
    // Its comments are no Markdown.
    prost_build::Config::new().disable_comments(["."]).compile_fds(files)?;
    Ok(())
}
