//! Join tokens: one printable line that lets its bearer join a cluster in one role. Must not know: the network.
//!
//! `qs1-` and then, in the URL-safe base 64 alphabet: a byte for the role, the BLAKE3 hash of the CA's certificate, the secret, and
//! four bytes of checksum over all that, so that a mistyped token is told from a wrong one.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::identity::role_name;
use crate::{
    ConnectError,
    ids::{Hash, TokenId},
    wire::Role,
};

const PREFIX: &str = "qs1-";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Role, fingerprint, secret and checksum: 69 bytes, which are 92 digits without padding.
const BODY_BYTES: usize = 1 + 32 + 32 + 4;
const DIGITS: usize = BODY_BYTES / 3 * 4;

/// Leave to join a cluster. Displayed in full, secret included; its `Debug` form leaves the secret out.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What its bearer may be.
    pub role: Role,
    /// BLAKE3 hash of the cluster CA's certificate.
    pub fingerprint: Hash,
    pub(crate) secret: [u8; 32],
}

/// Why a text is no token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It is something else.
    #[error("it does not begin with `{PREFIX}`")]
    Prefix,
    /// Cut off, or something hangs on to it.
    #[error("it has {len} characters after `{PREFIX}` where {DIGITS} belong; was it copied in full?")]
    Length {
        /// Characters after the prefix.
        len: usize,
    },
    /// A character that tokens do not have.
    #[error("character {position}, `{character}`, does not occur in tokens")]
    Character {
        /// Which, counted from 1 and with the prefix.
        position: usize,
        /// The character.
        character: char,
    },
    /// All characters are possible, but they do not fit together.
    #[error("it is mistyped: its checksum is wrong")]
    Checksum,
    /// A role of a later version.
    #[error("it is for a role that this version does not know; update quicsand")]
    Role,
}

impl Token {
    /// Its name, which is no secret.
    #[must_use]
    pub fn id(&self) -> TokenId {
        token_id(digest(&self.secret))
    }

    fn body(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[0] = match self.role {
            Role::Client => 1,
            Role::Worker => 2,
            Role::Operator => 3,
        };
        body[1..33].copy_from_slice(&self.fingerprint.0);
        body[33..65].copy_from_slice(&self.secret);
        let checksum = checksum(&body[..65]);
        body[65..].copy_from_slice(&checksum);
        body
    }
}

/// What a scheduler keeps of a secret.
pub(crate) fn digest(secret: &[u8; 32]) -> Hash {
    // The prefix keeps it apart from hashes of anything else.
    Hash::of(&[&b"quicsand token"[..], secret].concat())
}

/// The name of the token whose secret has that digest.
pub(crate) fn token_id(digest: Hash) -> TokenId {
    let mut id = [0; 8];
    id.copy_from_slice(&digest.0[..8]);
    TokenId(id)
}

/// Reads what a user gave as a token, for use where one of these roles is needed.
pub(crate) fn read_token(text: &str, roles: &[Role]) -> Result<Token, ConnectError> {
    let token = text.parse::<Token>().map_err(|error| ConnectError::Token { reason: error.to_string() })?;
    if !roles.contains(&token.role) {
        let wanted: Vec<String> = roles.iter().map(|&role| format!("the {}'s", role_name(role))).collect();
        let (is, wanted) = (role_name(token.role), wanted.join(" or "));
        return Err(ConnectError::Token { reason: format!("it is the {is}'s token, and {wanted} is needed here") });
    }
    Ok(token)
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        for triple in self.body().chunks_exact(3) {
            let bits = u32::from_be_bytes([0, triple[0], triple[1], triple[2]]);
            for shift in [18, 12, 6, 0] {
                write!(f, "{}", char::from(ALPHABET[(bits >> shift & 63) as usize]))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("role", &self.role).field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        let mut values = Vec::with_capacity(DIGITS);
        for (position, character) in digits.chars().enumerate() {
            let value = ALPHABET.iter().position(|&digit| char::from(digit) == character);
            let value = value.ok_or(TokenError::Character { position: PREFIX.len() + position + 1, character })?;
            values.push(value as u32);
        }
        if values.len() != DIGITS {
            return Err(TokenError::Length { len: values.len() });
        }
        let mut body = [0; BODY_BYTES];
        for (triple, digits) in body.chunks_exact_mut(3).zip(values.chunks_exact(4)) {
            let bits = digits.iter().fold(0, |bits, digit| bits << 6 | digit);
            triple.copy_from_slice(&bits.to_be_bytes()[1..]);
        }
        if checksum(&body[..65]) != body[65..] {
            return Err(TokenError::Checksum);
        }
        let role = match body[0] {
            1 => Role::Client,
            2 => Role::Worker,
            3 => Role::Operator,
            _ => return Err(TokenError::Role),
        };
        let (mut fingerprint, mut secret) = ([0; 32], [0; 32]);
        fingerprint.copy_from_slice(&body[1..33]);
        secret.copy_from_slice(&body[33..65]);
        Ok(Self { role, fingerprint: Hash(fingerprint), secret })
    }
}

fn checksum(body: &[u8]) -> [u8; 4] {
    let hash = Hash::of(body).0;
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { role: Role::Worker, fingerprint: Hash::of(b"ca"), secret: Hash::of(b"secret").0 }
    }

    #[test]
    fn tokens_come_back() {
        let text = token().to_string();
        assert!(text.starts_with("qs1-") && text.len() == 96, "{text}");
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
        assert!(!format!("{:?}", token()).contains("secret:"));
    }

    #[test]
    fn every_single_typo_is_noticed() {
        let text = token().to_string();
        for i in 4..text.len() {
            let mut typo = text.clone().into_bytes();
            typo[i] = if typo[i] == b'A' { b'B' } else { b'A' };
            let typo = String::from_utf8(typo).expect("ASCII");
            assert_eq!(typo.parse::<Token>(), Err(TokenError::Checksum), "{typo}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = token().to_string();
        let check = |text: &str, expected: TokenError| assert_eq!(text.parse::<Token>(), Err(expected), "{text}");
        check(" ", TokenError::Empty);
        check("hello", TokenError::Prefix);
        check("qs2-AAAA", TokenError::Prefix);
        check(&text[..50], TokenError::Length { len: 46 });
        check(&format!("{text}A"), TokenError::Length { len: 93 });
        check(
            &text.replacen(&text[9..10], "é", 1),
            TokenError::Character { position: text.find(&text[9..10]).expect("there") + 1, character: 'é' },
        );
        assert!(read_token(&text, &[Role::Worker]).is_ok());
        let error = read_token(&text, &[Role::Operator, Role::Client]).expect_err("another role").to_string();
        assert!(error.contains("the worker's token, and the operator's or the client's is"), "{error}");
    }
}
