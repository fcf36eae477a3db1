//! `quicsand setup`.

use clap::Args;
use quicsand::setup::{self, SetupError};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Makes ready what compiles tasks: the target wasm32-wasip1 of the Rust compiler, for the machine on which programs are built. Workers do
not need it.

Examples:
    quicsand setup
    quicsand setup --print | less")]
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
