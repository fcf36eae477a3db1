//! The sandbox proof, bytes: forged, damaged and adversarial modules, none of which runs, and none of which disturbs what does.

use quicsand::{abi, ids::Hash, manifest::ManifestError};

use super::{
    super::{ModuleError, SandboxConfig},
    guest::{custom_section, guest, job, load, manifest, manifest_of, module, numbers, prelude, sandbox},
    *,
};

fn plain() -> Vec<u8> {
    wat::parse_str(format!("(module {})", prelude())).expect("valid text")
}

fn with_manifest(section: &[u8]) -> Result<Arc<super::super::Module>, ModuleError> {
    let mut wasm = plain();
    custom_section(&mut wasm, abi::SECTION, section);
    sandbox(|_| {}).load(Hash::of(&wasm), &wasm)
}

fn refusal(wasm: &[u8], change: impl FnOnce(&mut SandboxConfig)) -> ModuleError {
    sandbox(change).load(Hash::of(wasm), wasm).expect_err("refused")
}

#[test]
fn forged_manifests_are_refused() {
    let malformed = |section: &[u8]| match with_manifest(section) {
        Err(ModuleError::Manifest(ManifestError::Malformed)) => {}
        other => panic!("{section:?}: {other:?}"),
    };
    malformed(&u32::MAX.to_le_bytes());
    malformed(&[0; 3]);
    malformed(&0_u32.to_le_bytes());
    malformed(&manifest_of(abi::VERSION, [b"run", b"\xff\xfe", b"run"]));
    malformed(&manifest_of(abi::VERSION, [b"\xc0\x80", b"()", b"run"]));
    // Texts that claim more than there is: the first, the last.
    for at in [24, 24 + 4 + 3 + 4 + 15] {
        let mut long = manifest("run");
        long[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        malformed(&long);
    }
    let twice = [manifest("run"), manifest("quicsand_reset")].concat();
    assert_eq!(with_manifest(&twice).err(), Some(ModuleError::Manifest(ManifestError::Duplicate { name: "run".into() })));
    let version = with_manifest(&manifest_of(7, [b"run", b"()", b"run"]));
    assert_eq!(version.err(), Some(ModuleError::Manifest(ManifestError::Version { found: 7 })));
    // Exports that are there, but no task: another type, a memory, nothing.
    for name in ["quicsand_alloc", "quicsand_abi", "memory", "", "\0", &"x".repeat(100_000)] {
        assert!(matches!(with_manifest(&manifest(name)), Err(ModuleError::Export { .. })), "{name:.20}");
    }
    // Many entries, each of its own identity, are read once and then fail by their exports.
    let mut many = Vec::new();
    for id in 0..50_000_u64 {
        let mut entry = manifest("absent");
        entry[8..16].copy_from_slice(&id.to_le_bytes());
        many.extend(entry);
    }
    assert!(matches!(with_manifest(&many), Err(ModuleError::Export { name, .. }) if name == "absent"));
}

#[test]
fn exports_of_other_types_are_refused() {
    let good = [
        r#"(memory (export "memory") 1)"#,
        r#"(func (export "quicsand_abi") (result i32) (i32.const 1))"#,
        r#"(func (export "quicsand_state") (result i32) (i32.const 16))"#,
        r#"(func (export "quicsand_alloc") (param i32) (result i32) (i32.const 1024))"#,
        r#"(func (export "quicsand_reset"))"#,
        r#"(func (export "run") (param i32))"#,
    ];
    assert!(sandbox(|_| {}).load(Hash::of(&module(&good.concat())), &module(&good.concat())).is_ok());
    let bad = [
        r#"(func (export "memory"))"#,
        r#"(func (export "quicsand_abi") (result i64) (i64.const 1))"#,
        r#"(func (export "quicsand_state") (param i32) (result i32) (i32.const 16))"#,
        r#"(func (export "quicsand_alloc") (param i64) (result i32) (i32.const 1024))"#,
        r#"(global (export "quicsand_reset") i32 (i32.const 0))"#,
        r#"(func (export "run") (param i32) (result i32) (i32.const 0))"#,
    ];
    for (at, bad) in bad.iter().enumerate() {
        let mut fields = good;
        fields[at] = bad;
        let refused = refusal(&module(&fields.concat()), |_| {});
        assert!(matches!(refused, ModuleError::Export { .. }), "{bad}: {refused}");
        fields[at] = "";
        assert!(matches!(refusal(&module(&fields.concat()), |_| {}), ModuleError::Export { .. }), "{bad}");
    }
    let constructors = format!(r#"{} (func (export "__wasm_call_ctors") (param i32))"#, good.concat());
    assert!(matches!(refusal(&module(&constructors), |_| {}), ModuleError::Export { .. }));
}

#[test]
fn what_tasks_cannot_have_is_not_imported() {
    for import in [
        r#"(import "wasi_snapshot_preview1" "fd_write" (memory 1))"#,
        r#"(import "wasi_snapshot_preview1" "fd_write" (global i32))"#,
        r#"(import "wasi_snapshot_preview1" "fd_write" (table 1 funcref))"#,
        r#"(import "wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#,
        r#"(import "wasi_snapshot_preview1" "FD_WRITE" (func))"#,
        r#"(import "wasi_snapshot_preview1" "sock_open" (func))"#,
        r#"(import "wasi" "thread-spawn" (func (param i32) (result i32)))"#,
        r#"(import "" "" (func))"#,
        r#"(import "env" "memory" (memory 1 2 shared))"#,
    ] {
        assert!(matches!(refusal(&module(import), |_| {}), ModuleError::UnknownImports { .. }), "{import}");
    }
    let long = refusal(&module(&format!(r#"(import "env" "{}" (func))"#, "x".repeat(100_000))), |_| {});
    assert!(long.to_string().len() < 400, "an error repeats no name at any length");
}

#[test]
fn proposals_that_are_off_are_refused() {
    for field in [
        r#"(memory i64 1)"#,
        r#"(memory 1 2 shared)"#,
        r#"(memory 1) (memory 1)"#,
        r#"(memory 1) (func (drop (i32.atomic.load (i32.const 0))))"#,
        r#"(memory 1) (func (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))"#,
        r#"(table i64 1 funcref)"#,
        r#"(type (struct (field i32)))"#,
        r#"(type (array i8)) (func (drop (array.new_default 0 (i32.const 1000000000))))"#,
        r#"(tag (param i32)) (func (throw 0 (i32.const 1)))"#,
        r#"(memory 1 (pagesize 1))"#,
        r#"(type $f (func)) (type $c (cont $f))"#,
        r#"(func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))"#,
    ] {
        let refused = refusal(&module(field), |_| {});
        assert!(matches!(refused, ModuleError::Compile { .. } | ModuleError::Invalid { .. }), "{field}: {refused}");
    }
}

#[test]
fn only_webassembly_is_taken() {
    let engine = wasmtime::Engine::default();
    let compiled = engine.precompile_module(&guest("(local.get $x)")).expect("compiles");
    assert_eq!(refusal(&compiled, |_| {}), ModuleError::NotWasm);
    for bytes in [&b"\0asm"[..], b"\0asm\x02\0\0\0", b"\0asm\x01\0\0\0", b"\x7fELF", b"#!/bin/sh", &[0; 100], &[0xff; 100]] {
        let refused = refusal(bytes, |_| {});
        let expected = matches!(refused, ModuleError::NotWasm | ModuleError::Invalid { .. } | ModuleError::NoTasks);
        assert!(expected, "{bytes:?}: {refused}");
    }
}

#[test]
fn enormous_declarations_take_up_nothing() {
    let cap = |config: &mut SandboxConfig| config.caps.task_memory = Some(Size(1 << 30));
    assert!(matches!(refusal(&module("(memory 65536)"), cap), ModuleError::MemoryTooLarge { initial: 4_294_967_296, .. }));
    assert!(matches!(refusal(&module("(table 4294967295 funcref)"), |_| {}), ModuleError::TooManyElements { .. }));
    // Section and item counts far beyond the bytes that are there: types, functions, data, code.
    for (id, count) in [(1, 5), (3, 5), (11, 5), (10, 5), (2, 5), (9, 5), (4, 5), (5, 5)] {
        let mut wasm = b"\0asm\x01\0\0\0".to_vec();
        wasm.extend([id, count, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        custom_section(&mut wasm, abi::SECTION, &manifest("run"));
        let refused = refusal(&wasm, |_| {});
        assert!(
            matches!(refused, ModuleError::Invalid { .. } | ModuleError::Compile { .. } | ModuleError::TooManyElements { .. }),
            "{id}: {refused}"
        );
    }
}

#[test]
fn data_outside_the_memory_ends_the_item() {
    let sandbox = sandbox(|_| {});
    for data in [r#"(data (i32.const 524286) "abcd")"#, r#"(data (i32.const -1) "a")"#] {
        let module = load(&sandbox, &guest::guest_of("", data, "(local.get $x)"));
        let result = run(&sandbox, &job(&module, 0..2));
        let kinds: Vec<_> = result.errors.iter().map(|error| error.error.kind.clone()).collect();
        assert_eq!(kinds, [TaskErrorKind::Trapped, TaskErrorKind::Trapped], "{data}");
    }
}

#[test]
fn invalid_custom_sections_are_nobodys_trouble() {
    let mut names = guest("(unreachable)");
    // A second list of names that makes no sense: claims of any length, indices of functions that are not there.
    custom_section(&mut names, "name", &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2, 3]);
    custom_section(&mut names, "name", &[0xff; 64]);
    custom_section(&mut names, ".debug_info", &[0xff; 1000]);
    custom_section(&mut names, "producers", &[0xff; 64]);
    custom_section(&mut names, "sourceMappingURL", b"file:///etc/passwd");
    let sandbox = sandbox(|_| {});
    let result = run(&sandbox, &job(&load(&sandbox, &names), [0]));
    assert_eq!(result.errors[0].error.message, "it aborted");
    let cut = [&guest("(local.get $x)")[..], &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat();
    assert!(matches!(refusal(&cut, |_| {}), ModuleError::Invalid { .. }));
}

#[test]
fn damaged_modules_are_refused_or_run_within_their_limits() {
    let good = guest("(call $print) (i64.add (local.get $x) (i64.const 1))");
    let sandbox = sandbox(|_| {});
    for end in (8..good.len()).step_by(5) {
        assert!(sandbox.load(Hash::of(&good[..end]), &good[..end]).is_err(), "cut at {end}");
    }
    let (mut ran, mut seed) = (0, 1_u64);
    for _ in 0..300 {
        let mut bad = good.clone();
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = 8 + (seed >> 33) as usize % (bad.len() - 8);
        bad[at] = bad[at].wrapping_add((seed >> 20) as u8 | 1);
        if let Ok(module) = sandbox.load(Hash::of(&bad), &bad) {
            let mut job = job(&module, 0..3);
            job.options.timeout = Some(Duration::from_millis(10));
            job.options.memory = 16 << 20;
            if module.export(job.task).is_some() {
                let result = run(&sandbox, &job);
                assert_eq!(result.values.count(), 3);
                ran += 1;
            }
        }
    }
    assert!(ran > 0, "not all damage shows");
    assert_eq!(numbers(&run(&sandbox, &job(&load(&sandbox, &good), [1])).values), [Some(2)], "nothing has suffered");
}
