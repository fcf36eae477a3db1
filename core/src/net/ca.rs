//! The cluster's authority: who may join it, by which token, and who may not any more. Must not know: connections.
//!
//! Its state directory has, besides what the [signer](super::signer) keeps there:
//!
//! | file | what is in it |
//! | --- | --- |
//! | `client.token`, `worker.token`, `operator.token` | the tokens that the scheduler prints, and the one for operators on its machine |
//! | `members` | all tokens, without their secrets, and the certificates that were revoked |
//! | `lock` | nothing; whoever has it locked is the directory's only scheduler |

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    Token,
    files::{self, RecordError},
    identity::{Bearer, Credentials, ROLES, RequestedKey, role_name},
    signer::{Pems, Signer},
    tls,
    token::{digest, token_id},
    tokens::Tokens,
};
use crate::{
    ConnectError,
    ids::{Identity, TokenId},
    wire::{
        HelloError, JoinReply, Role,
        members::{TokenInfo, TokenRequest},
    },
};

/// How long certificates are good that nobody wanted otherwise: a day. Peers renew them while they run.
pub const DEFAULT_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest that one can be good.
const LONGEST_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const MEMBERS: &str = "members";

/// A cluster's certificate authority, with its tokens.
///
/// Methods that change something save it before they return; if it cannot be saved, nothing has changed. They may block for as long as
/// the disk takes.
pub struct Ca {
    signer: Signer,
    certificate_lifetime: Duration,
    defaults: BTreeMap<Role, Token>,
    members: Mutex<Members>,
    home: Option<Home>,
}

/// Who may join, and who may not stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Members {
    tokens: Tokens,
    /// With the second of their revocation.
    revoked: BTreeMap<Identity, u64>,
}

/// Where a cluster lives that outlives its scheduler.
struct Home {
    directory: PathBuf,
    /// Held from a change to its being on disk.
    saving: Mutex<()>,
    _lock: files::Lock,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("fingerprint", &self.signer.fingerprint()).finish_non_exhaustive()
    }
}

impl Ca {
    /// A new one that lives no longer than this value.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when the system gives no randomness.
    pub fn in_memory() -> Result<Self, ConnectError> {
        let failed = |error: &dyn ToString| start_failed("the cluster's CA", error);
        let (signer, _) = Signer::generate().map_err(|error| failed(&error))?;
        let mut ca = Self::new(signer, Members::default(), None);
        for role in ROLES {
            let token = ca.new_default(role, SystemTime::now()).map_err(|error| failed(&error))?;
            ca.defaults.insert(role, token);
        }
        Ok(ca)
    }

    /// The one of that directory; a new one, saved there, if there is none. No other scheduler can use the directory while this value
    /// lives.
    ///
    /// # Errors
    /// [`ConnectError::Start`] when another scheduler uses the directory, it cannot be read or written, or what is in it is damaged.
    pub fn load_or_create(directory: &Path) -> Result<Self, ConnectError> {
        let failed = |reason: &dyn ToString| start_failed(format!("the cluster in {}", directory.display()), reason);
        files::create_directory(directory).map_err(|error| failed(&error))?;
        let lock = files::lock(&directory.join("lock")).map_err(|error| failed(&error))?;
        let lock = lock.ok_or_else(|| failed(&"another scheduler uses this directory; stop it, or choose another one"))?;
        let home = Some(Home { directory: directory.to_owned(), saving: Mutex::new(()), _lock: lock });
        let (mut ca, pems) = if Signer::is_in(directory).map_err(|reason| failed(&reason))? {
            let signer = Signer::load(directory).map_err(|reason| failed(&reason))?;
            (Self::new(signer, load_members(directory).map_err(|reason| failed(&reason))?, home), None)
        } else {
            let (signer, pems) = Signer::generate().map_err(|error| failed(&error))?;
            (Self::new(signer, Members::default(), home), Some(pems))
        };
        ca.settle_in(directory, pems.as_ref(), SystemTime::now()).map_err(|reason| failed(&reason))?;
        Ok(ca)
    }

    /// Signs certificates that are good for that long, from a second to ten years, instead of [`DEFAULT_CERTIFICATE_LIFETIME`].
    #[must_use]
    pub fn with_certificate_lifetime(self, certificate_lifetime: Duration) -> Self {
        Self { certificate_lifetime: certificate_lifetime.clamp(Duration::from_secs(1), LONGEST_LIFETIME), ..self }
    }

    /// Names the cluster: the hash of its certificate.
    pub(crate) fn fingerprint(&self) -> crate::ids::Hash {
        self.signer.fingerprint()
    }

    /// What a peer needs to join: the token of that role that the scheduler prints.
    #[must_use]
    pub fn token(&self, role: Role) -> Token {
        // There is one of each role from the start; a token of zeros, which nobody knows, is better than a panic.
        let none = || Token { role, fingerprint: self.signer.fingerprint(), secret: [0; 32] };
        self.defaults.get(&role).cloned().unwrap_or_else(none)
    }

    /// Makes another token.
    pub(crate) fn create_token(&self, request: TokenRequest, now: SystemTime) -> io::Result<Token> {
        let token = self.random_token(request.role)?;
        match self.change(|members| members.tokens.add(token.id(), digest(&token.secret), request, seconds(now)))? {
            true => Ok(token),
            false => {
                Err(io::Error::other("there are as many tokens as can be kept; revoke some, which are forgotten after a while"))
            }
        }
    }

    /// All tokens, the oldest first.
    pub(crate) fn list_tokens(&self, now: SystemTime) -> Vec<TokenInfo> {
        self.members.lock().tokens.list(seconds(now))
    }

    /// Has tokens not accepted any more, and gives those that are not known. Whoever joined with one stays.
    pub(crate) fn revoke_tokens(&self, ids: &[TokenId], now: SystemTime) -> io::Result<Vec<TokenId>> {
        self.change(|members| ids.iter().copied().filter(|&id| !members.tokens.revoke(id, seconds(now))).collect())
    }

    /// Signs a certificate with a new identity for who knows a token's secret.
    pub(crate) fn certify(
        &self,
        role: Role,
        secret: &[u8; 32],
        csr: &[u8],
        now: SystemTime,
    ) -> Result<(Bearer, JoinReply), HelloError> {
        let (digest, now_s) = (digest(secret), seconds(now));
        let id = token_id(digest);
        let once = self.members.lock().tokens.check(id, digest, role, now_s).map_err(HelloError::Token)?;
        // Before the token is used up.
        let key = requested_key(csr)?;
        let identity = Identity(tls::random().ok_or_else(|| unable("the system gives no randomness"))?);
        // Only what must not be forgotten is worth the disk's time.
        let admitted = match once {
            true => self.change(|members| members.tokens.admit(id, digest, role, now_s)).map_err(unable)?,
            false => self.members.lock().tokens.admit(id, digest, role, now_s),
        };
        admitted.map_err(HelloError::Token)?;
        let bearer = Bearer { role, identity };
        Ok((bearer, self.sign(bearer, &key, now)?))
    }

    /// Signs another certificate for who showed one, with the same identity.
    pub(crate) fn renew(&self, bearer: Bearer, csr: &[u8], now: SystemTime) -> Result<JoinReply, HelloError> {
        if self.is_revoked(bearer.identity) {
            return Err(HelloError::Revoked);
        }
        // An operator's right ends with its certificate, unless its token is still good: nobody keeps one by asking in time.
        if bearer.role == Role::Operator {
            return Err(HelloError::Role);
        }
        self.sign(bearer, &requested_key(csr)?, now)
    }

    /// Whether the same cluster can be there again after this process.
    pub(crate) fn is_kept(&self) -> bool {
        self.home.is_some()
    }

    /// A secret of the cluster's for this purpose: the same one as long as there is the cluster, and not to be found out from others.
    pub(crate) fn secret(&self, purpose: &str) -> [u8; 32] {
        self.signer.secret(purpose)
    }

    /// Whether an operator revoked this peer's certificates.
    pub(crate) fn is_revoked(&self, identity: Identity) -> bool {
        self.members.lock().revoked.contains_key(&identity)
    }

    /// Has no certificate of that identity accepted any more, ever.
    pub(crate) fn revoke(&self, identity: Identity, now: SystemTime) -> io::Result<()> {
        self.change(|members| {
            members.revoked.entry(identity).or_insert_with(|| seconds(now));
        })
    }

    /// A new key and certificate for the scheduler itself.
    pub(crate) fn scheduler_credentials(&self) -> Result<Credentials, ConnectError> {
        self.signer.scheduler_credentials()
    }

    fn new(signer: Signer, members: Members, home: Option<Home>) -> Self {
        let certificate_lifetime = DEFAULT_CERTIFICATE_LIFETIME;
        Self { signer, certificate_lifetime, defaults: BTreeMap::new(), members: Mutex::new(members), home }
    }

    /// Finds the tokens that are printed, makes those that are missing or not accepted any more, and saves what is new.
    fn settle_in(&mut self, directory: &Path, pems: Option<&Pems>, now: SystemTime) -> Result<(), String> {
        for role in ROLES {
            let path = directory.join(token_file(role));
            let kept = match pems {
                Some(_) => None,
                None => self.read_default(&path, role)?.filter(|token| self.is_good(token, now)),
            };
            let token = match kept {
                Some(token) => token,
                None => {
                    let token = self.new_default(role, now).map_err(|error| error.to_string())?;
                    files::write(&path, format!("{token}\n").as_bytes()).map_err(|error| error.to_string())?;
                    token
                }
            };
            self.defaults.insert(role, token);
        }
        pems.map_or(Ok(()), |pems| Signer::save(directory, pems).map_err(|error| error.to_string()))
    }

    fn read_default(&self, path: &Path, role: Role) -> Result<Option<Token>, String> {
        let name = token_file(role);
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let token: Token = text.parse().map_err(|error| format!("{name} is damaged: {error}; remove it to have a new token"))?;
        if token.role == role && token.fingerprint == self.signer.fingerprint() {
            Ok(Some(token))
        } else {
            Err(format!("{name} belongs to another cluster than ca.pem"))
        }
    }

    fn is_good(&self, token: &Token, now: SystemTime) -> bool {
        let members = self.members.lock();
        members.tokens.check(token.id(), digest(&token.secret), token.role, seconds(now)).is_ok()
    }

    fn new_default(&self, role: Role, now: SystemTime) -> io::Result<Token> {
        self.create_token(TokenRequest { role, lifetime_s: None, once: false, note: "the scheduler's own".to_owned() }, now)
    }

    fn random_token(&self, role: Role) -> io::Result<Token> {
        let secret = tls::random().ok_or_else(|| io::Error::other("the system gives no randomness"))?;
        Ok(Token { role, fingerprint: self.signer.fingerprint(), secret })
    }

    fn sign(&self, bearer: Bearer, key: &RequestedKey, now: SystemTime) -> Result<JoinReply, HelloError> {
        let certificate = self.signer.certify(bearer, key, now, self.certificate_lifetime).map_err(unable)?;
        let (valid_s, keep) = (self.certificate_lifetime.as_secs(), self.is_kept());
        Ok(JoinReply { certificate: certificate.to_vec(), valid_s, keep })
    }

    /// Changes something and saves it, or does neither.
    fn change<T>(&self, change: impl FnOnce(&mut Members) -> T) -> io::Result<T> {
        let Some(home) = &self.home else { return Ok(change(&mut self.members.lock())) };
        let _saving = home.saving.lock();
        let (before, result, after) = {
            let mut members = self.members.lock();
            let before = members.clone();
            let result = change(&mut members);
            (before, result, members.clone())
        };
        // Not under the lock: whoever only asks need not wait for the disk.
        if let Err(error) = files::write_record(&home.directory.join(MEMBERS), MEMBERS, &after) {
            *self.members.lock() = before;
            return Err(error);
        }
        Ok(result)
    }
}

fn load_members(directory: &Path) -> Result<Members, String> {
    match files::read_record(&directory.join(MEMBERS), MEMBERS) {
        Ok(members) => Ok(members),
        // Nobody knows who was revoked: to go on without it would let them in again.
        Err(RecordError::Missing) => Err(format!(
            "{MEMBERS} is missing, which says who may join; restore it, or remove the directory to make a new cluster"
        )),
        Err(error) => {
            Err(format!("{MEMBERS}, which says who may join: {error}; restore it, or remove the directory to make a new cluster"))
        }
    }
}

fn requested_key(csr: &[u8]) -> Result<RequestedKey, HelloError> {
    RequestedKey::of(csr).ok_or_else(|| HelloError::Malformed { reason: "the signing request is not sound".to_owned() })
}

fn unable(reason: impl ToString) -> HelloError {
    HelloError::Unable { reason: reason.to_string() }
}

fn token_file(role: Role) -> String {
    format!("{}.token", role_name(role))
}

fn start_failed(what: impl Into<String>, reason: &dyn ToString) -> ConnectError {
    ConnectError::Start { what: what.into(), reason: reason.to_string() }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::files::Scratch;

    fn load(scratch: &Scratch) -> Result<Ca, String> {
        Ca::load_or_create(&scratch.0).map_err(|error| error.to_string())
    }

    fn other() -> TokenRequest {
        TokenRequest { role: Role::Worker, lifetime_s: None, once: true, note: "other".to_owned() }
    }

    #[test]
    fn a_cluster_keeps_its_tokens_uses_and_revocations() {
        let (scratch, now) = (Scratch::new("ca"), SystemTime::now());
        let first = load(&scratch).expect("created");
        let (client, worker) = (first.token(Role::Client), first.token(Role::Worker));
        let once = first.create_token(other(), now).expect("made");
        let (_, csr) = crate::net::identity::new_request().expect("made");
        let certify = |ca: &Ca, token: &Token| ca.certify(token.role, &token.secret, &csr, now);
        let (bearer, reply) = certify(&first, &once).expect("its use");
        assert!(reply.keep && reply.valid_s == 24 * 60 * 60);
        first.revoke(bearer.identity, now).expect("saved");
        first.revoke_tokens(&[worker.id()], now).expect("saved");
        let secret = first.secret("test");
        drop(first);
        let second = load(&scratch).expect("loaded");
        assert_eq!(second.secret("test"), secret);
        assert!(second.secret("other") != secret && Ca::in_memory().expect("made").secret("test") != secret);
        assert_eq!(second.token(Role::Client), client);
        assert_ne!(second.token(Role::Worker), worker, "a revoked token is replaced by another one");
        assert!(certify(&second, &once).is_err() && certify(&second, &worker).is_err());
        assert!(certify(&second, &client).is_ok() && certify(&second, &second.token(Role::Worker)).is_ok());
        assert!(matches!(second.renew(bearer, &csr, now), Err(HelloError::Revoked)));
        assert_eq!(second.list_tokens(now).iter().filter(|info| info.note == "other").count(), 1);
        #[cfg(unix)]
        for entry in fs::read_dir(&scratch.0).expect("there") {
            let entry = entry.expect("listed");
            let mode = std::os::unix::fs::PermissionsExt::mode(&entry.metadata().expect("there").permissions());
            assert_eq!(mode & 0o777, 0o600, "{:?}", entry.path());
        }
    }

    #[test]
    fn secrets_are_in_no_file_but_the_printed_tokens() {
        let scratch = Scratch::new("ca");
        let ca = load(&scratch).expect("created");
        let secret = ca.create_token(other(), SystemTime::now()).expect("made").secret;
        let bytes = fs::read(scratch.0.join(MEMBERS)).expect("there");
        assert!(!bytes.windows(32).any(|window| window == secret));
    }

    #[test]
    fn a_directory_has_one_scheduler_at_a_time() {
        let scratch = Scratch::new("ca");
        let first = load(&scratch).expect("created");
        let error = load(&scratch).expect_err("in use");
        assert!(error.contains("another scheduler uses this directory"), "{error}");
        drop(first);
        load(&scratch).expect("free again");
    }

    #[test]
    fn damage_is_said_and_nobody_gets_in_by_it() {
        let (scratch, other) = (Scratch::new("ca"), Scratch::new("ca"));
        drop(load(&scratch).expect("created"));
        drop(load(&other).expect("created"));
        let check = |name: &str, bytes: Option<&[u8]>, wanted: &str| {
            let path = scratch.0.join(name);
            let good = fs::read(&path).expect("there");
            match bytes {
                Some(bytes) => fs::write(&path, bytes).expect("written"),
                None => fs::remove_file(&path).expect("removed"),
            }
            let error = load(&scratch).expect_err("damaged");
            assert!(error.contains(wanted), "{name}: {error}");
            fs::write(&path, good).expect("written");
        };
        check("members", Some(b"nonsense"), "members, which says who may join: it is damaged");
        check("members", None, "members is missing");
        check("ca.pem", Some(b"nonsense"), "ca.pem is damaged");
        check("ca.pem", None, "ca.pem is not");
        check("ca-key.pem", Some(b"nonsense"), "ca-key.pem is damaged");
        check("client.token", Some(b"nonsense"), "client.token is damaged");
        let foreign = |name: &str| fs::read(other.0.join(name)).expect("there");
        check("ca-key.pem", Some(&foreign("ca-key.pem")), "does not belong");
        check("operator.token", Some(&foreign("operator.token")), "belongs to another cluster");
        load(&scratch).expect("nothing is wrong any more");
    }
}
