//! The tokens of a cluster: which there are, and whether one is accepted. A plain state machine, with the time passed in; it is saved as
//! it is. Must not know: secrets (only their digests), files, clocks.
//!
//! | state | holds when | ends by |
//! | --- | --- | --- |
//! | good | none of the others | time, use, revocation |
//! | expired | `now >= expires_s` | being forgotten |
//! | used | `once` and `used > 0` | being forgotten |
//! | revoked | `revoked_s` is there; goes before the other two | being forgotten |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    error::TokenRefusal,
    ids::{Hash, TokenId},
    wire::{
        Role,
        members::{TokenInfo, TokenRequest, TokenState},
    },
};

/// A token that is not accepted any more is remembered for so long, so that its bearer hears why: 30 days.
const MEMORY_S: u64 = 30 * 24 * 60 * 60;

/// Tokens that are kept at most.
const MOST: usize = 10_000;

/// All tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tokens {
    known: BTreeMap<TokenId, Known>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    digest: Hash,
    role: Role,
    created_s: u64,
    expires_s: Option<u64>,
    once: bool,
    used: u64,
    used_s: u64,
    revoked_s: Option<u64>,
    note: String,
}

impl Known {
    fn state(&self, now_s: u64) -> TokenState {
        if self.revoked_s.is_some() {
            TokenState::Revoked
        } else if self.once && self.used > 0 {
            TokenState::Used
        } else if self.expires_s.is_some_and(|expires_s| now_s >= expires_s) {
            TokenState::Expired
        } else {
            TokenState::Good
        }
    }

    /// Since when it is not accepted.
    fn ended_s(&self, now_s: u64) -> Option<u64> {
        match self.state(now_s) {
            TokenState::Good => None,
            TokenState::Expired => self.expires_s,
            TokenState::Used => Some(self.used_s),
            TokenState::Revoked => self.revoked_s,
        }
    }
}

impl Tokens {
    /// Takes a new token in, and forgets those that ended long ago. `false` if there are too many.
    #[must_use]
    pub(crate) fn add(&mut self, id: TokenId, digest: Hash, request: TokenRequest, now_s: u64) -> bool {
        self.known.retain(|_, known| known.ended_s(now_s).is_none_or(|ended_s| now_s.saturating_sub(ended_s) < MEMORY_S));
        if self.known.len() >= MOST {
            return false;
        }
        let TokenRequest { role, lifetime_s, once, note } = request;
        let expires_s = lifetime_s.map(|lifetime_s| now_s.saturating_add(lifetime_s));
        let known = Known { digest, role, created_s: now_s, expires_s, once, used: 0, used_s: 0, revoked_s: None, note };
        self.known.insert(id, known);
        true
    }

    /// Whether the bearer of the secret with that digest may join in that role; nothing changes. Says whether it is the token's only use,
    /// which must not be forgotten.
    pub(crate) fn check(&self, id: TokenId, digest: Hash, role: Role, now_s: u64) -> Result<bool, TokenRefusal> {
        let known = self.known.get(&id).filter(|known| known.digest == digest && known.role == role);
        let known = known.ok_or(TokenRefusal::Unknown)?;
        match known.state(now_s) {
            TokenState::Good => Ok(known.once),
            TokenState::Expired => Err(TokenRefusal::Expired),
            TokenState::Used => Err(TokenRefusal::Used),
            TokenState::Revoked => Err(TokenRefusal::Revoked),
        }
    }

    /// Counts a use of a token that [`Tokens::check`]s well. The answer is that of `check`.
    pub(crate) fn admit(&mut self, id: TokenId, digest: Hash, role: Role, now_s: u64) -> Result<bool, TokenRefusal> {
        let once = self.check(id, digest, role, now_s)?;
        let known = self.known.get_mut(&id).ok_or(TokenRefusal::Unknown)?;
        known.used = known.used.saturating_add(1);
        known.used_s = now_s;
        Ok(once)
    }

    /// Has a token not accepted any more; `false` if it is unknown. One that was revoked before stays as it is.
    pub(crate) fn revoke(&mut self, id: TokenId, now_s: u64) -> bool {
        let known = self.known.get_mut(&id);
        known.map(|known| known.revoked_s.get_or_insert(now_s)).is_some()
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self, now_s: u64) -> Vec<TokenInfo> {
        let info = |(&id, known): (&TokenId, &Known)| TokenInfo {
            id,
            role: known.role,
            created_s: known.created_s,
            expires_s: known.expires_s,
            once: known.once,
            used: known.used,
            state: known.state(now_s),
            note: known.note.clone(),
        };
        let mut list: Vec<_> = self.known.iter().map(info).collect();
        list.sort_by_key(|info| info.created_s);
        list
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::net::token::{digest, token_id};

    #[derive(Clone, Debug)]
    enum Step {
        Add { secret: u8, role: Role, lifetime_s: Option<u64>, once: bool },
        Admit { secret: u8, role: Role },
        Revoke { secret: u8 },
        Wait { s: u64 },
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let role = || prop_oneof![Just(Role::Client), Just(Role::Worker)];
        let step = prop_oneof![
            2 => (0..12_u8, role(), prop::option::of(0..200_u64), any::<bool>())
                .prop_map(|(secret, role, lifetime_s, once)| Step::Add { secret, role, lifetime_s, once }),
            6 => (0..12_u8, role()).prop_map(|(secret, role)| Step::Admit { secret, role }),
            1 => (0..12_u8).prop_map(|secret| Step::Revoke { secret }),
            2 => prop_oneof![0..100_u64, Just(MEMORY_S / 2)].prop_map(|s| Step::Wait { s }),
            1 => Just(Step::Restart),
        ];
        prop::collection::vec(step, 1..120)
    }

    /// What a token is, said the long way round.
    struct Model {
        role: Role,
        ends_s: Option<u64>,
        once: bool,
        uses: Vec<u64>,
        revoked: bool,
    }

    fn request(role: Role, lifetime_s: Option<u64>, once: bool) -> TokenRequest {
        TokenRequest { role, lifetime_s, once, note: String::new() }
    }

    fn name(secret: u8) -> (TokenId, Hash) {
        let digest = digest(&[secret; 32]);
        (token_id(digest), digest)
    }

    proptest! {
        #[test]
        fn no_play_lets_anybody_in_who_may_not(steps in steps()) {
            let (mut tokens, mut models, mut now_s) = (Tokens::default(), BTreeMap::<u8, Model>::new(), 1_000_u64);
            for step in steps {
                match step {
                    Step::Add { secret, role, lifetime_s, once } if !models.contains_key(&secret) => {
                        let (id, digest) = name(secret);
                        prop_assert!(tokens.add(id, digest, request(role, lifetime_s, once), now_s));
                        let ends_s = lifetime_s.map(|lifetime_s| now_s + lifetime_s);
                        models.insert(secret, Model { role, ends_s, once, uses: Vec::new(), revoked: false });
                    }
                    Step::Add { .. } => {}
                    Step::Admit { secret, role } => {
                        let (id, digest) = name(secret);
                        let admitted = tokens.admit(id, digest, role, now_s);
                        let model = models.get_mut(&secret).filter(|model| model.role == role);
                        let expected = match &model {
                            None => Err(TokenRefusal::Unknown),
                            Some(model) if model.revoked => Err(TokenRefusal::Revoked),
                            Some(model) if model.once && !model.uses.is_empty() => Err(TokenRefusal::Used),
                            Some(model) if model.ends_s.is_some_and(|ends_s| ends_s <= now_s) => Err(TokenRefusal::Expired),
                            Some(model) => Ok(model.once),
                        };
                        // One that ended may be forgotten, and is then unknown; it never comes to life.
                        prop_assert!(admitted == expected || expected.is_err() && admitted == Err(TokenRefusal::Unknown));
                        if let (Ok(_), Some(model)) = (admitted, model) {
                            model.uses.push(now_s);
                        }
                    }
                    Step::Revoke { secret } => {
                        let known = tokens.revoke(name(secret).0, now_s);
                        prop_assert!(!known || models.contains_key(&secret));
                        if let Some(model) = models.get_mut(&secret) {
                            model.revoked = true;
                        }
                    }
                    Step::Wait { s } => now_s += s,
                    Step::Restart => {
                        let bytes = postcard::to_stdvec(&tokens).expect("encoded");
                        prop_assert_eq!(&postcard::from_bytes::<Tokens>(&bytes).expect("decoded"), &tokens);
                    }
                }
                for info in tokens.list(now_s) {
                    let (_, model) = models.iter().find(|(secret, _)| name(**secret).0 == info.id).expect("was added");
                    prop_assert_eq!(info.used, model.uses.len() as u64);
                    prop_assert!(!info.once || info.used <= 1);
                    prop_assert_eq!(info.state == TokenState::Revoked, model.revoked);
                    prop_assert!(model.uses.iter().all(|used_s| info.expires_s.is_none_or(|expires_s| *used_s < expires_s)));
                }
            }
        }
    }

    #[test]
    fn what_ended_long_ago_is_forgotten_and_what_is_good_is_not() {
        let mut tokens = Tokens::default();
        let mut add = |secret, lifetime_s, now_s| {
            let (id, digest) = name(secret);
            assert!(tokens.add(id, digest, request(Role::Client, lifetime_s, false), now_s));
            tokens.list(now_s).len()
        };
        assert_eq!(add(1, Some(10), 0), 1);
        assert_eq!(add(2, None, 0), 2);
        assert_eq!(add(3, None, 10 + MEMORY_S - 1), 3);
        assert_eq!(add(4, None, 10 + MEMORY_S), 3);
        let (id, digest) = name(1);
        assert_eq!(tokens.check(id, digest, Role::Client, MEMORY_S * 2), Err(TokenRefusal::Unknown));
        let (id, digest) = name(2);
        assert_eq!(tokens.check(id, digest, Role::Client, MEMORY_S * 2), Ok(false));
    }

    #[test]
    fn a_name_without_its_secret_is_unknown() {
        let mut tokens = Tokens::default();
        let (id, digest) = name(1);
        assert!(tokens.add(id, digest, request(Role::Worker, None, false), 0));
        assert_eq!(tokens.check(id, name(2).1, Role::Worker, 0), Err(TokenRefusal::Unknown));
        assert_eq!(tokens.check(id, digest, Role::Client, 0), Err(TokenRefusal::Unknown));
    }
}
