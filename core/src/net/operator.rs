//! The operator's end of the network: asks, and waits for the answer. Must not know: what is done with it.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use quinn::{Connection, Endpoint, RecvStream, SendStream};
use thiserror::Error;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{
    control::{ControlError, read_message, write_message},
    join::{self, Approached, Greeted, start_failed, wrong_welcome},
    pass::Pass,
    transport::Close,
};
use crate::{
    ConnectError, abi,
    codec::Span,
    ids::{Identity, TokenId, WorkerId},
    wire::{
        Hello, MAX_FRAME, PROTOCOL, Role, Welcome,
        members::{MembersReply, MembersRequest, TokenInfo, TokenRequest, WorkerName},
        operator::{Failures, FromOperator, Logs, OperatorRefusal, Status, Tasks, ToOperator},
    },
};

/// A scheduler that has not answered by then will not.
const ANSWER: Duration = Duration::from_secs(30);
/// How long sockets may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);

/// A question that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The scheduler does not do that for this peer.
    #[error("the scheduler refused: {0}")]
    Refused(#[from] OperatorRefusal),
    /// The answer belongs to another question.
    #[error("the scheduler answered another question")]
    Answer,
    /// No answer came.
    #[error("the scheduler did not answer: {reason}")]
    Lost {
        /// What the transport said.
        reason: String,
    },
}

/// A connection to a scheduler, for looking on and managing. Its methods block, and are not for async code; dropping it ends it.
#[derive(Debug)]
pub struct Operator {
    runtime: Option<Runtime>,
    endpoint: Endpoint,
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    version: String,
}

impl Operator {
    /// Connects to the scheduler at that `HOST:PORT` with the text of an operator's token, or of a client's, which allows less.
    ///
    /// # Errors
    /// Any of [`ConnectError`]'s network variants.
    pub fn connect(address: &str, token: &str) -> Result<Self, ConnectError> {
        // Not kept: an operator's right should not outlive the command by more than its token does.
        let pass = Pass::new(address, &[Role::Operator, Role::Client], Some(token), None, SystemTime::now())?;
        // With a thread of its own, so that the connection lives between questions.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("quicsand-operator")
            .enable_all()
            .build()
            .map_err(start_failed)?;
        let greeted = runtime.block_on(join::enter(&pass, |_| {
            let name = format!("operator/{}", std::process::id());
            Ok(Hello { protocol: PROTOCOL, abi: abi::VERSION, name, worker: None, module: None, session: None, operator: true })
        }))?;
        let Greeted { approached: Approached { endpoint, address, connection, .. }, send, recv, welcome } = greeted;
        let Welcome::Operator { version } = welcome else { return Err(wrong_welcome(&address)) };
        Ok(Self { runtime: Some(runtime), endpoint, connection, send, recv, version })
    }

    /// Version of the scheduler's program.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the scheduler was found.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// How things stand.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn status(&mut self) -> Result<Status, OperatorError> {
        match self.ask(&FromOperator::Status)? {
            ToOperator::Status(status) => Ok(status),
            _ => Err(OperatorError::Answer),
        }
    }

    /// The calls and maps that there are, at most `limit` of them.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn tasks(&mut self, limit: u32) -> Result<Tasks, OperatorError> {
        match self.ask(&FromOperator::Tasks { limit })? {
            ToOperator::Tasks(tasks) => Ok(tasks),
            _ => Err(OperatorError::Answer),
        }
    }

    /// What failed lately, at most `limit` of it.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn failures(&mut self, limit: u32) -> Result<Failures, OperatorError> {
        match self.ask(&FromOperator::Failures { limit })? {
            ToOperator::Failures(failures) => Ok(failures),
            _ => Err(OperatorError::Answer),
        }
    }

    /// Cancels these items, as their client could, and gives the number of those that had not ended. A span from 0 to the last number
    /// stands for all of an entry, to come or not.
    ///
    /// # Errors
    /// [`OperatorError::Refused`] when there are no such items; when there is no answer.
    pub fn cancel(&mut self, span: Span) -> Result<u64, OperatorError> {
        match self.ask(&FromOperator::Cancel { span })? {
            ToOperator::Cancelled { items } => Ok(items),
            _ => Err(OperatorError::Answer),
        }
    }

    /// The last `limit` lines, at most, that tasks printed: on that worker only if one is given, of that span's items only likewise; of
    /// the workers in `after`, only lines with a greater number.
    ///
    /// # Errors
    /// [`OperatorError::Refused`] when there is no such worker; when there is no answer.
    pub fn logs(
        &mut self,
        worker: Option<WorkerId>,
        span: Option<Span>,
        limit: u32,
        after: Vec<(WorkerId, u64)>,
    ) -> Result<Logs, OperatorError> {
        match self.ask(&FromOperator::Logs { worker, span, limit, after })? {
            ToOperator::Logs(logs) => Ok(logs),
            _ => Err(OperatorError::Answer),
        }
    }

    /// Has a token made, and gives its text. The scheduler keeps no more of it than what is needed to know it again.
    ///
    /// # Errors
    /// When there is no answer, or the scheduler could not save it.
    pub fn create_token(&mut self, request: TokenRequest) -> Result<String, OperatorError> {
        match self.ask_members(MembersRequest::CreateToken(request))? {
            MembersReply::Token(text) => Ok(text),
            _ => Err(OperatorError::Answer),
        }
    }

    /// The cluster's tokens, the oldest first, without their secrets.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn tokens(&mut self) -> Result<Vec<TokenInfo>, OperatorError> {
        match self.ask_members(MembersRequest::ListTokens)? {
            MembersReply::Tokens(tokens) => Ok(tokens),
            _ => Err(OperatorError::Answer),
        }
    }

    /// Has tokens not accepted any more, and gives those that the scheduler does not know. Whoever joined with one stays.
    ///
    /// # Errors
    /// When there is no answer, or the scheduler could not save it.
    pub fn revoke_tokens(&mut self, ids: Vec<TokenId>) -> Result<Vec<TokenId>, OperatorError> {
        match self.ask_members(MembersRequest::RevokeTokens { ids })? {
            MembersReply::TokensRevoked { unknown } => Ok(unknown),
            _ => Err(OperatorError::Answer),
        }
    }

    /// Has a worker's certificate not accepted any more, and the worker sent away. Gives its identity, and how many connections ended.
    ///
    /// # Errors
    /// When there is no answer, no worker of that number, or the scheduler could not save it.
    pub fn revoke_worker(&mut self, name: WorkerName) -> Result<(Identity, u64), OperatorError> {
        match self.ask_members(MembersRequest::RevokeWorker(name))? {
            MembersReply::WorkerRevoked { identity, connections } => Ok((identity, connections)),
            _ => Err(OperatorError::Answer),
        }
    }

    fn ask_members(&mut self, request: MembersRequest) -> Result<MembersReply, OperatorError> {
        match self.ask(&FromOperator::Members(request))? {
            ToOperator::Members(reply) => Ok(reply),
            _ => Err(OperatorError::Answer),
        }
    }

    /// Asks one thing.
    fn ask(&mut self, request: &FromOperator) -> Result<ToOperator, OperatorError> {
        let Self { runtime: Some(runtime), send, recv, .. } = self else {
            return Err(OperatorError::Lost { reason: "it was closed".to_owned() });
        };
        let asking = async {
            write_message(send, request).await?;
            read_message::<Result<ToOperator, OperatorRefusal>>(recv, MAX_FRAME).await
        };
        let answered = runtime.block_on(async { timeout(ANSWER, asking).await });
        match answered {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(error)) => Err(self.lost(&error)),
            Err(_) => {
                // What comes late would be taken for the answer to the next question.
                Close::Stalled.close(&self.connection, "");
                Err(OperatorError::Lost { reason: format!("nothing came for {} s", ANSWER.as_secs()) })
            }
        }
    }

    /// The reason that the connection was closed for says more than the stream's.
    fn lost(&self, error: &ControlError) -> OperatorError {
        let reason = self.connection.close_reason().map_or_else(|| error.to_string(), |reason| reason.to_string());
        OperatorError::Lost { reason }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        Close::Done.close(&self.connection, "");
        if let Some(runtime) = self.runtime.take() {
            // A peer that is gone does not answer, which is no reason to wait.
            let _ = runtime.block_on(async { timeout(FAREWELL, self.endpoint.wait_idle()).await });
            // Not to wait for: a runtime that is dropped inside of another one must not block.
            runtime.shutdown_background();
        }
    }
}
