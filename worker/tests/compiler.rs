//! Compilation in a process of its own: it gives what runs, and ends at its limits.
#![cfg(unix)]

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use quicsand::{Size, abi, ids::Hash, ids::TaskId};
use quicsand_worker::sandbox::{Caps, Compiler, ModuleError, Sandbox, SandboxConfig};

/// A module whose compilation takes long: so many functions of a body of so many steps.
fn long_work(functions: u32, steps: usize) -> Vec<u8> {
    // local.get 0, i64.const 3, i64.mul, local.get 0, i64.xor, local.set 0
    let step = [0x20, 0, 0x42, 3, 0x7e, 0x20, 0, 0x85, 0x21, 0];
    let body: Vec<u8> = [0].into_iter().chain(step.repeat(steps)).chain([0x0b]).collect();
    let code: Vec<u8> = [leb(body.len()), body].concat();
    let mut wasm = b"\0asm\x01\0\0\0".to_vec();
    section(&mut wasm, 1, &[1, 0x60, 1, 0x7e, 0]);
    section(&mut wasm, 3, &[leb(functions as usize), vec![0; functions as usize]].concat());
    section(&mut wasm, 10, &[leb(functions as usize), code.repeat(functions as usize)].concat());
    section(&mut wasm, 0, &manifest());
    wasm
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

fn section(wasm: &mut Vec<u8>, id: u8, contents: &[u8]) {
    wasm.push(id);
    wasm.extend(leb(contents.len()));
    wasm.extend(contents);
}

fn manifest() -> Vec<u8> {
    let mut entry = abi::VERSION.to_le_bytes().to_vec();
    entry.extend(TaskId::of("run").0.to_le_bytes());
    entry.extend(0_u64.to_le_bytes());
    for text in ["run", "()", "run"] {
        entry.extend((text.len() as u32).to_le_bytes());
        entry.extend(text.as_bytes());
    }
    let name = abi::SECTION.as_bytes();
    [&leb(name.len())[..], name, &(entry.len() as u32).to_le_bytes(), &entry].concat()
}

fn small(number: i64) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 1) (func (export "quicsand_abi") (result i32) (i32.const 1))
            (func (export "quicsand_state") (result i32) (i32.const 16)) (func (export "quicsand_reset"))
            (func (export "quicsand_alloc") (param i32) (result i32) (i32.const 1024))
            (func (export "run") (param i32) (drop (i64.const {number}))))"#
    );
    let mut wasm = wat::parse_str(text).expect("valid text");
    section(&mut wasm, 0, &manifest());
    wasm
}

fn sandbox(change: impl FnOnce(&mut Caps)) -> Arc<Sandbox> {
    let mut config = SandboxConfig {
        slots: 2,
        compiler: Compiler::Command(env!("CARGO_BIN_EXE_quicsand").into()),
        ..SandboxConfig::default()
    };
    change(&mut config.caps);
    Arc::new(Sandbox::new(config).expect("an engine"))
}

fn load(sandbox: &Sandbox, wasm: &[u8]) -> Result<(), ModuleError> {
    sandbox.load(Hash::of(wasm), wasm).map(drop)
}

#[test]
fn what_a_child_compiled_is_taken() {
    // With limits under which this process could not hide that there is no child.
    let sandbox = sandbox(|caps| caps.compile_time = Duration::from_secs(60));
    assert_eq!(load(&sandbox, &small(1)), Ok(()));
    let mut invalid = small(2);
    let at = invalid.windows(2).rposition(|pair| pair == [0x42, 2]).expect("the constant");
    invalid[at] = 0x41;
    let refused = load(&sandbox, &invalid);
    assert!(refused.is_ok() || matches!(refused, Err(ModuleError::Compile { .. })), "{refused:?}");
    invalid[at] = 0x1a;
    assert!(matches!(load(&sandbox, &invalid), Err(ModuleError::Compile { .. })));
}

#[test]
fn compiling_ends_at_its_time_and_disturbs_nobody() {
    let sandbox = sandbox(|caps| caps.compile_time = Duration::from_secs(1));
    let began = Instant::now();
    thread::scope(|scope| {
        let long = scope.spawn(|| load(&sandbox, &long_work(400, 6_500)));
        let mut others = 0;
        while !long.is_finished() {
            assert_eq!(load(&sandbox, &small(others)), Ok(()), "others are compiled meanwhile");
            others += 1;
        }
        let refused = long.join().expect("no panic").expect_err("it takes longer");
        assert_eq!(refused, ModuleError::CompileTime { cap: Duration::from_secs(1) });
        assert!(
            refused.to_string().contains("1s of processor time that the worker's owner allows (--compile-time)"),
            "{refused}"
        );
        assert!(others > 0);
    });
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn compiling_ends_at_its_memory() {
    // One function as large as can be: it is in memory as a whole, in a form many times its size.
    let sandbox = sandbox(|caps| caps.compile_memory = Size(64 << 20));
    let refused = load(&sandbox, &long_work(1, 700_000)).expect_err("it takes more");
    assert_eq!(refused, ModuleError::CompileMemory { cap: 64 << 20 });
    assert!(refused.to_string().contains("the 64MiB of memory that the worker's owner allows (--compile-memory)"), "{refused}");
    assert_eq!(load(&sandbox, &small(0)), Ok(()), "what takes less is taken");
}

#[test]
fn a_command_of_another_kind_is_done_without() {
    let config = SandboxConfig { compiler: Compiler::Command("/bin/false".into()), ..SandboxConfig::default() };
    let refused = load(&Sandbox::new(config).expect("an engine"), &small(0)).expect_err("it compiles nothing");
    assert!(matches!(&refused, ModuleError::Compile { reason } if reason.contains("ended without an answer")), "{refused}");
}

#[test]
fn a_child_ends_with_its_parent() {
    use std::{io::Read, process::Stdio};
    let start = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_quicsand"));
        command.arg("compile-module").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts")
    };
    let mut child = start();
    drop(child.stdin.take());
    assert_eq!(child.wait().expect("ends").code(), Some(1), "nothing was asked");
    let mut child = start();
    let wasm = long_work(400, 6_500);
    let request =
        [&[0; 32][..], &(1_u64 << 30).to_le_bytes(), &60_u64.to_le_bytes(), &(wasm.len() as u64).to_le_bytes()].concat();
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut stdin, &[request, wasm].concat()).expect("takes it");
    let mut answer = Vec::new();
    child.stdout.take().expect("a pipe").read_to_end(&mut answer).expect("reads");
    assert_eq!(answer, [&[2][..], &[0; 8]].concat(), "a request for another version");
    drop(stdin);
    child.wait().expect("ends");
}
