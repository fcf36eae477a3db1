//! Guests in WebAssembly text that speak the ABI. Items take an `i64` of eight bytes (or nothing) and give eight bytes.

use bytes::Bytes;
use quicsand::{
    Options, abi,
    codec::{Run, RunBuilder},
    ids::{ClientId, EntryId, Hash, TaskId},
};

use super::super::{Job, Module, Sandbox, SandboxConfig};
use std::sync::Arc;

/// The state is at 16, results are at 64 Ki, their lengths at 32 Ki, room for the host is at 128 Ki.
const PRELUDE: &str = r#"
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (memory (export "memory") 8)
    (global $constructed (mut i32) (i32.const 0))
    (global $calls (mut i32) (i32.const 0))
    (global $leaked (mut i32) (i32.const 0))
    (data (i32.const 1024) "hello\n")
    (data (i32.const 1040) "src/lib.rs:7:5\noh no")
    (func (export "__wasm_call_ctors") (global.set $constructed (i32.add (global.get $constructed) (i32.const 1))))
    (func (export "quicsand_abi") (result i32) (i32.const 1))
    (func (export "quicsand_state") (result i32) (i32.const 16))
    (func (export "quicsand_alloc") (param $len i32) (result i32)
        (local $pages i32)
        (local.set $pages (i32.sub (i32.shr_u (i32.add (local.get $len) (i32.const 196607)) (i32.const 16)) (memory.size)))
        (if (i32.gt_s (local.get $pages) (i32.const 0)) (then (drop (memory.grow (local.get $pages)))))
        (i32.const 131072))
    (func (export "quicsand_reset") (memory.fill (i32.const 16) (i32.const 0) (i32.const 28)))
    (func $finish (param $item i32) (param $value i64)
        (i64.store (i32.add (i32.const 65536) (i32.mul (local.get $item) (i32.const 8))) (local.get $value))
        (i32.store (i32.add (i32.const 32768) (i32.mul (local.get $item) (i32.const 4))) (i32.const 8))
        (i32.store (i32.const 24) (i32.const 65536))
        (i32.store (i32.const 28) (i32.mul (i32.add (local.get $item) (i32.const 1)) (i32.const 8)))
        (i32.store (i32.const 32) (i32.const 32768))
        (i32.store (i32.const 20) (i32.add (local.get $item) (i32.const 1))))
    (func $print
        (i32.store (i32.const 1000) (i32.const 1024)) (i32.store (i32.const 1004) (i32.const 6))
        (drop (call $fd_write (i32.const 1) (i32.const 1000) (i32.const 1) (i32.const 1008))))
    (func $sleep (param $ns i64)
        (memory.fill (i32.const 1100) (i32.const 0) (i32.const 48))
        (i32.store (i32.const 1116) (i32.const 1))
        (i64.store (i32.const 1124) (local.get $ns))
        (drop (call $poll (i32.const 1100) (i32.const 1200) (i32.const 1) (i32.const 1240))))
    (func $grow_forever (loop $again (drop (memory.grow (i32.const 16))) (br $again)))
    (func $recurse (param i32) (result i32) (i32.add (call $recurse (i32.add (local.get 0) (i32.const 1))) (local.get 0)))
"#;

/// A guest whose task `run` computes `$value` from argument `$x` of item `$item`; the body leaves an `i64`.
pub(crate) fn guest(body: &str) -> Vec<u8> {
    guest_with("", body)
}

/// The same, with imports of its own.
pub(crate) fn guest_with(imports: &str, body: &str) -> Vec<u8> {
    guest_of(imports, "", body)
}

/// The same, with further fields besides.
pub(crate) fn guest_of(imports: &str, fields: &str, body: &str) -> Vec<u8> {
    module(&format!(
        r#"{imports} {PRELUDE} {fields}
        (func $body (param $item i32) (param $x i64) (result i64) {body})
        (func (export "run") (param $batch i32)
            (local $item i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (loop $next
                (i32.store (i32.const 16) (i32.add (local.get $item) (i32.const 1)))
                (call $finish (local.get $item) (call $body (local.get $item)
                    (i64.load (i32.add (i32.load offset=4 (local.get $batch)) (i32.mul (local.get $item) (i32.const 8))))))
                (br_if $next (i32.lt_u
                    (local.tee $item (i32.add (local.get $item) (i32.const 1)))
                    (i32.load (local.get $batch))))))"#
    ))
}

/// A guest whose task `run` is this, with all of the batch to itself.
pub(crate) fn raw(run: &str) -> Vec<u8> {
    module(&format!(r#"{PRELUDE} (func (export "run") (param $batch i32) {run})"#))
}

/// What a guest has but its task.
pub(crate) fn prelude() -> &'static str {
    PRELUDE
}

/// A module of these fields, with a manifest that lists the task `run`.
pub(crate) fn module(fields: &str) -> Vec<u8> {
    let mut wasm = wat::parse_str(format!("(module {fields})")).expect("valid text");
    custom_section(&mut wasm, abi::SECTION, &manifest("run"));
    wasm
}

pub(crate) fn manifest(export: &str) -> Vec<u8> {
    manifest_of(abi::VERSION, [b"run", b"(x: i64) -> i64", export.as_bytes()])
}

/// An entry of any version with any texts.
pub(crate) fn manifest_of(version: u32, texts: [&[u8]; 3]) -> Vec<u8> {
    let mut entry = version.to_le_bytes().to_vec();
    entry.extend(TaskId::of("run").0.to_le_bytes());
    entry.extend(0_u64.to_le_bytes());
    for text in texts {
        entry.extend((text.len() as u32).to_le_bytes());
        entry.extend(text);
    }
    [&(entry.len() as u32).to_le_bytes()[..], &entry].concat()
}

pub(crate) fn custom_section(wasm: &mut Vec<u8>, name: &str, data: &[u8]) {
    let len = 1 + name.len() + data.len();
    let part = |shift: usize| (len >> shift & 0x7f) as u8;
    wasm.extend([0, part(0) | 0x80, part(7) | 0x80, part(14) | 0x80, part(21), name.len() as u8]);
    wasm.extend(name.as_bytes());
    wasm.extend(data);
}

/// A sandbox for one test.
pub(crate) fn sandbox(change: impl FnOnce(&mut SandboxConfig)) -> Arc<Sandbox> {
    let mut config = SandboxConfig { slots: 2, ..SandboxConfig::default() };
    change(&mut config);
    Arc::new(Sandbox::new(config).expect("an engine"))
}

pub(crate) fn load(sandbox: &Sandbox, wasm: &[u8]) -> Arc<Module> {
    sandbox.load(Hash::of(wasm), wasm).expect("loads")
}

/// A job of `run` with one item for each number.
pub(crate) fn job(module: &Arc<Module>, items: impl IntoIterator<Item = i64>) -> Job {
    let mut args = RunBuilder::default();
    for item in items {
        args.push(&item.to_le_bytes()).expect("short");
    }
    job_of(module, args.take())
}

pub(crate) fn job_of(module: &Arc<Module>, args: Run) -> Job {
    let client = ClientId(1);
    Job {
        module: Arc::clone(module),
        client,
        task: TaskId::of("run"),
        name: "run".into(),
        options: Options::DEFAULT,
        entry: EntryId { client, seq: 5 },
        first: 100,
        args,
        holes: Vec::new(),
        worker: "here".into(),
    }
}

/// The numbers in a batch's values; `None` where there is none.
pub(crate) fn numbers(values: &Run) -> Vec<Option<i64>> {
    values.iter().map(|value| value.try_into().ok().map(i64::from_le_bytes)).collect()
}

pub(crate) fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}
