//! `quicsand cancel`.

use clap::Args;
use quicsand::net::OperatorError;

use super::{
    Failed,
    keys::{self, KeyArgument},
    operator::Access,
    report::CancelReport,
    say, say_json,
    text::many,
};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Cancels calls as their client could: what waits or is queued is never run, what runs is stopped, and what needs a cancelled result is
cancelled with it. Their futures end as cancelled. Items that have ended stay as they are. A whole map that is still open is cancelled
with all items that are to come.

KEY is what `quicsand tasks` shows: 3.17 for a call or a whole map, 3.17[42] for one item of a map, 3.17[0..10] for ten of them.

The exit code is 1 if one of the keys does not exist; the others are cancelled all the same.

Examples:
    quicsand cancel 3.17
    quicsand cancel '3.17[42]' 3.18")]
pub(super) struct Cancel {
    /// What to cancel, as `quicsand tasks` shows it
    #[arg(required = true, value_name = "KEY", value_parser = keys::key)]
    keys: Vec<KeyArgument>,
    #[command(flatten)]
    access: Access,
    /// Print one JSON object a key
    #[arg(long)]
    json: bool,
}

impl Cancel {
    pub(super) fn run(self) -> Result<(), Failed> {
        let mut operator = self.access.connect()?;
        let mut failures = 0;
        for key in &self.keys {
            let (items, error) = match operator.cancel(key.0) {
                Ok(items) => (items, None),
                Err(OperatorError::Refused(refusal)) => (0, Some(refusal.to_string())),
                Err(error) => return Err(error.into()),
            };
            failures += u64::from(error.is_some());
            if self.json {
                say_json(&CancelReport { key: key.to_string(), items, error });
                continue;
            }
            match error {
                Some(error) => say(&mut std::io::stderr(), &format!("quicsand: {key}: {error}\n")),
                None if items == 0 => say(&mut std::io::stdout(), &format!("{key}: nothing is left to cancel\n")),
                None => say(&mut std::io::stdout(), &format!("{key}: cancelled {}\n", many(items, "item", "items"))),
            }
        }
        if failures > 0 { Err(Failed::Said) } else { Ok(()) }
    }
}
