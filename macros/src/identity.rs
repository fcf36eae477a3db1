//! Who a task is: the texts and hashes that tell it from every other, in program and module alike. Must not know: what tasks do.

use std::env;

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{Signature, ext::IdentExt as _};

use crate::text::{self, Fnv};

/// Parameters and result, as written.
pub(crate) fn signature_text(sig: &Signature) -> String {
    let (inputs, output) = (&sig.inputs, &sig.output);
    text::of(quote!((#inputs) #output))
}

/// An expression for the text that identifies a task. Module path and position are left to the compiler, since one `macro_rules`
/// may be expanded in many places; nothing in it differs between the build of the program and that of its module.
pub(crate) fn identity(ident: &Ident, signature: &str) -> TokenStream {
    let before = format!("{} ", package());
    let middle = format!("::{} ", ident.unraw());
    let after = format!(" {signature}");
    quote! {
        ::core::concat!(#before, ::core::module_path!(), #middle, ::core::line!(), ":", ::core::column!(), #after)
    }
}

/// The name of a task's export: unique within a module, meaningless beyond it. Spans' debug texts tell expansions of one macro apart.
pub(crate) fn export_name(ident: &Ident, signature: &str, item: &TokenStream) -> String {
    let mut hash = Fnv::new().with(package().as_bytes()).with(signature.as_bytes());
    hash = hash.with(format!("{:?} {:?}", ident.span(), proc_macro2::Span::call_site()).as_bytes());
    hash = hash.with(text::of(item.clone()).as_bytes());
    format!("quicsand:{}:{:016x}", ident.unraw(), hash.finish())
}

/// Package, version, crate and, in a program, its target: a library and a program may share names and source files.
fn package() -> String {
    let var = |name| env::var(name).unwrap_or_default();
    let target = match env::var("CARGO_BIN_NAME") {
        Ok(program) => format!(" bin {program}"),
        Err(_) => String::new(),
    };
    format!("{} {} {}{target}", var("CARGO_PKG_NAME"), var("CARGO_PKG_VERSION"), var("CARGO_CRATE_NAME"))
}
