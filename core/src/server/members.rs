//! Operators' requests about who may join, and who may stay. Must not know: how tokens and certificates are checked.

use std::{io, sync::Arc, time::SystemTime};

use super::hub::Hub;
use crate::{
    ids::Identity,
    net::{control, transport::Close},
    wire::{
        members::{MembersReply, MembersRequest, NOTE_BYTES, TokenRequest, WorkerName},
        operator::OperatorRefusal,
    },
};

/// Does what is asked for. Dropping the future does not undo it.
pub(super) async fn answer(hub: &Arc<Hub>, request: MembersRequest) -> Result<MembersReply, OperatorRefusal> {
    let now = SystemTime::now();
    match request {
        MembersRequest::CreateToken(request) => {
            if request.note.len() > NOTE_BYTES {
                return Err(failed(format!("a token's note has at most {NOTE_BYTES} bytes")));
            }
            let TokenRequest { role, once, .. } = request;
            let token = aside(hub, move |hub| hub.ca().create_token(request, now)).await?;
            tracing::info!(token = %token.id(), ?role, once, "a token was made");
            Ok(MembersReply::Token(token.to_string()))
        }
        MembersRequest::ListTokens => Ok(MembersReply::Tokens(hub.ca().list_tokens(now))),
        MembersRequest::RevokeTokens { ids } => {
            tracing::info!(?ids, "tokens are revoked");
            let unknown = aside(hub, move |hub| hub.ca().revoke_tokens(&ids, now)).await?;
            Ok(MembersReply::TokensRevoked { unknown })
        }
        MembersRequest::RevokeWorker(name) => {
            let identity = match name {
                WorkerName::Identity(identity) => identity,
                WorkerName::Number(worker) => hub.identity(worker).ok_or(OperatorRefusal::UnknownWorker { worker })?,
            };
            revoke(hub, identity, now).await
        }
    }
}

/// No new connection of that identity is accepted first, and then those that there are end.
async fn revoke(hub: &Arc<Hub>, identity: Identity, now: SystemTime) -> Result<MembersReply, OperatorRefusal> {
    aside(hub, move |hub| hub.ca().revoke(identity, now)).await?;
    let connections = hub.expel(identity);
    tracing::info!(%identity, connections = connections.len(), "a worker was revoked");
    let count = connections.len() as u64;
    for connection in connections {
        // It has a moment to read why.
        tokio::spawn(async move { control::part(&connection, Close::Refused, "its certificate was revoked").await });
    }
    Ok(MembersReply::WorkerRevoked { identity, connections: count })
}

/// Runs what may wait for the disk where that keeps nobody else waiting.
async fn aside<T: Send + 'static>(
    hub: &Arc<Hub>,
    work: impl FnOnce(&Hub) -> io::Result<T> + Send + 'static,
) -> Result<T, OperatorRefusal> {
    let hub = Arc::clone(hub);
    tokio::task::spawn_blocking(move || work(&hub)).await.map_err(failed)?.map_err(failed)
}

fn failed(reason: impl ToString) -> OperatorRefusal {
    OperatorRefusal::Failed { reason: reason.to_string() }
}
