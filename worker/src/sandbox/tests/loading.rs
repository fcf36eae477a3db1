//! What is a module, what is not, and what the cache does with it.

use std::{fs, thread, time::Duration};

use quicsand::{abi, ids::Hash, manifest::ManifestError};

use super::{
    super::{Compiler, ModuleError, SandboxConfig, cache::Cache, engine},
    guest::{custom_section, guest, job, load, manifest, module, numbers, sandbox},
    *,
};

fn refusal(wasm: &[u8], change: impl FnOnce(&mut SandboxConfig)) -> ModuleError {
    sandbox(change).load(Hash::of(wasm), wasm).expect_err("refused")
}

#[test]
fn what_is_no_module_is_refused() {
    let good = guest("(local.get $x)");
    assert!(matches!(sandbox(|_| {}).load(Hash([0; 32]), &good), Err(ModuleError::Hash { .. })));
    assert!(matches!(refusal(&good, |config| config.caps.module_limit = Size(10)), ModuleError::TooLarge { cap: 10, .. }));
    assert!(matches!(refusal(&good, |config| config.caps.task_memory = Some(Size(1 << 16))), ModuleError::MemoryTooLarge { .. }));
    assert_eq!(refusal(b"(module)", |_| {}), ModuleError::NotWasm);
    assert_eq!(refusal(b"", |_| {}), ModuleError::NotWasm);
    assert_eq!(refusal(&wat::parse_str("(component)").expect("valid text"), |_| {}), ModuleError::Component);
    assert!(matches!(refusal(&good[..good.len() / 2], |_| {}), ModuleError::Invalid { .. }));
    assert!(matches!(refusal(&module("(func (result i32))"), |_| {}), ModuleError::Compile { .. }));
    assert!(matches!(refusal(&module("(func)"), |_| {}), ModuleError::Export { .. }));
    let start = module("(func $start) (start $start)");
    assert_eq!(refusal(&start, |_| {}), ModuleError::StartSection);
    let tables = module("(table 1 funcref) (table 100 funcref)");
    assert_eq!(refusal(&tables, |_| {}), ModuleError::TooManyElements { tables: 2, elements: 100, cap: 100_000 });
    let large = module("(table 100001 funcref)");
    assert!(matches!(refusal(&large, |_| {}), ModuleError::TooManyElements { tables: 1, .. }));
}

#[test]
fn manifests_are_checked() {
    let plain = wat::parse_str("(module)").expect("valid text");
    assert_eq!(refusal(&plain, |_| {}), ModuleError::NoTasks);
    let mut cut = plain.clone();
    custom_section(&mut cut, abi::SECTION, &manifest("run")[..20]);
    assert_eq!(refusal(&cut, |_| {}), ModuleError::Manifest(ManifestError::Malformed));
    let mut missing = guest("(local.get $x)");
    let len = missing.len() - "run".len();
    missing.truncate(len);
    missing.extend(b"ran");
    assert!(matches!(refusal(&missing, |_| {}), ModuleError::Export { name, .. } if name == "ran"));
}

#[test]
fn unknown_imports_are_named() {
    let wasm = module(
        r#"(import "env" "print" (func)) (import "env" "memory" (memory 1))
           (import "wasi_snapshot_preview1" "fd_fly" (func)) (import "wasi_snapshot_preview1" "sched_yield" (func (result i32)))"#,
    );
    let names = ["env::print", "env::memory", "wasi_snapshot_preview1::fd_fly"].map(String::from).to_vec();
    assert_eq!(refusal(&wasm, |_| {}), ModuleError::UnknownImports { names });
}

#[test]
fn imports_of_another_type_are_refused() {
    let text = guest("(local.get $x)");
    let good = sandbox(|_| {}).load(Hash::of(&text), &text);
    assert!(good.is_ok());
    let exports = r#"(memory (export "memory") 1) (func (export "run") (param i32)) (func (export "quicsand_reset"))
        (func (export "quicsand_abi") (result i32) (i32.const 1)) (func (export "quicsand_state") (result i32) (i32.const 16))
        (func (export "quicsand_alloc") (param i32) (result i32) (i32.const 16))"#;
    let wasm = module(&format!(r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i64))) {exports}"#));
    assert!(matches!(refusal(&wasm, |_| {}), ModuleError::ImportType { .. }));
}

#[test]
fn a_damaged_cache_is_compiled_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let wasm = guest("(i64.add (local.get $x) (i64.const 1))");
    let start = || sandbox(|config| config.cache_dir = Some(dir.path().into()));
    let works = || {
        let sandbox = start();
        let module = load(&sandbox, &wasm);
        assert_eq!(numbers(&run(&sandbox, &job(&module, [1])).values), [Some(2)]);
    };
    works();
    let file = fs::read_dir(dir.path().join("compiled"))
        .expect("is there")
        .map(|entry| entry.expect("is there").path())
        .find(|path| path.extension().is_some())
        .expect("a compiled module");
    let whole = fs::read(&file).expect("is there");
    works();
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [&flipped[..], &whole[..middle], b"", &[0xff; 200]] {
        fs::write(&file, bad).expect("writes");
        works();
        assert!(fs::read(&file).expect("is there") == whole, "written anew");
    }
}

#[test]
fn what_another_process_compiles_is_waited_for() {
    let [dir, other] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
    let wasm = guest("(local.get $x)");
    let hash = Hash::of(&wasm);
    load(&sandbox(|config| config.cache_dir = Some(other.path().into())), &wasm);
    let waits = sandbox(|config| {
        config.cache_dir = Some(dir.path().into());
        config.compiler = Compiler::Command("/nowhere/quicsand".into());
    });
    assert!(matches!(waits.load(hash, &wasm), Err(ModuleError::Compiler { .. })), "it cannot compile");
    let open = |dir: &tempfile::TempDir| Cache::open(dir.path(), engine::fingerprint(waits.engine())).expect("opens");
    let claim = open(&dir).claim(hash, Duration::MAX).expect("nobody else has it");
    thread::scope(|scope| {
        let loading = scope.spawn(|| waits.load(hash, &wasm).map(|module| module.hash()));
        open(&dir).put(hash, &open(&other).get(hash).expect("was compiled"));
        drop(claim);
        assert_eq!(loading.join().expect("ends"), Ok(hash));
    });
}

#[test]
fn modules_stay_loaded() {
    let sandbox = sandbox(|_| {});
    let wasm = guest("(local.get $x)");
    assert!(sandbox.get(Hash::of(&wasm)).is_none());
    let module = load(&sandbox, &wasm);
    assert!(Arc::ptr_eq(&module, &load(&sandbox, &wasm)));
    assert_eq!(module.entries()[0].name, "run");
}
