#!/usr/bin/env bash
# Makes a compiler for tasks (wasm32-wasip1) ready: the present toolchain's own where rustup can add the target, else one made of
# Debian's packages, linked as `quicsand-guest`. Safe to run twice: what works already is left alone.
#
# usage: guest-toolchain.sh [SYSROOT]
#   SYSROOT                where a toolchain made of packages goes ($XDG_DATA_HOME/quicsand/guest-toolchain)
#   QUICSAND_SETUP_LINK    what rustup is to call it (quicsand-guest)
#   QUICSAND_SETUP_FROM    `rustup` or `packages`: try only this
#   QUICSAND_RUSTC         the compiler that guests are built with, if you have one: then only this is looked at
set -euo pipefail

target=wasm32-wasip1
sysroot=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/quicsand/guest-toolchain}
link=${QUICSAND_SETUP_LINK:-quicsand-guest}
from=${QUICSAND_SETUP_FROM:-}

# What an outer cargo has set is not meant for the builds here.
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET CARGO_BUILD_TARGET_DIR CARGO_ENCODED_RUSTFLAGS RUSTFLAGS RUSTC RUSTC_WRAPPER CARGO_MAKEFLAGS

work=$(mktemp -d)
stage=
trap 'rm -rf "$work" ${stage:+"$stage"}' EXIT

say() { printf 'quicsand: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Whether a compiler makes working guests: one program with threads (std refers to them) and optimization across crates (which
# needs a library with bitcode) says more than files that exist.
works() {
    printf 'fn main() { println!("{}", std::thread::spawn(|| 1).join().is_ok()); }\n' >"$work/probe.rs"
    "$1" --edition 2024 --target $target -Copt-level=1 -Clto=fat -Cpanic=abort -o "$work/probe.wasm" "$work/probe.rs" \
        >"$work/probe.log" 2>&1 </dev/null && [ -s "$work/probe.wasm" ]
}

ready() {
    say "the guest toolchain is ready: $("$1" --version) for $target"
    exit 0
}

if [ -n "${QUICSAND_RUSTC:-}" ]; then
    works "$QUICSAND_RUSTC" && ready "$QUICSAND_RUSTC"
    cat "$work/probe.log" >&2
    fail "QUICSAND_RUSTC names $QUICSAND_RUSTC, which does not compile for $target; unset it and run this again"
fi

if [ "$from" != packages ]; then
    have rustc && works rustc && ready rustc
fi
if [ "$from" != rustup ] && [ -x "$sysroot/bin/rustc" ] && works "$sysroot/bin/rustc"; then
    if have rustup && ! rustup toolchain list | grep -q "^$link\b"; then
        rustup toolchain link "$link" "$sysroot"
    fi
    ready "$sysroot/bin/rustc"
fi

# The usual way.
if [ "$from" != packages ] && have rustup; then
    say "adding $target to the Rust toolchain"
    if rustup target add $target >"$work/rustup.log" 2>&1 </dev/null && works rustc; then
        ready rustc
    fi
    say "rustup could not: $(grep -m1 -i error "$work/rustup.log" || tail -n1 "$work/rustup.log")"
fi
[ "$from" = rustup ] && exit 1

# Debian's way: a current compiler (rustc-web), its library's source, and a C library for the target.
by_hand="install $target for your Rust toolchain, or set QUICSAND_RUSTC to a rustc that has it"
have apt-get || fail "there is no $target here and no apt-get to make it from packages: $by_hand"
have cargo || fail "cargo is needed to build the library for $target: $by_hand"
packages="rustc-web rust-web-src wasi-libc"
missing=
for package in $packages; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done
if [ -n "$missing" ]; then
    as_root=
    if [ "$(id -u)" != 0 ]; then
        have sudo || fail "installing$missing needs root: run \`apt-get install$missing\` as root, then this again"
        as_root=sudo
    fi
    say "installing$missing"
    install() {
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$work/apt.log" 2>&1 </dev/null
    }
    install || { $as_root apt-get update >"$work/update.log" 2>&1 </dev/null && install; } || {
        tail -n 5 "$work/apt.log" >&2
        fail "the packages$missing could not be installed: $by_hand"
    }
fi

host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$tools/rust-lld" ] || fail "the Rust toolchain has no rust-lld ($tools): $by_hand"
libc=/usr/lib/wasm32-wasi
for file in /usr/bin/rustc "$libc/libc.a" "/usr/lib/rustlib/$host/lib" /usr/lib/rustlib/src/rust/library; do
    [ -e "$file" ] || fail "$file is not where the packages should have put it: $by_hand"
done

say "building the library for $target with $(/usr/bin/rustc --version)"
mkdir -p "$(dirname "$sysroot")"
stage=$(mktemp -d "$(dirname "$sysroot")/.guest-toolchain.XXXXXX")
lib=$stage/lib/rustlib/$target/lib
mkdir -p "$stage/bin" "$lib/self-contained" "$stage/lib/rustlib/$host"
ln -s "/usr/lib/rustlib/$host/lib" "$stage/lib/rustlib/$host/lib"
ln -s "$tools" "$stage/lib/rustlib/$host/bin"
compiler() { printf '#!/bin/sh\nexec /usr/bin/rustc --sysroot "%s" "$@"\n' "$1"; }
compiler "$stage" >"$stage/bin/rustc"
chmod 755 "$stage" "$stage/bin/rustc"

mkdir "$work/src"
echo '#![no_std]' >"$work/src/lib.rs"
printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n' >"$work/Cargo.toml"
# Without bitcode in the library, guests could not be optimized across crates.
(cd "$work" && RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes \
    cargo build --quiet --release --target $target --target-dir "$work/target" -Zbuild-std=std,panic_abort,test </dev/null) ||
    fail "the library for $target could not be built (see above): $by_hand"
cp "$work/target/$target/release/deps/"*.rlib "$lib/"
rm -f "$lib"/libempty*

# The packaged C library has no threads, but std refers to them: creating one fails with ENOTSUP (58).
cat >"$work/threads.rs" <<'R'
#![no_std]
type P = *mut u8;
#[unsafe(no_mangle)] extern "C" fn pthread_create(_: P, _: P, _: P, _: P) -> i32 { 58 }
#[unsafe(no_mangle)] extern "C" fn pthread_join(_: P, _: P) -> i32 { 58 }
#[unsafe(no_mangle)] extern "C" fn pthread_detach(_: P) -> i32 { 58 }
#[unsafe(no_mangle)] extern "C" fn pthread_attr_init(_: P) -> i32 { 0 }
#[unsafe(no_mangle)] extern "C" fn pthread_attr_setstacksize(_: P, _: usize) -> i32 { 0 }
#[unsafe(no_mangle)] extern "C" fn pthread_attr_destroy(_: P) -> i32 { 0 }
R
"$stage/bin/rustc" --edition 2024 --target $target --crate-type lib --emit obj -Copt-level=s -Cpanic=abort -o "$work/threads.o" "$work/threads.rs"
for crt in crt1-command crt1-reactor; do
    "$tools/rust-lld" -flavor wasm -r "$libc/$crt.o" "$work/threads.o" -o "$lib/self-contained/$crt.o"
done
cp "$libc/libc.a" "$lib/self-contained/"

works "$stage/bin/rustc" || {
    cat "$work/probe.log" >&2
    fail "the toolchain that was made does not work (see above): $by_hand"
}
# Whoever builds meanwhile sees the old toolchain or the new one, never half of one.
compiler "$sysroot" >"$stage/bin/rustc"
rm -rf "$sysroot.old"
[ ! -e "$sysroot" ] || mv "$sysroot" "$sysroot.old"
mv "$stage" "$sysroot"
stage=
rm -rf "$sysroot.old"
if have rustup; then
    rustup toolchain link "$link" "$sysroot"
fi
ready "$sysroot/bin/rustc"
