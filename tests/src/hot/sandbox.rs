//! Batches in the sandbox. Apart from the others: they need a module, which is compiled first, and a thread of the sandbox's keeps the
//! time, so that they are measured by the clock only.

use std::{hint::black_box, sync::Arc};

use quicsand::{
    Module, Task as _,
    ids::{ClientId, EntryId, Hash},
};
use quicsand_worker::sandbox::{Control, Job, Runner, Sandbox, SandboxConfig, SandboxError};

use super::{ITEMS, codec::integers};
use crate::guest::inc;

/// A sandbox with the module that has [`inc`].
#[derive(Clone, Debug)]
pub struct Guest {
    sandbox: Arc<Sandbox>,
    module: Arc<quicsand_worker::sandbox::Module>,
}

/// A batch to measure.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// What it is called.
    pub name: &'static str,
    /// How many items it has.
    pub items: u32,
    /// Whether each run makes an instance.
    pub is_fresh: bool,
}

/// All of them.
pub const BATCHES: &[Batch] = &[
    Batch { name: "sandbox-fresh", items: 1, is_fresh: true },
    Batch { name: "sandbox-warm", items: 1, is_fresh: false },
    Batch { name: "sandbox-warm-batch", items: ITEMS, is_fresh: false },
];

impl Guest {
    /// Compiles the module of this package's tasks.
    ///
    /// # Errors
    /// When wasmtime does not run here, or the program was built without the module.
    pub fn new(module: Module) -> Result<Self, String> {
        let wasm = module.wasm()?;
        let refused = |error: SandboxError| error.to_string();
        let sandbox = Arc::new(Sandbox::new(SandboxConfig { slots: 1, ..SandboxConfig::default() }).map_err(refused)?);
        let module = sandbox.load(Hash::of(wasm), wasm).map_err(|error| error.to_string())?;
        Ok(Self { sandbox, module })
    }

    /// What runs a batch.
    #[must_use]
    pub fn prepare(&self, batch: Batch) -> Box<dyn FnMut()> {
        let (info, client) = (inc::info(), ClientId(1));
        let job = Job {
            module: Arc::clone(&self.module),
            client,
            task: info.id,
            name: info.name.into(),
            options: info.options.clone(),
            entry: EntryId { client, seq: 1 },
            first: 0,
            args: integers().slice(0..batch.items),
            holes: Vec::new(),
            worker: "here".into(),
        };
        let (mut runner, control) = (Runner::new(Arc::clone(&self.sandbox)), Control::new());
        Box::new(move || {
            if batch.is_fresh {
                runner.rest();
            }
            let result = runner.run(black_box(&job), &control);
            assert!(result.errors.is_empty() && result.values.count() == batch.items, "{:?}", result.errors);
            drop(black_box(result));
        })
    }
}
