//! The macros of quicsand.

use proc_macro::TokenStream;

/// A task.
#[proc_macro_attribute]
pub fn task(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// A program's main function.
#[proc_macro_attribute]
pub fn main(_: TokenStream, item: TokenStream) -> TokenStream {
    item
}

/// The program's module.
#[proc_macro]
pub fn embed(item: TokenStream) -> TokenStream {
    item
}
