//! What the shell keeps of a client for as long as the state machine knows it, with or without a connection: how it is known again, and
//! how many of its messages were taken in. Must not know: what they said.

use std::collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry};

use crate::{
    ids::{ClientId, Hash, Identity},
    scheduler::{ClientFact, Fact, Passport, Record},
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
    /// Those of them that outlive this process, if there is a journal: it may be told of these.
    durable: u64,
    /// Those of them that it was told of.
    told: u64,
}

impl Session {
    pub(super) fn new(who: Identity, secret: [u8; 16], name: String, module: Hash) -> Self {
        Self { who, secret, name, module, applied: 0, durable: 0, told: 0 }
    }

    /// Of a client that a journal knows.
    pub(super) fn restored(fact: ClientFact) -> Self {
        let (ClientFact { who, module, applied, .. }, Passport { secret, name }) = (fact.clone(), fact.passport);
        Self { who, secret, name, module, applied, durable: applied, told: applied }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    sessions: HashMap<ClientId, Session>,
    /// Records that were said.
    said: u64,
    /// Clients' messages that are on their way into the journal, each with the number of records after which they are there.
    recording: VecDeque<(u64, ClientId, u64)>,
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

    /// So many more of a client's messages are taken in. This and [`Sessions::tell`] are all that counts them. Without a journal they are
    /// as `durable` as they get.
    pub(super) fn count(&mut self, client: ClientId, messages: u64, durable: bool) {
        if let Some(session) = self.sessions.get_mut(&client) {
            session.applied += messages;
            if durable {
                session.durable = session.applied;
            }
        }
    }

    /// These records are on their way into the journal.
    pub(super) fn note_records(&mut self, records: &[Record]) {
        self.said += records.len() as u64;
        for record in records {
            if let Record::Put(Fact::Client(fact)) = record {
                self.recording.push_back((self.said, fact.client, fact.applied));
            }
        }
    }

    /// So many records are in the journal. Gives the clients of which more messages are there.
    pub(super) fn recorded(&mut self, records: u64) -> BTreeSet<ClientId> {
        let mut clients = BTreeSet::new();
        while let Some(&(at, client, applied)) = self.recording.front()
            && at <= records
        {
            self.recording.pop_front();
            if let Some(session) = self.sessions.get_mut(&client) {
                session.durable = applied;
                clients.insert(client);
            }
        }
        clients
    }

    /// How many messages a client is to be told were taken in: if that is news, and if it is `due` or much.
    pub(super) fn tell(&mut self, client: ClientId, due: bool) -> Option<u64> {
        let Entry::Occupied(mut session) = self.sessions.entry(client) else { return None };
        let session = session.get_mut();
        let news = session.durable.saturating_sub(session.told);
        if news == 0 || (!due && news < TELL_MESSAGES) {
            return None;
        }
        session.told = session.durable;
        Some(session.durable)
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
        sessions.count(client, TELL_MESSAGES - 1, true);
        assert_eq!(sessions.tell(client, false), None);
        assert_eq!(sessions.tell(client, true), Some(TELL_MESSAGES - 1));
        assert_eq!(sessions.tell(client, true), None);
        sessions.count(client, TELL_MESSAGES, true);
        assert_eq!(sessions.tell(client, false), Some(2 * TELL_MESSAGES - 1));
    }

    #[test]
    fn clients_are_told_what_is_in_the_journal() {
        let client = ClientId(3);
        let mut sessions = Sessions::default();
        sessions.open(client, Session::new(Identity([1; 16]), [7; 16], String::new(), Hash([0; 32])));
        let record = |applied| {
            let (who, module, passport) = (Identity([1; 16]), Hash([0; 32]), Passport::default());
            Record::Put(Fact::Client(ClientFact {
                client,
                who,
                module,
                passport,
                last_seq: None,
                applied,
                sent: 0,
                has_left: false,
            }))
        };
        sessions.count(client, 2, false);
        assert_eq!(sessions.tell(client, true), None);
        sessions.note_records(&[record(1)]);
        sessions.note_records(&[record(2)]);
        assert!(sessions.recorded(1).contains(&client));
        assert_eq!(sessions.tell(client, true), Some(1));
        assert!(sessions.recorded(2).contains(&client));
        assert_eq!(sessions.tell(client, true), Some(2));
    }
}
