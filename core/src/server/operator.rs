//! Operators: peers that ask and manage, and take no seat. Owns: who may ask what, and the order of answers. Must not know: how what
//! they ask for is found out.

use std::{sync::Arc, time::Duration};

use quinn::{Connection, RecvStream, SendStream};
use tokio::time::timeout;

use super::{hub::Hub, logs, members};
use crate::{
    net::{
        control::{ControlError, decode_one, read_frame, write_message},
        transport::Close,
    },
    wire::{
        HelloError, LogQuery, Role, Welcome,
        operator::{FromOperator, LISTED_ITEMS, LISTED_PEERS, OperatorRefusal, REQUEST_BYTES, Status, ToOperator},
    },
};

/// Operators that are taken at a time: each is a person's command, and short.
pub(super) const OPERATORS: usize = 64;
/// One that asks nothing for so long makes room for others.
const IDLE: Duration = Duration::from_secs(60);

/// Answers an operator's requests, one by one, until it leaves or breaks the protocol.
pub(super) async fn attend(hub: Arc<Hub>, connection: &Connection, role: Role, mut send: SendStream, mut recv: RecvStream) {
    let ended = converse(&hub, role, &mut send, &mut recv).await;
    match ended {
        Ok(()) => Close::Done.close(connection, ""),
        Err(error) if error.is_violation() => {
            tracing::warn!(%error, "an operator broke the protocol");
            let refusal = OperatorRefusal::Malformed { reason: error.to_string() };
            if write_message(&mut send, &Err::<ToOperator, _>(refusal)).await.is_ok() {
                // An error means that it has ended already.
                let _ = send.finish();
                crate::net::control::part(connection, Close::Protocol, &error.to_string()).await;
            }
        }
        Err(error) => {
            tracing::debug!(%error, "an operator's connection broke");
            Close::Done.close(connection, "");
        }
    }
}

async fn converse(hub: &Arc<Hub>, role: Role, send: &mut SendStream, recv: &mut RecvStream) -> Result<(), ControlError> {
    let welcome = Welcome::Operator { version: env!("CARGO_PKG_VERSION").to_owned() };
    write_message(send, &Ok::<_, HelloError>(welcome)).await?;
    loop {
        let frame = match timeout(IDLE, read_frame(recv, REQUEST_BYTES)).await {
            Ok(frame) => frame?,
            Err(_) => return Ok(()),
        };
        let request: FromOperator = decode_one(&frame)?;
        let answer = match may(role, &request) {
            true => answer(hub, request).await,
            false => Err(OperatorRefusal::Role),
        };
        write_message(send, &answer).await?;
    }
}

/// Operators may ask for everything, clients for how things stand.
fn may(role: Role, request: &FromOperator) -> bool {
    role == Role::Operator || matches!(request, FromOperator::Status)
}

async fn answer(hub: &Arc<Hub>, request: FromOperator) -> Result<ToOperator, OperatorRefusal> {
    Ok(match request {
        FromOperator::Status => ToOperator::Status(bounded(hub.status())),
        FromOperator::Tasks { limit } => ToOperator::Tasks(hub.tasks(listed(limit))),
        FromOperator::Failures { limit } => ToOperator::Failures(hub.failures(listed(limit))),
        FromOperator::Cancel { span } => {
            let items = hub.cancel(span)?;
            // What an operator was told is so stays so.
            hub.flushed().await;
            tracing::info!(entry = ?span.entry, first = span.first, items, "an operator cancelled calls");
            ToOperator::Cancelled { items }
        }
        FromOperator::Logs { worker, span, limit, after } => {
            let mut workers = hub.workers();
            if let Some(worker) = worker {
                workers.retain(|&id| id == worker);
                if workers.is_empty() {
                    return Err(OperatorRefusal::UnknownWorker { worker });
                }
            }
            let limit = u32::try_from(listed(limit)).unwrap_or(u32::MAX);
            ToOperator::Logs(logs::gather(hub, workers, LogQuery { span, after: 0, limit }, &after).await)
        }
        FromOperator::Members(request) => ToOperator::Members(members::answer(hub, request).await?),
    })
}

fn listed(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX).min(LISTED_ITEMS)
}

/// As much of a status as an answer holds.
fn bounded(mut status: Status) -> Status {
    let lists = [status.workers.len(), status.clients.len(), status.modules.len()];
    status.unlisted = lists.iter().map(|len| len.saturating_sub(LISTED_PEERS) as u64).sum();
    status.workers.truncate(LISTED_PEERS);
    status.clients.truncate(LISTED_PEERS);
    status.modules.truncate(LISTED_PEERS);
    status
}
