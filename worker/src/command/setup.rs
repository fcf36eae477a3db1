//! `quicsand setup`.

use clap::Args;
use quicsand::setup::{self, SetupError};

#[derive(Debug, Args)]
pub(super) struct Setup {
    /// Print the script instead of running it
    #[arg(long)]
    print: bool,
}

impl Setup {
    pub(super) fn run(&self) -> Result<(), SetupError> {
        if self.print {
            super::say(&mut std::io::stdout(), setup::SCRIPT);
            return Ok(());
        }
        setup::run()
    }
}
