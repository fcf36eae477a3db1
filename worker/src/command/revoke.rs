//! `quicsand worker revoke`.

use clap::Args;
use quicsand::{ids::WorkerId, wire::members::WorkerName};

use super::{Failed, operator::Access, say};

#[derive(Debug, Args)]
#[command(after_long_help = "\
Sends a worker away and has its certificate not accepted any more; what it was running goes to others. The worker ends with a message that
says so. A token that it joined with is another matter: revoke that too if its bearer is not to join again.

Examples:
    quicsand worker revoke 3
    quicsand worker revoke 01234567012345670123456701234567")]
pub(super) struct Revoke {
    /// The worker's number, as `quicsand status` shows it, or its certificate's identity, as `quicsand status --json` does
    #[arg(value_name = "ID", value_parser = worker_name)]
    worker: WorkerName,
    #[command(flatten)]
    access: Access,
}

impl Revoke {
    pub(super) fn run(self) -> Result<(), Failed> {
        let (identity, connections) = self.access.connect()?.revoke_worker(self.worker)?;
        let what = match connections {
            0 => "is not here, and cannot come back with its certificate",
            _ => "was sent away, and cannot come back with its certificate",
        };
        let hint = format!(
            "worker {identity} {what}\nif whoever has it must not join again either, revoke the token that it came by: `quicsand token list`\n"
        );
        say(&mut std::io::stderr(), &hint);
        Ok(())
    }
}

fn worker_name(text: &str) -> Result<WorkerName, String> {
    let number = || text.parse().map(WorkerId).map(WorkerName::Number).ok();
    let name = text.parse().map(WorkerName::Identity).ok().or_else(number);
    name.ok_or_else(|| format!("`{text}` is neither a worker's number nor an identity of 32 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_named_by_number_or_identity() {
        assert_eq!(worker_name("7"), Ok(WorkerName::Number(WorkerId(7))));
        let digits = "01234567012345670123456701234567";
        assert_eq!(worker_name(digits), Ok(WorkerName::Identity(digits.parse().expect("hexadecimal"))));
        for text in ["", "-1", "seven", "0x7", "0123456701234567012345670123456g"] {
            assert!(worker_name(text).is_err(), "{text}");
        }
    }
}
