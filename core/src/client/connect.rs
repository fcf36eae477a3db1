//! Making clients: in this process, or of a fleet.

use std::{sync::Arc, time::Duration};

#[cfg(not(target_family = "wasm"))]
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use super::{Client, Kind, Shared, state::Bookkeeping};
use crate::{
    Module,
    error::{ConnectError, Result},
    ids::ClientId,
};
#[cfg(not(target_family = "wasm"))]
use crate::{
    ids::TaskId,
    manifest::{ManifestEntry, TaskInfo},
};

/// Bytes of arguments that an in-process client may have under way: no bound, since they lie in this process either way.
const LOCAL_CREDIT: u64 = 1 << 62;
/// For how long a client tries to connect again.
#[cfg(all(feature = "net", not(target_family = "wasm")))]
const RECONNECT_FOR: Duration = Duration::from_secs(60);
/// Environment variable: the scheduler's address.
const ENV_SCHEDULER: &str = "QUICSAND_SCHEDULER";
/// Environment variable: a join token of the role client.
const ENV_TOKEN: &str = "QUICSAND_TOKEN";
/// Environment variable: a file that has one.
const ENV_TOKEN_FILE: &str = "QUICSAND_TOKEN_FILE";

impl Client {
    /// A client whose calls run in this process, as native functions, on as many threads as there are processors.
    ///
    /// Values go through the same encoding and calls through the same scheduler as on a fleet. Memory is not limited here; a call that is
    /// cancelled or runs out of time ends for its future, but its function runs on.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// # #[task]
    /// # fn inc(x: i64) -> i64 { x + 1 }
    /// # fn main() -> quicsand::Result<()> {
    /// # let client = Client::local();
    /// let client = Client::local();
    /// assert_eq!(client.submit(inc, 1).result()?, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn local() -> Self {
        let shared = Shared::new(Bookkeeping::new(ClientId(1), LOCAL_CREDIT), true);
        #[cfg(not(target_family = "wasm"))]
        {
            let local = super::local::Local::new(shared.inbox("this process"));
            shared.attach(Arc::clone(&local) as _);
            Self { shared, kind: Kind::Local(local) }
        }
        #[cfg(target_family = "wasm")]
        {
            shared.end(inside_task().into());
            Self { shared, kind: Kind::Guest }
        }
    }

    /// In-process: runs calls on `threads` threads, at least one. Has no effect once something was submitted, or on a fleet.
    ///
    /// ```
    /// # use quicsand::Client;
    /// let client = Client::local().threads(2);
    /// ```
    #[must_use]
    pub fn threads(self, threads: usize) -> Self {
        #[cfg(not(target_family = "wasm"))]
        if let Kind::Local(local) = &self.kind {
            local.set_threads(threads.max(1));
        }
        #[cfg(target_family = "wasm")]
        let _ = threads;
        self
    }

    /// In-process: runs each call in the thread that submits it, in the order of submission, before `submit` or `map` returns. For stepping
    /// through a program in a debugger. Has no effect once something was submitted, or on a fleet.
    ///
    /// ```
    /// # use quicsand::{Client, task};
    /// #[task]
    /// fn on_thread(name: String) -> bool {
    ///     std::thread::current().name() == Some(&name)
    /// }
    ///
    /// # fn main() -> quicsand::Result<()> {
    /// let client = Client::local().sequential();
    /// let here = std::thread::current().name().unwrap_or_default().to_owned();
    /// assert!(client.submit(on_thread, here).result()?);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sequential(self) -> Self {
        #[cfg(not(target_family = "wasm"))]
        if let Kind::Local(local) = &self.kind {
            local.set_threads(0);
        }
        self
    }

    /// In-process, unless the environment variable `QUICSAND_SCHEDULER` names a fleet's scheduler (`HOST:PORT`). Then `QUICSAND_TOKEN` holds a
    /// join token of the role client, or `QUICSAND_TOKEN_FILE` names a file that does. Neither is needed where an earlier run has left a
    /// certificate for that address that is still good: it is kept in the user's state directory (`QUICSAND_STATE`, or `quicsand` under
    /// `XDG_STATE_HOME` or `~/.local/state`) unless the scheduler itself keeps nothing.
    ///
    /// ```no_run
    /// # use quicsand::Client;
    /// # fn main() -> quicsand::Result<()> {
    /// let client = Client::from_env()?;
    /// println!("{}", if client.is_local() { "here" } else { "on the fleet" });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Client::connect`], if there is a fleet to connect to.
    pub fn from_env() -> Result<Self> {
        match std::env::var(ENV_SCHEDULER) {
            Ok(address) if !address.is_empty() => Self::builder().address(&address).connect(),
            _ => Ok(Self::local()),
        }
    }
}

/// Where and how to connect; from [`Client::builder`].
///
/// ```no_run
/// # use quicsand::Client;
/// # fn main() -> quicsand::Result<()> {
/// let client = Client::builder()
///     .address("scheduler.example:7447")
///     .token("…")
///     .name("nightly")
///     .module(quicsand::embed!()) // for libraries and tests; programs have `#[quicsand::main]`
///     .connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    address: Option<String>,
    token: Option<String>,
    name: Option<String>,
    module: Option<Module>,
    patience: Option<Duration>,
}

impl ClientBuilder {
    /// The scheduler's address, `HOST:PORT`; by default that of `QUICSAND_SCHEDULER`.
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_owned());
        self
    }

    /// The join token; by default that of `QUICSAND_TOKEN`, or the one in the file that `QUICSAND_TOKEN_FILE` names, or none: then the
    /// certificate that an earlier run left has to do.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// A name for people to see in the scheduler's status; by default the program's and its process number.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// For how long a connection to the scheduler that broke is tried to be made again, a minute by default, before every unresolved call fails
    /// with [`Error::Disconnected`](crate::Error::Disconnected). Meanwhile calls go on, futures are pending and what is submitted waits. Zero
    /// for not at all. The scheduler keeps a client that is away for 30 s, unless it is told otherwise.
    pub fn reconnect_for(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// The program's module, from [`embed!`](crate::embed); by default the one that [`#[quicsand::main]`](crate::main) embedded.
    pub fn module(mut self, module: Module) -> Self {
        self.module = Some(module);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`Client::connect`].
    #[cfg(all(feature = "net", not(target_family = "wasm")))]
    pub fn connect(self) -> Result<Client> {
        super::not_in_task()?;
        let address = setting(self.address, ENV_SCHEDULER, "name the scheduler, HOST:PORT")?;
        let token = find_token(self.token)?;
        let program = Program::new(self.module.unwrap_or_else(super::default_module))?;
        let name = self.name.unwrap_or_else(|| {
            let program = std::env::current_exe().ok();
            let program = program.as_deref().and_then(std::path::Path::file_name).unwrap_or_default();
            format!("{}/{}", program.to_string_lossy(), std::process::id())
        });
        let (state, patience) = (crate::net::state_directory(), self.patience.unwrap_or(RECONNECT_FOR));
        let settings = crate::net::client::ConnectSettings { address, token, state, name, patience };
        // The client's number comes with the welcome, before which nothing is delivered.
        let shared = Shared::new(Bookkeeping::new(ClientId(0), 0), false);
        let connected = crate::net::client::connect(&settings, program.shipment(), shared.inbox(&settings.address))?;
        shared.with(|book| *book = Bookkeeping::new(connected.client, connected.credit));
        shared.attach(connected.backend);
        Ok(Client { shared, kind: Kind::Fleet(Arc::new(program)) })
    }

    /// Connects.
    ///
    /// # Errors
    /// Always: this build has no network.
    #[cfg(not(all(feature = "net", not(target_family = "wasm"))))]
    pub fn connect(self) -> Result<Client> {
        super::not_in_task()?;
        let what = "connecting to a fleet";
        Err(ConnectError::Unsupported { what, reason: "quicsand was built without its feature `net`" }.into())
    }
}

#[cfg(all(feature = "net", not(target_family = "wasm")))]
fn setting(given: Option<String>, name: &str, reason: &str) -> Result<String, ConnectError> {
    let found = given.or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty());
    found.ok_or_else(|| ConnectError::Setting { name: name.to_owned(), reason: reason.to_owned() })
}

#[cfg(all(feature = "net", not(target_family = "wasm")))]
fn find_token(given: Option<String>) -> Result<Option<String>, ConnectError> {
    if let Some(token) = given.or_else(|| std::env::var(ENV_TOKEN).ok()).filter(|value| !value.trim().is_empty()) {
        return Ok(Some(token));
    }
    let Some(path) = std::env::var_os(ENV_TOKEN_FILE).filter(|path| !path.is_empty()) else { return Ok(None) };
    std::fs::read_to_string(&path).map(Some).map_err(|error| ConnectError::Setting {
        name: ENV_TOKEN_FILE.to_owned(),
        reason: format!("{} cannot be read: {error}", std::path::Path::new(&path).display()),
    })
}

/// What a task gets that wants a client's services.
pub(super) fn inside_task() -> ConnectError {
    let reason =
        "this is a task; submit calls in the program instead, with futures as arguments where they need each other's results";
    ConnectError::Unsupported { what: "submitting calls", reason }
}

/// A program's module, as its fleet will see it.
#[cfg(not(target_family = "wasm"))]
pub(super) struct Program {
    wasm: &'static [u8],
    hash: crate::ids::Hash,
    tasks: HashMap<TaskId, ManifestEntry>,
    checked: Mutex<HashSet<TaskId>>,
}

#[cfg(not(target_family = "wasm"))]
impl Program {
    fn new(module: Module) -> Result<Self, ConnectError> {
        let wasm = module.wasm().map_err(|reason| ConnectError::NoModule { reason: reason.to_owned() })?;
        let bad = |reason: &dyn ToString| ConnectError::BadModule { reason: reason.to_string() };
        let section = crate::manifest::section(wasm).ok_or_else(|| bad(&"it is no WebAssembly, or has no list of tasks"))?;
        let tasks = crate::manifest::read(section).map_err(|error| bad(&error))?;
        let tasks = tasks.into_iter().map(|entry| (entry.id, entry)).collect();
        Ok(Self { wasm, hash: crate::ids::Hash::of(wasm), tasks, checked: Mutex::default() })
    }

    #[cfg(feature = "net")]
    fn shipment(&self) -> crate::net::client::Program {
        crate::net::client::Program { wasm: bytes::Bytes::from_static(self.wasm), hash: self.hash }
    }

    /// Whether the module has this very task.
    pub(super) fn check(&self, info: &TaskInfo) -> Result<(), ConnectError> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.contains(&info.id) {
            return Ok(());
        }
        let difference = match self.tasks.get(&info.id) {
            None => "is not in it",
            Some(entry) if entry.stamp != info.stamp => "was built from other sources",
            Some(_) => {
                checked.insert(info.id);
                return Ok(());
            }
        };
        Err(ConnectError::ForeignModule { task: info.name.to_owned(), difference })
    }
}
