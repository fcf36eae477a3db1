//! A module that may run: what is checked before and after it is compiled, and its table of tasks. Must not know: batches.

use std::{collections::HashMap, time::Duration};

use quicsand::{
    Size, abi,
    ids::{Hash, TaskId},
    manifest::{self, ManifestEntry, ManifestError},
};
use thiserror::Error;
use wasmparser::{Encoding, Parser, Payload, TypeRef};
use wasmtime::{ExternType, FuncType, InstancePre, Linker, ModuleExport, ValType};

use super::{
    caps::Caps,
    wasi::{self, Guest},
};

/// Names that an error lists at most.
const NAMES: usize = 10;

/// Why bytes are no module that may run here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The bytes are not the ones that were asked for.
    #[error("the module's bytes hash to {found}, not to {expected}: they were damaged on the way")]
    Hash {
        /// The name that it goes by.
        expected: Hash,
        /// The bytes' hash.
        found: Hash,
    },
    /// Too many bytes.
    #[error(
        "the module has {}, the worker's owner allows {} (--module-limit); build it with `strip = \"debuginfo\"` and optimised",
        Size(*size),
        Size(*cap)
    )]
    TooLarge {
        /// Its size.
        size: u64,
        /// The worker's cap.
        cap: u64,
    },
    /// Not WebAssembly in binary form.
    #[error("the bytes are no WebAssembly module; compile the tasks for wasm32-wasip1")]
    NotWasm,
    /// A component, not a core module.
    #[error("this is a WebAssembly component; compile the tasks for wasm32-wasip1, which gives a core module")]
    Component,
    /// WebAssembly that breaks its own rules, or uses proposals that are off here.
    #[error("the module is not valid: {reason}")]
    Invalid {
        /// What the validator said.
        reason: String,
    },
    /// Imports that nobody here provides.
    #[error("the module imports {}, which tasks cannot have; a dependency expects another platform", names.join(", "))]
    UnknownImports {
        /// `module::name` of the first few.
        names: Vec<String>,
    },
    /// An import of a known name with another type.
    #[error("an import of the module has a type of its own: {reason}")]
    ImportType {
        /// What the linker said.
        reason: String,
    },
    /// A start function, which would run before limits can be told apart by item.
    #[error("the module has a start function; link it with `--no-entry --export=__wasm_call_ctors`")]
    StartSection,
    /// The manifest is missing.
    #[error(
        "the module lists no tasks (its section `{}` is missing): was it built from a program with `#[task]` functions, and not stripped?",
        abi::SECTION
    )]
    NoTasks,
    /// The manifest cannot be read.
    #[error("the module cannot be used: {0}")]
    Manifest(#[from] ManifestError),
    /// An export that must be there is not, or has another type.
    #[error("the module's export `{name}` is missing or is not {expected}; rebuild it with this version of quicsand")]
    Export {
        /// Its name.
        name: String,
        /// What it ought to be.
        expected: &'static str,
    },
    /// More memory than a task may have on this worker, before anything runs.
    #[error(
        "the module starts with {} of memory, the worker's owner allows a task {} (--task-memory); make its statics smaller",
        Size(*initial),
        Size(*cap)
    )]
    MemoryTooLarge {
        /// What it starts with, in bytes.
        initial: u64,
        /// The worker's cap.
        cap: u64,
    },
    /// A larger table of functions than tasks may have, or several.
    #[error(
        "the module has {tables} tables, the largest of {elements} elements; the worker's owner allows one of {cap} (--table-limit)"
    )]
    TooManyElements {
        /// Number of tables.
        tables: u32,
        /// Elements in the largest.
        elements: u64,
        /// The worker's cap.
        cap: u32,
    },
    /// It could not be compiled.
    #[error("the module could not be compiled: {reason}")]
    Compile {
        /// What the compiler said.
        reason: String,
    },
    /// It took too long to compile.
    #[error(
        "compiling the module takes more than the {cap:?} of processor time that the worker's owner allows (--compile-time); make its functions smaller"
    )]
    CompileTime {
        /// The worker's cap.
        cap: Duration,
    },
    /// It took too much memory to compile.
    #[error("compiling the module takes more than the {} of memory that the worker's owner allows (--compile-memory); make its functions smaller", Size(*cap))]
    CompileMemory {
        /// The worker's cap, in bytes.
        cap: u64,
    },
    /// There is nobody to compile it, for which it is not to blame.
    #[error("the compiler could not be started: {reason}")]
    Compiler {
        /// What the system said.
        reason: String,
    },
}

impl ModuleError {
    /// Whether the module is not to blame, and may be taken another time.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Compiler { .. } | Self::Hash { .. })
    }
}

/// A compiled module, ready to be instantiated.
pub struct Module {
    hash: Hash,
    pre: InstancePre<Guest>,
    tasks: HashMap<TaskId, ModuleExport>,
    entries: Vec<ManifestEntry>,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module").field("hash", &self.hash).field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

impl Module {
    /// Its name.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Its tasks.
    #[must_use]
    pub fn entries(&self) -> &[ManifestEntry] {
        &self.entries
    }

    pub(crate) fn pre(&self) -> &InstancePre<Guest> {
        &self.pre
    }

    /// The export that runs a batch of `task`; its type has been checked.
    pub(crate) fn export(&self, task: TaskId) -> Option<&ModuleExport> {
        self.tasks.get(&task)
    }

    /// Checks what only a compiled module tells, and links it.
    pub(crate) fn link(
        hash: Hash,
        compiled: &wasmtime::Module,
        entries: Vec<ManifestEntry>,
        linker: &Linker<Guest>,
    ) -> Result<Self, ModuleError> {
        let export = |name: &str| compiled.get_export(name);
        let expect = |name: &str, holds: bool, expected: &'static str| {
            if holds { Ok(()) } else { Err(ModuleError::Export { name: name.into(), expected }) }
        };
        let memory = matches!(export("memory"), Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared());
        expect("memory", memory, "an unshared 32-bit memory")?;
        for name in [abi::EXPORT_ABI, abi::EXPORT_STATE] {
            expect(name, is_func(export(name), 0, 1), "a function () -> i32")?;
        }
        expect(abi::EXPORT_ALLOC, is_func(export(abi::EXPORT_ALLOC), 1, 1), "a function (i32) -> i32")?;
        expect(abi::EXPORT_RESET, is_func(export(abi::EXPORT_RESET), 0, 0), "a function ()")?;
        if let Some(constructors) = export(CONSTRUCTORS) {
            expect(CONSTRUCTORS, is_func(Some(constructors), 0, 0), "a function ()")?;
        }
        let mut tasks = HashMap::with_capacity(entries.len());
        for entry in &entries {
            expect(&entry.export, is_func(export(&entry.export), 1, 0), "a function (i32)")?;
            if let Some(index) = compiled.get_export_index(&entry.export) {
                tasks.insert(entry.id, index);
            }
        }
        let pre = linker.instantiate_pre(compiled).map_err(|error| ModuleError::ImportType { reason: format!("{error:#}") })?;
        Ok(Self { hash, pre, tasks, entries })
    }
}

/// The export that runs a module's constructors.
pub(crate) const CONSTRUCTORS: &str = "__wasm_call_ctors";

fn is_func(export: Option<ExternType>, params: usize, results: usize) -> bool {
    let all_i32 = |func: &FuncType| func.params().chain(func.results()).all(|ty| matches!(ty, ValType::I32));
    matches!(export, Some(ExternType::Func(func)) if func.params().len() == params && func.results().len() == results && all_i32(&func))
}

/// Checks what can be told without compiling, and reads the manifest.
pub(crate) fn inspect(wasm: &[u8], memory_cap: u64, caps: &Caps) -> Result<Vec<ManifestEntry>, ModuleError> {
    if !wasm.starts_with(b"\0asm") {
        return Err(ModuleError::NotWasm);
    }
    let mut section = Vec::new();
    let mut unknown = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Component, .. } => return Err(ModuleError::Component),
            Payload::StartSection { .. } => return Err(ModuleError::StartSection),
            Payload::CustomSection(custom) if custom.name() == abi::SECTION => section.extend_from_slice(custom.data()),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(invalid)?;
                    let func = matches!(import.ty, TypeRef::Func(_));
                    if !(func && import.module == wasi::MODULE && wasi::has(import.name)) && unknown.len() < NAMES {
                        unknown.push(shortened(format!("{}::{}", import.module, import.name)));
                    }
                }
            }
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let initial = memory.map_err(invalid)?.initial.saturating_mul(64 << 10);
                    if initial > memory_cap {
                        return Err(ModuleError::MemoryTooLarge { initial, cap: memory_cap });
                    }
                }
            }
            Payload::TableSection(tables) => {
                let count = tables.count();
                let mut elements = 0;
                for table in tables {
                    elements = elements.max(table.map_err(invalid)?.ty.initial);
                }
                if count > 1 || elements > u64::from(caps.table_limit) {
                    return Err(ModuleError::TooManyElements { tables: count, elements, cap: caps.table_limit });
                }
            }
            _ => {}
        }
    }
    if !unknown.is_empty() {
        return Err(ModuleError::UnknownImports { names: unknown });
    }
    let entries = manifest::read(&section)?;
    if entries.is_empty() { Err(ModuleError::NoTasks) } else { Ok(entries) }
}

fn invalid(error: wasmparser::BinaryReaderError) -> ModuleError {
    ModuleError::Invalid { reason: error.to_string() }
}

/// Names come from strangers: an error does not repeat them at any length.
fn shortened(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(100));
    name
}
