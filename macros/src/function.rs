//! A function as the macros read it: attributes, visibility, signature, and a body that is nobody's business.

use proc_macro2::{Delimiter, Group, TokenStream};
use quote::{ToTokens, quote};
use syn::{
    Attribute, Signature, Visibility,
    parse::{Parse, ParseStream},
};

/// A function with a body. The body's tokens are passed on unread, so that macros do not fail on what rustc explains better.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: Group,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let sig = input.parse()?;
        let body: Group = input.parse()?;
        if body.delimiter() != Delimiter::Brace {
            return Err(syn::Error::new(body.span(), "expected the function's body"));
        }
        Ok(Self { attrs, vis, sig, body })
    }
}

impl ToTokens for Function {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let Self { attrs, vis, sig, body } = self;
        tokens.extend(quote!(#(#attrs)* #vis #sig #body));
    }
}

/// Whether an attribute concerns lints, documentation or conditional compilation only: it can stay whatever becomes of the item.
pub(crate) fn is_inert(attribute: &Attribute) -> bool {
    const INERT: [&str; 10] = ["allow", "cfg", "cfg_attr", "deny", "deprecated", "doc", "expect", "forbid", "must_use", "warn"];
    let path = attribute.path();
    let first = path.segments.first().map(|segment| segment.ident.to_string());
    match path.get_ident() {
        Some(ident) => INERT.iter().any(|name| ident == name),
        None => matches!(first.as_deref(), Some("clippy" | "rustfmt")),
    }
}

/// Whether it has this one-word path.
pub(crate) fn is_one_of(attribute: &Attribute, names: &[&str]) -> bool {
    attribute.path().get_ident().is_some_and(|ident| names.iter().any(|name| ident == name))
}
