//! What can go wrong, as the user sees it. Owns: the error types of the public API. Must not know: how anything runs.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{ids::Key, limits::Size};

/// The result of a quicsand operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a result cannot be had.
///
/// ```
/// # use quicsand::{Client, task};
/// # #[task]
/// # fn half(x: u32) -> Result<u32, String> { if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) } }
/// # fn main() -> quicsand::Result<()> {
/// # let client = Client::local();
/// use quicsand::{Error, TaskErrorKind};
///
/// match client.submit(half, 3).result() {
///     Ok(value) => println!("{value}"),
///     Err(Error::Task(error)) => assert_eq!((&error.kind, error.message.as_str()), (&TaskErrorKind::Returned, "3 is odd")),
///     Err(error) => return Err(error),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The call, or a call that it depends on, failed.
    #[error(transparent)]
    Task(#[from] Arc<TaskError>),
    /// The call was cancelled, by [`cancel`](crate::Future::cancel) or because a call it depends on was.
    #[error("the call {key} was cancelled")]
    Cancelled {
        /// The cancelled call.
        key: Key,
    },
    /// An argument or scattered value has no encoding.
    #[error("the argument cannot be encoded: {reason}")]
    Encode {
        /// What the value's `Serialize` said.
        reason: String,
    },
    /// A future was given to a client that did not make it.
    #[error("the future {key} belongs to another client; gather it there, and pass its value")]
    ForeignFuture {
        /// The future's key, at its own client.
        key: Key,
    },
    /// A result's bytes are no encoding of its type: program and module disagree.
    #[error("the result of {key} does not decode as {expected}: {reason}")]
    Decode {
        /// The call.
        key: Key,
        /// The result's type.
        expected: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A fleet could not be joined, or a cluster not started.
    #[error(transparent)]
    Connect(#[from] Arc<ConnectError>),
    /// The connection to the fleet is gone, and with it the calls that were not detached.
    #[error("the connection to the scheduler at {address} was lost: {reason}")]
    Disconnected {
        /// The scheduler's address.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// The connection to the fleet broke, and when it was there again, the scheduler did not know this client any more.
    #[error("the scheduler at {address} does not know this client any more; submit the calls again with a new client")]
    Forgotten {
        /// The scheduler's address.
        address: String,
    },
    /// A result could not be published, or what is published not be had.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The client was closed before the result was there.
    #[error("the client was closed")]
    Closed,
}

/// Why a program could not join a fleet or start a cluster.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The program was built without a module.
    #[error("this program carries no WebAssembly module: {reason}")]
    NoModule {
        /// Why not, and what to do.
        reason: String,
    },
    /// A task of the program is not in its module, or was built from other sources.
    #[error(
        "the module does not belong to this program: task `{task}` {difference}; build the module from the program's own sources (is QUICSAND_MODULE stale?)"
    )]
    ForeignModule {
        /// The task.
        task: String,
        /// What differs.
        difference: &'static str,
    },
    /// The bytes are no usable module.
    #[error("the module cannot be used: {reason}")]
    BadModule {
        /// What is wrong with it.
        reason: String,
    },
    /// The address does not parse or resolve.
    #[error("`{address}` is not an address: {reason}; write HOST:PORT")]
    Address {
        /// What was given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Nobody answers there.
    #[error("no scheduler answers at {address}: {reason}; is it running, and is UDP allowed on the way?")]
    Unreachable {
        /// The address.
        address: String,
        /// What the transport said.
        reason: String,
    },
    /// The token cannot be read, is missing, or is not accepted.
    #[error("the join token is not accepted: {reason}; `quicsand scheduler` prints valid ones, set QUICSAND_TOKEN to one")]
    Token {
        /// Why.
        reason: String,
    },
    /// The scheduler does not accept the token.
    #[error("the scheduler at {address} does not accept the join token: {why}; `quicsand token create` makes another")]
    TokenRefused {
        /// The address.
        address: String,
        /// Why.
        why: TokenRefusal,
    },
    /// The scheduler does not accept this peer's certificate, because it has expired, say.
    #[error("the scheduler at {address} does not accept the certificate: {reason}; join again with a token")]
    CertificateRefused {
        /// The address.
        address: String,
        /// What it said.
        reason: String,
    },
    /// An operator has revoked this peer's certificate.
    #[error("an operator revoked this {role}'s certificate for the scheduler at {address}; only a new token lets it in again")]
    Revoked {
        /// The address.
        address: String,
        /// What this peer was.
        role: &'static str,
    },
    /// Whoever answers is not the scheduler that the token names.
    #[error("the server at {address} is not the scheduler that the token was made for: {reason}")]
    Certificate {
        /// The address.
        address: String,
        /// What the handshake said.
        reason: String,
    },
    /// The peer speaks other versions of the protocol.
    #[error("protocol version {ours} is spoken here, version {theirs} at {address}; update the older of the two")]
    Version {
        /// The address.
        address: String,
        /// Our version.
        ours: u32,
        /// The peer's.
        theirs: u32,
    },
    /// The scheduler does not know the client that wants to go on, or not any more.
    #[error("the scheduler at {address} does not know this client any more; connect a new one")]
    Forgotten {
        /// The address.
        address: String,
    },
    /// The scheduler refused this peer.
    #[error("the scheduler at {address} refused: {reason}")]
    Refused {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// This build or platform cannot do it.
    #[error("{what} is not possible here: {reason}")]
    Unsupported {
        /// What was asked.
        what: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// An environment variable or option has no usable value.
    #[error("{name}: {reason}")]
    Setting {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A scheduler's journal cannot be used, or not any more.
    #[error("the journal in {directory} cannot be used: {reason}")]
    Journal {
        /// Where it is.
        directory: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// A process or thread of the cluster could not be started.
    #[error("{what} could not be started: {reason}")]
    Start {
        /// What.
        what: String,
        /// Why.
        reason: String,
    },
}

/// Why a result cannot be published, or what is published cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PublishError {
    /// It is no name.
    #[error("a name has 1 to {bytes} bytes and no control characters; choose another one")]
    Name {
        /// How long it may be.
        bytes: u64,
    },
    /// The name stands for something else.
    #[error("`{name}` is published already; unpublish it, or choose another name")]
    Taken {
        /// The name.
        name: String,
    },
    /// The client has too many names.
    #[error("a client publishes at most {limit} names at a time; unpublish some")]
    TooMany {
        /// How many it may have.
        limit: u64,
    },
    /// What is to be published is not kept any more.
    #[error("what is to be published as `{name}` was released; publish it while there is a future of it")]
    Released {
        /// The name.
        name: String,
    },
    /// Nothing has that name.
    #[error("nothing is published as `{name}`; {}", listed(names, *more))]
    Unknown {
        /// The name.
        name: String,
        /// Some that there are.
        names: Vec<String>,
        /// How many more there are.
        more: u64,
    },
    /// It is published as another type.
    #[error("`{name}` is published as `{published}` and was asked for as `{asked}`; ask for the type that it is")]
    Type {
        /// The name.
        name: String,
        /// The publisher's type.
        published: String,
        /// The asker's.
        asked: String,
    },
}

fn listed(names: &[String], more: u64) -> String {
    match (names, more) {
        ([], _) => "nothing is published at all".to_owned(),
        (names, 0) => format!("what is: {}", names.join(", ")),
        (names, more) => format!("what is: {}, and {more} more", names.join(", ")),
    }
}

/// Why a scheduler does not accept a join token. Only who has a token's secret hears more than that it is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// It never was this scheduler's, or not for this role, or was forgotten long after its end.
    #[error("it is not known there")]
    Unknown,
    /// Its time is over.
    #[error("it has expired")]
    Expired,
    /// It was good for one use.
    #[error("it was good for one use and has been used")]
    Used,
    /// An operator revoked it.
    #[error("it was revoked")]
    Revoked,
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

/// How a call ended when it did not end well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// The task returned `Err`.
    Returned,
    /// The task panicked.
    Panicked,
    /// The sandbox stopped it: an illegal instruction, a stack overflow, an access out of bounds.
    Trapped,
    /// It asked for more memory than it may have.
    MemoryLimit {
        /// The limit in force, in bytes.
        limit: u64,
        /// What it would have had, in bytes.
        peak: u64,
    },
    /// It ran longer than it may.
    TimeLimit {
        /// The limit in force, in milliseconds.
        limit_ms: u64,
    },
    /// Its result is larger than results may be.
    OutputLimit {
        /// The limit in force, in bytes.
        limit: u64,
    },
    /// An argument's bytes are no encoding of its type, or do not fit into the guest's.
    Argument {
        /// The parameter's name.
        name: String,
    },
    /// The result has no encoding.
    Result,
    /// The module has no such task.
    UnknownTask,
    /// The module was refused by the sandbox.
    Module,
    /// Workers died while this call, alone, was running on them.
    Poisonous {
        /// How many.
        deaths: u32,
    },
    /// A value that nobody can compute again is gone with the workers that held it.
    DataLost,
    /// Something that the worker or scheduler could not do (its disk is full, say); not the task's fault.
    Worker,
}

/// A failed call: what failed, where, and what it left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// How it failed.
    pub kind: TaskErrorKind,
    /// The task's name.
    pub task: String,
    /// The call that failed first: for a dependent that never ran, its cause.
    pub key: Key,
    /// The error, panic or trap message. For a limit: whose it was, the task's or the worker's owner's, and what the other one was.
    pub message: String,
    /// `file:line:column` of a panic.
    pub location: Option<String>,
    /// Frames, innermost first, one a line; empty where there are none.
    pub backtrace: String,
    /// The last lines of what the item printed.
    pub log: String,
    /// Which worker it ran on (name and architecture); empty in-process.
    pub worker: String,
    /// How often it was tried.
    pub attempts: u32,
}

impl TaskError {
    /// An error with a kind and message, and the rest empty.
    #[must_use]
    pub fn new(kind: TaskErrorKind, task: impl Into<String>, key: Key, message: impl Into<String>) -> Self {
        Self {
            kind,
            task: task.into(),
            key,
            message: message.into(),
            location: None,
            backtrace: String::new(),
            log: String::new(),
            worker: String::new(),
            attempts: 1,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task `{}`", self.task)?;
        if self.key.index > 0 {
            write!(f, ", item {},", self.key.index)?;
        }
        match &self.kind {
            TaskErrorKind::Returned => write!(f, " failed: {}", self.message)?,
            TaskErrorKind::Panicked => write!(f, " panicked: {}", self.message)?,
            TaskErrorKind::Trapped => write!(f, " was stopped by the sandbox: {}", self.message)?,
            TaskErrorKind::MemoryLimit { limit, peak } => {
                write!(f, " wanted {} of memory and may have {}: {}", Size(*peak), Size(*limit), self.message)?;
            }
            TaskErrorKind::TimeLimit { limit_ms } => {
                write!(f, " ran past its limit of {limit_ms} ms: {}", self.message)?;
            }
            TaskErrorKind::OutputLimit { limit } => {
                write!(f, " returned more than the {} it may: {}", Size(*limit), self.message)?;
            }
            TaskErrorKind::Argument { name } => {
                write!(f, " could not read its argument `{name}`: {}", self.message)?;
            }
            TaskErrorKind::Result => write!(f, " returned what cannot be encoded: {}", self.message)?,
            TaskErrorKind::UnknownTask => write!(f, " is not in the program's module: {}", self.message)?,
            TaskErrorKind::Module => write!(f, " cannot run, its module was refused: {}", self.message)?,
            TaskErrorKind::Poisonous { deaths } => {
                write!(f, " is poisonous: {deaths} workers died while it ran alone on them")?;
            }
            TaskErrorKind::DataLost => write!(f, " cannot run: {}", self.message)?,
            TaskErrorKind::Worker => write!(f, " could not be run: {}", self.message)?,
        }
        if let Some(location) = &self.location {
            write!(f, " (at {location})")?;
        }
        if self.attempts > 1 {
            write!(f, " after {} attempts", self.attempts)?;
        }
        if !self.worker.is_empty() {
            write!(f, " on {}", self.worker)?;
        }
        for (title, text) in [("backtrace", &self.backtrace), ("printed", &self.log)] {
            if !text.is_empty() {
                write!(f, "\n{title}:")?;
                text.lines().try_for_each(|line| write!(f, "\n    {line}"))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for TaskError {}
