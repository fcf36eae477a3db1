//! What the shell keeps of a client for as long as the state machine knows it, with or without a connection: how it is known again, and
//! how many of its messages were taken in. Must not know: what they said.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    ids::{ClientId, Hash, Identity},
    wire,
};

/// A client hears how many of its messages were taken in after so many at the latest; otherwise along with credit.
const TELL_MESSAGES: u64 = 1024;

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Its certificate's identity.
    pub(super) who: Identity,
    /// Drawn by the client: its certificate may be another one's too.
    pub(super) secret: [u8; 16],
    /// For people.
    pub(super) name: String,
    /// Its program's module.
    pub(super) module: Hash,
    /// Its messages that were taken in, over all its connections.
    pub(super) applied: u64,
    /// Those of them that it was told of.
    told: u64,
}

impl Session {
    pub(super) fn new(who: Identity, secret: [u8; 16], name: String, module: Hash) -> Self {
        Self { who, secret, name, module, applied: 0, told: 0 }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<ClientId, Session>,
}

impl Sessions {
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn get(&self, client: ClientId) -> Option<&Session> {
        self.sessions.get(&client)
    }

    /// A new client.
    pub(super) fn open(&mut self, client: ClientId, session: Session) {
        self.sessions.insert(client, session);
    }

    /// Nothing is left of a client.
    pub(super) fn close(&mut self, client: ClientId) -> Option<Session> {
        self.sessions.remove(&client)
    }

    /// The client that a peer of that identity says to be, if it is.
    pub(super) fn find(&self, who: Identity, claim: &wire::Session) -> Option<ClientId> {
        let client = claim.client?;
        let session = self.sessions.get(&client)?;
        (session.who == who && session.secret == claim.secret).then_some(client)
    }

    /// Clients of that identity.
    pub(super) fn of(&self, who: Identity) -> impl Iterator<Item = ClientId> + '_ {
        self.sessions.iter().filter(move |(_, session)| session.who == who).map(|(&client, _)| client)
    }

    /// So many more of a client's messages are taken in. This and [`Sessions::tell`] are all that counts them.
    pub(super) fn count(&mut self, client: ClientId, messages: u64) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.applied += messages;
        }
    }

    /// How many messages a client is to be told were taken in: if that is news, and if it is `due` or much.
    pub(super) fn tell(&mut self, client: ClientId, due: bool) -> Option<u64> {
        let Entry::Occupied(mut session) = self.sessions.entry(client) else { return None };
        let session = session.get_mut();
        let news = session.applied - session.told;
        if news == 0 || (!due && news < TELL_MESSAGES) {
            return None;
        }
        session.told = session.applied;
        Some(session.applied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_known_by_identity_and_secret() {
        let (client, who) = (ClientId(3), Identity([1; 16]));
        let mut sessions = Sessions::default();
        sessions.open(client, Session::new(who, [7; 16], String::new(), Hash([0; 32])));
        let claim = |secret, client| wire::Session { secret, client };
        assert_eq!(sessions.find(who, &claim([7; 16], Some(client))), Some(client));
        for (who, claim) in [
            (Identity([2; 16]), claim([7; 16], Some(client))),
            (who, claim([8; 16], Some(client))),
            (who, claim([7; 16], Some(ClientId(4)))),
            (who, claim([7; 16], None)),
        ] {
            assert_eq!(sessions.find(who, &claim), None, "{claim:?}");
        }
        sessions.close(client);
        assert_eq!(sessions.find(who, &claim([7; 16], Some(client))), None);
    }

    #[test]
    fn clients_are_told_seldom() {
        let client = ClientId(3);
        let mut sessions = Sessions::default();
        sessions.open(client, Session::new(Identity([1; 16]), [7; 16], String::new(), Hash([0; 32])));
        sessions.count(client, TELL_MESSAGES - 1);
        assert_eq!(sessions.tell(client, false), None);
        assert_eq!(sessions.tell(client, true), Some(TELL_MESSAGES - 1));
        assert_eq!(sessions.tell(client, true), None);
        sessions.count(client, TELL_MESSAGES);
        assert_eq!(sessions.tell(client, false), Some(2 * TELL_MESSAGES - 1));
    }
}
