//! The expression for a program's module: `embed!`, and what `#[quicsand::main]` installs. Owns: when a module is built, and what
//! makes cargo build it again. Must not know: how it is built.

use std::{
    env,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Error, LitStr};

use crate::{
    attributes::{self, ModuleAttributes},
    build::{GuestBuild, NESTED},
    invocation::Invocation,
    toolchain,
};

/// Expands `embed!(args)`.
pub(crate) fn expand_embed(args: TokenStream) -> (TokenStream, Vec<Error>) {
    let mut errors = Vec::new();
    let attributes = ModuleAttributes::read(args, &mut errors);
    let invocation = Invocation::of_real_build();
    let tokens = expression(&attributes, invocation.as_ref().filter(|_| errors.is_empty()), &mut errors);
    // An expression has to stay one, whatever is wrong.
    let problems: Vec<TokenStream> = errors.drain(..).map(|error| error.to_compile_error()).collect();
    (quote!({ #(#problems;)* #tokens }), errors)
}

/// The module as an expression; `invocation` is the build it is wanted for, if any.
pub(crate) fn expression(attributes: &ModuleAttributes, invocation: Option<&Invocation>, errors: &mut Vec<Error>) -> TokenStream {
    let root = attributes::root_or_default(attributes.root.as_ref());
    let Some(invocation) = invocation.filter(|_| env::var_os(NESTED).is_none()) else {
        let reason = "it was only checked, or built for WebAssembly itself";
        return quote!(#root::__private::Module::missing(#reason));
    };
    let module = match made(invocation, attributes.tasks.as_ref()) {
        Ok(Made::Module(path)) => {
            let path = path.to_string_lossy();
            quote!(#root::__private::Module::embedded(::core::include_bytes!(#path)))
        }
        Ok(Made::Nothing { reason, marker }) => {
            let marker = marker.as_ref().map(|path| path.to_string_lossy());
            let marker = marker.iter();
            quote!({
                #(const _: &[u8] = ::core::include_bytes!(#marker);)*
                #root::__private::Module::missing(#reason)
            })
        }
        Err(message) => {
            errors.push(Error::new(attributes.tasks.as_ref().map_or_else(Span::call_site, LitStr::span), message));
            quote!(#root::__private::Module::missing("it could not be built"))
        }
    };
    // Cargo cannot see what a macro reads; these tell it.
    quote!({
        const _: (::core::option::Option<&str>, ::core::option::Option<&str>) =
            (::core::option_env!("QUICSAND_MODULE"), ::core::option_env!("QUICSAND_RUSTC"));
        #module
    })
}

/// What came of it.
enum Made {
    Module(PathBuf),
    Nothing {
        reason: String,
        /// A file that is newer than any build: cargo builds the program again, until there is a toolchain.
        marker: Option<PathBuf>,
    },
}

fn made(invocation: &Invocation, tasks: Option<&LitStr>) -> Result<Made, String> {
    if let Some(path) = env::var_os("QUICSAND_MODULE").filter(|path| !path.is_empty()) {
        return given(Path::new(&path)).map(Made::Module);
    }
    match toolchain::find() {
        Ok(rustc) => {
            let package = tasks.map(LitStr::value);
            GuestBuild { invocation, rustc: &rustc, package }.run().map(Made::Module)
        }
        Err(reason) => Ok(Made::Nothing { reason, marker: marker(&invocation.target_dir()).ok() }),
    }
}

/// The file that takes the place of the guest build.
fn given(path: &Path) -> Result<PathBuf, String> {
    let cannot = |error: io::Error| format!("QUICSAND_MODULE names `{}`, which cannot be read: {error}", path.display());
    let absolute = path.canonicalize().map_err(cannot)?;
    let mut magic = [0; 4];
    match File::open(&absolute).map_err(cannot)?.read_exact(&mut magic) {
        Ok(()) if &magic == b"\0asm" => Ok(absolute),
        _ => Err(format!("QUICSAND_MODULE names `{}`, which is no WebAssembly module", path.display())),
    }
}

fn marker(target_dir: &Path) -> io::Result<PathBuf> {
    let dir = target_dir.join("quicsand-guest");
    fs::create_dir_all(&dir)?;
    let path = dir.join("no-toolchain");
    let far = SystemTime::now().checked_add(Duration::from_secs(10 * 365 * 24 * 3600)).unwrap_or_else(SystemTime::now);
    File::create(&path)?.set_modified(far)?;
    Ok(path)
}
