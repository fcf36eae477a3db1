//! Certificates that outlive the program that got them: in the directory `credentials` of the user's state directory, a file each. Must
//! not know: connections.
//!
//! A file is named after the cluster, the role and the token. Clients that came by the same token share one. A worker has one for itself
//! for as long as it runs, so that two workers are never taken for each other: it holds a lock, and another one takes the next number.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

use super::{
    Token, files,
    identity::{Bearer, Credentials, role_name},
    tls,
};
use crate::{
    ids::{Hash, TokenId},
    wire::Role,
};

const KIND: &str = "credentials";
/// Workers of one user and token on one machine that can have a file each.
const MOST: u32 = 1000;

/// What a file says.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Where the scheduler was, as its user wrote it.
    pub(super) address: String,
    pub(super) role: Role,
    /// The token that it came by.
    pub(super) token: TokenId,
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
    /// Second in which it ends, by this machine's clock.
    ends_s: u64,
    /// For how long it was good.
    lifetime_s: u64,
}

/// Where one peer's certificate is kept.
pub(super) struct Drawer {
    path: PathBuf,
    _lock: Option<files::Lock>,
}

impl Kept {
    pub(super) fn new(
        address: &str,
        role: Role,
        token: TokenId,
        credentials: &Credentials,
        ends: SystemTime,
        lifetime: Duration,
    ) -> Self {
        Self {
            address: address.to_owned(),
            role,
            token,
            certificate: credentials.certificate.to_vec(),
            key: credentials.key.secret_der().to_vec(),
            ca: credentials.ca.to_vec(),
            ends_s: ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            lifetime_s: lifetime.as_secs(),
        }
    }

    pub(super) fn ends(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.ends_s)
    }

    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime_s)
    }

    /// Key and certificates; or why they cannot be used.
    pub(super) fn credentials(&self) -> Result<Credentials, String> {
        let key = PrivateKeyDer::try_from(self.key.clone()).map_err(str::to_owned)?;
        let (certificate, ca) = (CertificateDer::from(self.certificate.clone()), CertificateDer::from(self.ca.clone()));
        tls::verify_server(&ca, &certificate, tls::role_host(self.role)).map_err(|error| error.to_string())?;
        if Bearer::of(&certificate).is_none_or(|bearer| bearer.role != self.role) {
            return Err("it is of another role".to_owned());
        }
        let credentials = Credentials { certificate, key, ca };
        tls::Keyring::new(credentials.clone()).map_err(|error| error.to_string())?;
        Ok(credentials)
    }

    fn fingerprint(&self) -> Hash {
        Hash::of(&self.ca)
    }
}

/// Finds what an earlier run kept that came by this token. The second is a drawer whose content is of no use, if there is none of use.
pub(super) fn find(state: &Path, token: &Token, now: SystemTime) -> (Option<Kept>, Option<Drawer>) {
    let stem = stem(token.fingerprint, token.role, token.id());
    let mut free = None;
    for path in files_of(state, |name| name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('-'))) {
        let Some(drawer) = open(path, token.role) else { continue };
        match read(&drawer.path, now) {
            Some(kept) if (kept.fingerprint(), kept.role, kept.token) == (token.fingerprint, token.role, token.id()) => {
                return (Some(kept), Some(drawer));
            }
            Some(_) => tracing::warn!(path = %drawer.path.display(), "a kept certificate is another one's"),
            None => {}
        }
        free = free.or(Some(drawer));
    }
    (None, free)
}

/// Finds what earlier runs kept of this role for this address, whatever the token.
pub(super) fn find_all(state: &Path, address: &str, role: Role, now: SystemTime) -> Vec<(Kept, Drawer)> {
    let role_part = format!("-{}-", role_name(role));
    let fitting = files_of(state, |name| name.contains(&role_part)).into_iter().filter_map(|path| {
        let drawer = open(path, role)?;
        let kept = read(&drawer.path, now).filter(|kept| kept.role == role && kept.address == address)?;
        Some((kept, drawer))
    });
    fitting.collect()
}

/// Keeps it in that drawer, or in a new one. Gives the drawer back.
pub(super) fn put(state: &Path, kept: &Kept, drawer: Option<Drawer>) -> io::Result<Drawer> {
    let drawer = match drawer {
        Some(drawer) => drawer,
        None => {
            let directory = directory(state);
            files::create_directory(&directory)?;
            let stem = stem(kept.fingerprint(), kept.role, kept.token);
            let mut places = (0..MOST).map(|number| directory.join(format!("{stem}-{number}")));
            let free = places.find_map(|path| open(path, kept.role));
            free.ok_or_else(|| io::Error::other(format!("there are {MOST} workers that keep theirs")))?
        }
    };
    files::write_record(&drawer.path, KIND, kept)?;
    Ok(drawer)
}

fn directory(state: &Path) -> PathBuf {
    state.join("credentials")
}

fn stem(fingerprint: Hash, role: Role, token: TokenId) -> String {
    format!("{}-{}-{token}", &fingerprint.to_string()[..16], role_name(role))
}

fn files_of(state: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory(state)).into_iter().flatten().flatten();
    let names = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| !name.contains('.') && wanted(name))
    });
    let mut paths: Vec<_> = names.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// `None` if another worker has it.
fn open(path: PathBuf, role: Role) -> Option<Drawer> {
    let lock = match role {
        Role::Worker => Some(files::lock(&path.with_extension("lock")).ok().flatten()?),
        _ => None,
    };
    Some(Drawer { path, _lock: lock })
}

/// What is in a file, if it is of use; what has expired is removed.
fn read(path: &Path, now: SystemTime) -> Option<Kept> {
    let kept: Kept = match files::read_record(path, KIND) {
        Ok(kept) => kept,
        Err(files::RecordError::Missing) => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "a kept certificate is of no use");
            return None;
        }
    };
    if files::is_exposed(path) {
        tracing::warn!(path = %path.display(), "others can read a kept certificate, it is not used");
        return None;
    }
    if kept.ends() <= now {
        tracing::debug!(path = %path.display(), "a kept certificate has expired");
        // It is of no use whether it is there or not.
        let _ = fs::remove_file(path);
        return None;
    }
    match kept.credentials() {
        Ok(_) => Some(kept),
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "a kept certificate is of no use");
            None
        }
    }
}
