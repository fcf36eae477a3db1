//! Clusters on this machine, for development, tests and single machines. Owns: what starts and ends with a [`LocalCluster`]. Must not
//! know: how its scheduler and workers work.

#[cfg(not(target_family = "wasm"))]
mod command;
#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
#[path = "absent.rs"]
mod native;

use std::{collections::BTreeMap, path::PathBuf};

use quicsand::{Client, ConnectError, Module, wire::Role};

/// A scheduler and workers on this machine, over loopback QUIC, with everything that a fleet has: certificates, the sandbox, limits.
/// Dropping it ends them all.
///
/// By default they live in this process; [`Builder::processes`] starts processes of the `quicsand` command instead.
///
/// ```no_run
/// use quicsand::task;
/// use quicsand_worker::LocalCluster;
///
/// #[task]
/// fn inc(x: i64) -> i64 {
///     x + 1
/// }
///
/// #[quicsand::main]
/// fn main() -> quicsand::Result<()> {
///     let cluster = LocalCluster::builder().workers(2).slots(1).start()?;
///     let client = cluster.client()?;
///     assert_eq!(client.submit(inc, 1).result()?, 2); // in a sandbox
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct LocalCluster {
    native: native::Cluster,
    module: Option<Module>,
}

/// What a [`LocalCluster`] is to be; made by [`LocalCluster::builder`].
#[derive(Clone, Debug)]
#[must_use = "nothing starts before `start`"]
#[cfg_attr(target_family = "wasm", expect(dead_code, reason = "nothing is ever started in a guest"))]
pub struct Builder {
    workers: Option<usize>,
    kinds: Vec<WorkerKind>,
    slots: u32,
    memory: Option<u64>,
    module: Option<Module>,
    processes: bool,
    command: Option<PathBuf>,
    settings: Vec<(String, String)>,
    scheduler: Vec<(String, String)>,
}

/// Workers of a [`LocalCluster`] that are alike: what they have that calls can ask for.
#[derive(Clone, Debug)]
#[must_use = "it is to be given to a cluster"]
#[cfg_attr(target_family = "wasm", expect(dead_code, reason = "nothing is ever started in a guest"))]
pub struct WorkerKind {
    count: usize,
    slots: Option<u32>,
    labels: BTreeMap<String, String>,
    resources: BTreeMap<String, u64>,
}

impl LocalCluster {
    /// A scheduler and `workers` workers of one slot each, in this process.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn new(workers: usize) -> Result<Self, ConnectError> {
        Self::builder().workers(workers).start()
    }

    /// For everything else.
    pub fn builder() -> Builder {
        Builder {
            workers: None,
            kinds: Vec::new(),
            slots: 1,
            memory: None,
            module: None,
            processes: false,
            command: None,
            settings: Vec::new(),
            scheduler: Vec::new(),
        }
    }

    /// The scheduler's address, `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        self.native.address()
    }

    /// A token that lets its bearer join in that role.
    #[must_use]
    pub fn token(&self, role: Role) -> &str {
        self.native.token(role)
    }

    /// A client of this cluster, with the module that [`Builder::module`] was given or else the program's own.
    ///
    /// # Errors
    /// When there is no module, or it does not belong to the program.
    pub fn client(&self) -> quicsand::Result<Client> {
        let builder = Client::builder().address(self.address()).token(self.token(Role::Client));
        match self.module {
            Some(module) => builder.module(module),
            None => builder,
        }
        .connect()
    }

    /// Adds workers to those that are there, and waits until they have joined. They have the memory that the others have, and are counted
    /// on from the last one's index.
    ///
    /// # Errors
    /// When one could not be started.
    pub fn add_workers(&mut self, kind: &WorkerKind) -> Result<(), ConnectError> {
        self.native.add_workers(kind)
    }

    /// Ends worker `index` as if it had died: nothing is finished, nothing given back. Those that are not there are left alone.
    pub fn kill_worker(&mut self, index: usize) {
        self.native.kill_worker(index);
    }
}

impl Builder {
    /// Number of workers that have nothing in particular; 1 if nothing is said, and none if workers of some kind are.
    pub fn workers(self, workers: usize) -> Self {
        Self { workers: Some(workers), ..self }
    }

    /// Workers with labels and resources, beside others. Can be said several times, for workers of several kinds.
    pub fn kind(mut self, kind: WorkerKind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// Items that each worker runs at a time; 1 if nothing is said.
    pub fn slots(self, slots: u32) -> Self {
        Self { slots, ..self }
    }

    /// Bytes of memory that each worker's tasks may use together; an equal part of what the machine can spare if nothing is said.
    pub fn memory(self, bytes: u64) -> Self {
        Self { memory: Some(bytes), ..self }
    }

    /// A setting of the workers, as `quicsand worker` takes it for a flag: `("task-memory", "64MiB")` for `--task-memory 64MiB`, say, or
    /// `("allow-dir", "/srv/data=/data")`, whose directory tasks can then read. `quicsand worker --help` lists them all. Can be called
    /// several times, also for one name where its flag can be given several times.
    ///
    /// Grants are about sandboxes: tasks that run natively, as those of `Client::local` do, reach whatever the process does.
    pub fn worker_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// A setting of the scheduler about failures, as `quicsand scheduler` takes it for a flag: `("lease", "2s")` for `--lease 2s`, say, or
    /// `("max-deaths", "1")`. These are `lease`, `grace`, `max-deaths`, `retry-delay`, `replicas` and `hand-over`.
    pub fn scheduler_setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.scheduler.push((name.into(), value.into()));
        self
    }

    /// The module of the clients; the program's own if nothing is said.
    pub fn module(self, module: Module) -> Self {
        Self { module: Some(module), ..self }
    }

    /// Starts scheduler and workers as processes of the `quicsand` command. They end with this process, whatever ends it.
    pub fn processes(self) -> Self {
        Self { processes: true, ..self }
    }

    /// Where the `quicsand` command is. Else it is what QUICSAND_COMMAND names, or is looked for beside the program and in PATH.
    pub fn command(self, path: impl Into<PathBuf>) -> Self {
        Self { command: Some(path.into()), ..self }
    }

    /// Starts it, and waits until every worker has joined.
    ///
    /// # Errors
    /// When a part could not be started, a worker setting is wrong, or there is no `quicsand` command where one is asked for.
    pub fn start(self) -> Result<LocalCluster, ConnectError> {
        Ok(LocalCluster { native: native::Cluster::start(&self)?, module: self.module })
    }
}

impl WorkerKind {
    /// So many workers without labels of their own, and without resources.
    pub fn new(count: usize) -> Self {
        Self { count, slots: None, labels: BTreeMap::new(), resources: BTreeMap::new() }
    }

    /// Gives each of them a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Gives each of them so much of a resource.
    pub fn resource(mut self, name: impl Into<String>, amount: u64) -> Self {
        self.resources.insert(name.into(), amount);
        self
    }

    /// Items that each of them runs at a time; as many as the cluster's others if nothing is said.
    pub fn slots(self, slots: u32) -> Self {
        Self { slots: Some(slots), ..self }
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests;
