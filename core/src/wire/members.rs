//! What operators say and hear of who may join, and who may stay. Must not know: how that is checked.

use serde::{Deserialize, Serialize};

use super::Role;
use crate::ids::{Identity, TokenId, WorkerId};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersRequest {
    /// Make a token.
    CreateToken(TokenRequest),
    /// Which tokens are there?
    ListTokens,
    /// Accept these tokens no more. Whoever joined with one stays.
    RevokeTokens {
        /// Their names.
        ids: Vec<TokenId>,
    },
    /// Accept this worker's certificate no more, and send it away.
    RevokeWorker(WorkerName),
}

/// The answer to the request that it fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MembersReply {
    /// The new token, secret included: this is the only time that it is said.
    Token(String),
    /// All tokens, the oldest first.
    Tokens(Vec<TokenInfo>),
    /// The tokens are revoked, except for those that are unknown.
    TokensRevoked {
        /// Their names.
        unknown: Vec<TokenId>,
    },
    /// The worker's certificate is revoked.
    WorkerRevoked {
        /// Whom it names.
        identity: Identity,
        /// How many connections ended by that.
        connections: u64,
    },
}

/// What an operator calls a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerName {
    /// The number of one that is here.
    Number(WorkerId),
    /// The identity in its certificate, whether it is here or not.
    Identity(Identity),
}

/// Bytes of a token's note, at most.
pub const NOTE_BYTES: usize = 200;

/// What a new token is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// What its bearer may be.
    pub role: Role,
    /// Seconds for which it is good; `None` for ever.
    pub lifetime_s: Option<u64>,
    /// Whether it is good for one use only.
    pub once: bool,
    /// For people: whom it is for. At most [`NOTE_BYTES`].
    pub note: String,
}

/// Whether a token is accepted, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenState {
    /// It is.
    Good,
    /// Its time is over.
    Expired,
    /// It was good for one use.
    Used,
    /// An operator revoked it.
    Revoked,
}

/// A token, for people. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// Its name.
    pub id: TokenId,
    /// What its bearer may be.
    pub role: Role,
    /// When it was made.
    pub created_s: u64,
    /// From when on it is not accepted; `None` for never.
    pub expires_s: Option<u64>,
    /// Whether it is good for one use only.
    pub once: bool,
    /// How often it was used. Of one that is good for many uses, those since the last change of any token are forgotten when the
    /// scheduler is started again.
    pub used: u64,
    /// Whether it is accepted.
    pub state: TokenState,
    /// Whom it is for.
    pub note: String,
}
