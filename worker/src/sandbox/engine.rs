//! The engine: its settings, its epoch thread, and the modules loaded into it. Must not know: batches.

use std::{
    hash::{Hash as _, Hasher},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use quicsand::{Size, abi, ids::Hash};
use thiserror::Error;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Linker, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails};

use super::{
    cache::Cache,
    caps::Caps,
    compiler::{self, Compiler, Compilers, Turn},
    grants::{GrantError, Grants, World},
    module::{self, Module, ModuleError},
    wasi::{self, Guest},
};

/// How often running guests are looked at.
const TICK: Duration = Duration::from_millis(5);
/// Ticks without work after which the epoch thread sleeps until there is some.
const IDLE_TICKS: u32 = 20;
/// Loaded modules that are kept for the next call.
const MODULES: usize = 16;
/// All that 32-bit addresses reach.
const MAX_MEMORY: u64 = 4 << 30;
const PAGE: u64 = 64 << 10;

/// What tasks may have on this machine, whatever they wish.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// What they may use.
    pub caps: Caps,
    /// What they may see of the machine: nothing by default.
    pub grants: Grants,
    /// Bytes of memory for one task where `caps` say nothing, and at most; 4 GiB by default, which is all that a guest can address.
    pub memory_share: u64,
    /// Where compiled modules are kept for the next start; nowhere by default.
    pub cache_dir: Option<PathBuf>,
    /// Who compiles: this process by default.
    pub compiler: Compiler,
    /// How many batches run at a time: each has a [`Runner`](super::Runner). By default, one a processor.
    pub slots: u32,
}

impl Default for SandboxConfig {
    fn default() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            caps: Caps::default(),
            grants: Grants::default(),
            memory_share: MAX_MEMORY,
            cache_dir: None,
            compiler: Compiler::Here,
            slots: u32::try_from(processors).unwrap_or(1),
        }
    }
}

impl SandboxConfig {
    /// Bytes of memory for one task, at most: whole pages, one at least.
    #[must_use]
    pub fn memory_cap(&self) -> u64 {
        let cap = self.caps.task_memory.map_or(MAX_MEMORY, |cap| cap.0).min(self.memory_share).min(MAX_MEMORY);
        (cap / PAGE * PAGE).max(PAGE)
    }
}

/// Why there is no sandbox.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// wasmtime does not run on this machine.
    #[error("the WebAssembly engine cannot be set up: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// A grant cannot be made.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The epoch thread did not start.
    #[error("the sandbox's thread cannot be started")]
    Thread(#[source] std::io::Error),
}

/// One engine, its epoch thread, and the modules loaded into it. Dropping it stops the thread.
pub struct Sandbox {
    config: SandboxConfig,
    engine: Engine,
    linker: Linker<Guest>,
    world: Arc<World>,
    ticker: Ticker,
    cache: Option<Cache>,
    /// The most recently used is last.
    modules: Mutex<Vec<Arc<Module>>>,
    compilers: Compilers,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Sets the engine up. A cache directory that cannot be used is logged and done without.
    ///
    /// # Errors
    /// When wasmtime does not support this machine, what is granted is not there, or a thread cannot be started.
    pub fn new(mut config: SandboxConfig) -> Result<Self, SandboxError> {
        config.caps.result_limit = config.caps.result_limit.min(Size(u64::from(abi::MAX_RESULT)));
        let world = Arc::new(World::open(&config.grants, |name| std::env::var(name).ok())?);
        let refused = |error: wasmtime::Error| SandboxError::Engine { reason: format!("{error:#}") };
        let engine = engine(&config).map_err(refused)?;
        let linker = wasi::linker(&engine).map_err(refused)?;
        let cache = config.cache_dir.as_deref().and_then(|dir| {
            Cache::open(dir, fingerprint(&engine))
                .inspect_err(|error| tracing::warn!(dir = %dir.display(), %error, "compiled modules cannot be cached"))
                .ok()
        });
        let ticker = Ticker::start(engine.clone()).map_err(SandboxError::Thread)?;
        let compilers = Compilers::new(config.compiler.clone());
        Ok(Self { config, engine, linker, world, ticker, cache, modules: Mutex::default(), compilers })
    }

    /// The module `hash`, whose bytes are `wasm`. Blocks while it compiles.
    ///
    /// # Errors
    /// When the bytes are not the module's, or are nothing that may run here.
    pub fn load(&self, hash: Hash, wasm: &[u8]) -> Result<Arc<Module>, ModuleError> {
        if let Some(module) = self.get(hash) {
            return Ok(module);
        }
        let cap = self.config.caps.module_limit.0;
        if wasm.len() as u64 > cap {
            return Err(ModuleError::TooLarge { size: wasm.len() as u64, cap });
        }
        let found = Hash::of(wasm);
        if found != hash {
            return Err(ModuleError::Hash { expected: hash, found });
        }
        let entries = module::inspect(wasm, self.config.memory_cap(), &self.config.caps)?;
        // Workers of one machine compile a module once, not each of them at the same time.
        let patience = compiler::patience(&self.config.caps);
        let _claim = self.cache.as_ref().and_then(|cache| cache.claim(hash, patience));
        let turn = self.compilers.turn();
        if let Some(module) = self.get(hash) {
            return Ok(module);
        }
        let compiled = match self.cached(hash) {
            Some(compiled) => compiled,
            None => self.compile(hash, wasm, turn)?,
        };
        let module = Arc::new(Module::link(hash, &compiled, entries, &self.linker)?);
        let mut modules = self.modules.lock();
        modules.push(Arc::clone(&module));
        if modules.len() > MODULES {
            modules.remove(0);
        }
        Ok(module)
    }

    /// The module `hash`, if it is loaded.
    #[must_use]
    pub fn get(&self, hash: Hash) -> Option<Arc<Module>> {
        let mut modules = self.modules.lock();
        let at = modules.iter().position(|module| module.hash() == hash)?;
        modules[at..].rotate_left(1);
        modules.last().cloned()
    }

    /// What tasks may have, as in force.
    #[must_use]
    pub fn config(&self) -> &SandboxConfig {
        &self.config
    }

    /// What guests see of the machine.
    pub(crate) fn world(&self) -> &Arc<World> {
        &self.world
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Keeps the epoch going until the guard is dropped.
    pub(crate) fn tick(&self) -> Ticking<'_> {
        self.ticker.shared.enter()
    }

    fn compile(&self, hash: Hash, wasm: &[u8], turn: Turn) -> Result<wasmtime::Module, ModuleError> {
        let compiled = self.compilers.compile(&self.engine, wasm, &self.config.caps, turn)?;
        let module = self.revive(&compiled).map_err(|error| ModuleError::Compile { reason: format!("{error:#}") })?;
        if let Some(cache) = &self.cache {
            cache.put(hash, &compiled);
        }
        Ok(module)
    }

    fn cached(&self, hash: Hash) -> Option<wasmtime::Module> {
        let compiled = self.cache.as_ref()?.get(hash)?;
        let module = self.revive(&compiled);
        module.inspect_err(|error| tracing::warn!(%error, "a cached module does not load, compiling again")).ok()
    }

    #[expect(unsafe_code, reason = "compiled code is trusted by nature")]
    fn revive(&self, compiled: &[u8]) -> wasmtime::Result<wasmtime::Module> {
        // SAFETY: the bytes are what `Engine::precompile_module` gave, to this process or to a child of its own, which nobody else could
        // write to; or the cache's keyed checksum held, whose secret is only in a directory that nobody but this user can read or write.
        unsafe { wasmtime::Module::deserialize(&self.engine, compiled) }
    }
}

/// An engine with pre-made rooms for instances, or without where the address space is too small for them.
fn engine(config: &SandboxConfig) -> wasmtime::Result<Engine> {
    let mut settings = settings();
    let stack = config.caps.stack_bytes();
    // The second is unused, but is not to be smaller.
    settings.max_wasm_stack(stack).async_stack_size(stack + (1 << 20));
    let rooms = config.slots.max(1).saturating_add(2);
    // Memory that an instance used goes back to the system: keeping some resident made a fresh one dearer (26 to 57 us, not 21).
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(rooms)
        .total_memories(rooms)
        .total_tables(rooms)
        .max_memories_per_module(1)
        .max_tables_per_module(1)
        .table_elements(config.caps.table_limit as usize)
        .max_memory_size(usize::try_from(config.memory_cap()).unwrap_or(usize::MAX));
    settings.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&settings).or_else(|error| {
        tracing::info!(error = %format!("{error:#}"), "no room for a pool of instances, making each on demand");
        settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        Engine::new(&settings)
    })
}

/// An engine that compiles what every other one can run, and runs nothing.
pub(super) fn for_compiling() -> wasmtime::Result<Engine> {
    Engine::new(settings().allocation_strategy(InstanceAllocationStrategy::OnDemand))
}

/// What decides how code is compiled.
fn settings() -> Config {
    let mut settings = Config::new();
    settings
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .wasm_simd(true)
        .wasm_multi_memory(false)
        .wasm_memory64(false)
        // Debug information of strangers is not read: it can be made to take for ever. The `name` section gives the frames.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable);
    settings
}

/// Stands for everything that decides whether compiled code fits this engine: version, settings, processor.
pub(super) fn fingerprint(engine: &Engine) -> [u8; 32] {
    struct Blake3(blake3::Hasher);
    impl Hasher for Blake3 {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            let [a, b, c, d, e, f, g, h, ..] = *self.0.finalize().as_bytes();
            u64::from_le_bytes([a, b, c, d, e, f, g, h])
        }
    }
    let mut hasher = Blake3(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    *hasher.0.finalize().as_bytes()
}

/// The thread that counts the epoch up while guests run.
struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    running: AtomicUsize,
    /// The thread sleeps, and has to be woken.
    parked: AtomicBool,
    stop: Mutex<bool>,
    wake: Condvar,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("quicsand-epoch".into()).spawn(move || own.tick(&engine))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.shared.stop.lock() = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the epoch thread panicked");
        }
    }
}

impl Shared {
    fn tick(&self, engine: &Engine) {
        let mut idle = 0;
        let mut stop = self.stop.lock();
        while !*stop {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
                engine.increment_epoch();
            } else {
                idle += 1;
            }
            if idle < IDLE_TICKS {
                self.wake.wait_for(&mut stop, TICK);
                continue;
            }
            // Whoever enters counts itself before it looks at `parked`, so one of the two sees the other.
            self.parked.store(true, Ordering::SeqCst);
            if self.running.load(Ordering::SeqCst) == 0 {
                self.wake.wait(&mut stop);
            }
            self.parked.store(false, Ordering::SeqCst);
            idle = 0;
        }
    }

    fn enter(&self) -> Ticking<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            drop(self.stop.lock());
            self.wake.notify_all();
        }
        Ticking(self)
    }
}

/// Something runs.
pub(crate) struct Ticking<'a>(&'a Shared);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}
