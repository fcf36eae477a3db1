//! Why a journal cannot be used. Must not know: what follows.

use std::io;

use thiserror::Error;

use super::store::FORMAT;
use crate::scheduler::RestoreError;

/// Why a journal cannot be used; its text says what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JournalFault {
    /// Another process has it.
    #[error("another scheduler uses it; stop that one, or name another directory")]
    InUse,
    /// Another version of quicsand wrote it.
    #[error(
        "it has format {theirs}, and format {FORMAT} is read here; use the version of quicsand that wrote it, or an empty directory"
    )]
    Version {
        /// Its format.
        theirs: u32,
    },
    /// Another cluster's scheduler wrote it.
    #[error(
        "it belongs to another cluster; start the scheduler with the state directory (--state) that it was written with, or with an \
         empty directory for the journal"
    )]
    Cluster,
    /// It was changed by something else, or the disk lost some of it.
    #[error("it is damaged ({what}); move it away to start without what it kept")]
    Damaged {
        /// What is wrong.
        what: String,
    },
    /// The disk does not do what it should.
    #[error("{0}; see that the disk works and has room")]
    Io(#[from] io::Error),
}

impl JournalFault {
    pub(super) fn damaged(what: impl ToString) -> Self {
        Self::Damaged { what: what.to_string() }
    }
}

impl From<RestoreError> for JournalFault {
    fn from(error: RestoreError) -> Self {
        Self::damaged(error)
    }
}

impl From<postcard::Error> for JournalFault {
    fn from(error: postcard::Error) -> Self {
        Self::damaged(format!("a fact cannot be read: {error}"))
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for JournalFault {
            fn from(error: $error) -> Self {
                Self::of(error.into())
            }
        })*
    };
}

from_redb!(
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::SetDurabilityError
);

impl JournalFault {
    fn of(error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            // A file that is too short is damaged, not the disk.
            redb::Error::Io(error) if !matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) => {
                Self::Io(error)
            }
            other => Self::damaged(other),
        }
    }
}
