//! `quicsand completions`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Arguments, say};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Prints a script with which a shell completes the command's arguments.

Examples:
    quicsand completions bash > ~/.local/share/bash-completion/completions/quicsand
    quicsand completions zsh > ~/.zfunc/_quicsand        where ~/.zfunc is in $fpath
    quicsand completions fish > ~/.config/fish/completions/quicsand.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "quicsand", &mut script);
        say(&mut std::io::stdout(), &String::from_utf8_lossy(&script));
    }
}
