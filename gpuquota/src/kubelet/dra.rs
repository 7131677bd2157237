//! placeholder
use crate::error::Error;
use std::process::ExitCode;
/// x
#[derive(clap::Args)]
pub struct Dra {}
impl Dra {
    pub fn run(self) -> Result<ExitCode, Error> {
        Ok(ExitCode::SUCCESS)
    }
}
