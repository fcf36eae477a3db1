//! `#[task]`: a function becomes a value with types that can still be called. Owns: what is emitted. Must not know: how it is built.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Error, spanned::Spanned as _};

use crate::{
    attributes::{self, TaskAttributes},
    function::{Function, is_one_of},
    identity, place,
    signature::{Returned, Shape},
    stamp,
};

/// Expands `#[task(args)] item`; a wrong function comes back as it was, for editors, beside everything that is wrong with it.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> (TokenStream, Vec<Error>) {
    let mut errors = Vec::new();
    let attributes = TaskAttributes::read(args, &mut errors);
    let function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(Error::new(error.span(), format!("`#[task]` belongs on a function with a body: {error}")));
            return (item, errors);
        }
    };
    let shape = Shape::read(&function.sig, &mut errors);
    let ident = &function.sig.ident;
    if function.sig.receiver().is_none() && place::is_associated(ident) {
        let message = "a task cannot be in an `impl` or `trait` block: it becomes a type of its own; move the function out";
        errors.push(Error::new(ident.span(), message));
    }
    if !errors.is_empty() {
        return (item, errors);
    }
    (emit(&attributes, &function, &shape, &item), errors)
}

fn emit(attributes: &TaskAttributes, function: &Function, shape: &Shape, item: &TokenStream) -> TokenStream {
    let root = attributes::root_or_default(attributes.root.as_ref());
    let Function { vis, sig, .. } = function;
    let ident = &sig.ident;
    let on_struct = function.attrs.iter().filter(|attribute| is_one_of(attribute, &["doc", "cfg", "deprecated", "allow"]));
    let cfgs = function.attrs.iter().filter(|attribute| is_one_of(attribute, &["cfg"]));
    let on_function = function.attrs.iter().filter(|attribute| !is_one_of(attribute, &["doc", "cfg", "deprecated"]));
    let body = &function.body;

    let signature = identity::signature_text(sig);
    let info = info(&root, attributes, function, &signature, item);
    let guest = guest(&root, function, &signature, item);
    let callable = callable(function, shape);
    let task = task(&root, function, shape);

    quote! {
        #(#on_struct)*
        #[allow(non_camel_case_types)]
        #[cfg_attr(target_family = "wasm", allow(dead_code))]
        #vis struct #ident;

        #(#cfgs)*
        const _: () = {
            #(#on_function)*
            #[allow(dead_code)]
            #sig #body

            #callable
            #info
            #task
            #guest
        };
    }
}

/// The value can be copied, and called like the function.
fn callable(function: &Function, shape: &Shape) -> TokenStream {
    let ident = &function.sig.ident;
    let output = &function.sig.output;
    let written = shape.parameters.iter().map(|parameter| &parameter.written);
    let pointer = quote!(fn(#(#written),*) #output);
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl ::core::clone::Clone for #ident {
            fn clone(&self) -> Self {
                *self
            }
        }

        #[automatically_derived]
        #[allow(deprecated)]
        impl ::core::marker::Copy for #ident {}

        #[automatically_derived]
        #[allow(deprecated)]
        impl ::core::ops::Deref for #ident {
            type Target = #pointer;

            #[inline]
            fn deref(&self) -> &Self::Target {
                const FUNCTION: #pointer = #ident;
                &FUNCTION
            }
        }
    }
}

fn info(
    root: &TokenStream,
    attributes: &TaskAttributes,
    function: &Function,
    signature: &str,
    item: &TokenStream,
) -> TokenStream {
    let ident = &function.sig.ident;
    let identity = identity::identity(ident, signature);
    let stamp = stamp::stamp(ident, item);
    let name = attributes.name.clone().unwrap_or_else(|| syn::ext::IdentExt::unraw(ident).to_string());
    let memory = attributes.memory.map_or_else(|| quote!(#root::DEFAULT_MEMORY), |bytes| quote!(#bytes));
    let timeout = match attributes.timeout_ms {
        Some(ms) => quote!(::core::option::Option::Some(::core::time::Duration::from_millis(#ms))),
        None => quote!(#root::DEFAULT_TIMEOUT),
    };
    let retries = attributes.retries.unwrap_or(0);
    let requires = attributes.requires.expand(root);
    quote! {
        static INFO: #root::__private::TaskInfo = #root::__private::TaskInfo {
            id: #root::__private::TaskId::of(#identity),
            stamp: #stamp,
            name: #name,
            signature: #signature,
            options: #root::Options {
                memory: #memory,
                timeout: #timeout,
                retries: #retries,
                priority: 0,
                requires: #requires,
            },
        };
    }
}

fn task(root: &TokenStream, function: &Function, shape: &Shape) -> TokenStream {
    let ident = &function.sig.ident;
    let owned: Vec<&TokenStream> = shape.parameters.iter().map(|parameter| &parameter.owned).collect();
    let locals: Vec<_> = (0..owned.len()).map(|index| format_ident!("argument_{}", index, span = Span::mixed_site())).collect();
    let reads = shape.parameters.iter().zip(&locals).map(|(parameter, local)| {
        let (ty, name) = (&parameter.owned, &parameter.name);
        // Points at the type when it has no encoding.
        let span = Span::call_site().located_at(parameter.written.span());
        quote_spanned!(span=> let #local = #root::__private::read::<#ty>(args, #name)?;)
    });
    let passed = shape.parameters.iter().zip(&locals).map(|(parameter, local)| match parameter.by_reference {
        true => quote!(&#local),
        false => quote!(#local),
    });
    let last = shape.parameters.last().map_or("()", |parameter| &parameter.name);
    let call = quote!(#ident(#(#passed),*));
    let (output, write) = match &shape.returned {
        Returned::Unit => (quote!(()), quote!(#root::__private::write::<Self>(&#call, out))),
        Returned::Value(ty) => (quote!(#ty), quote!(#root::__private::write::<Self>(&#call, out))),
        Returned::Fallible { written, value } => {
            let output = match value {
                Some(value) => quote!(#value),
                None => quote!(<#written as #root::__private::Fallible>::Value),
            };
            // Points at the return type when its error cannot be displayed.
            let span = Span::call_site().located_at(written.span());
            (output, quote_spanned!(span=> #root::__private::write_result::<Self, _>(#call, out)))
        }
    };
    quote! {
        #[automatically_derived]
        #[allow(deprecated)]
        impl #root::Task for #ident {
            type Args = (#(#owned,)*);
            type Output = #output;

            fn info() -> &'static #root::__private::TaskInfo {
                &INFO
            }

            fn run_item(
                args: &mut #root::__private::ArgReader<'_>,
                out: &mut #root::__private::Output,
            ) -> ::core::result::Result<(), #root::__private::ItemFailure> {
                #(#reads)*
                args.finish(#last)?;
                #write
            }
        }
    }
}

/// The export and the manifest's entry, in the guest.
fn guest(root: &TokenStream, function: &Function, signature: &str, item: &TokenStream) -> TokenStream {
    let ident = &function.sig.ident;
    let export = identity::export_name(ident, signature, item);
    quote! {
        #[cfg(target_family = "wasm")]
        #[allow(deprecated)]
        const _: () = {
            #[unsafe(export_name = #export)]
            unsafe extern "C" fn run(batch: *const #root::__private::Batch) {
                unsafe { #root::__private::run_batch::<#ident>(batch) }
            }

            #[used]
            #[unsafe(link_section = "quicsand")]
            static ENTRY: [u8; #root::__private::entry_len(&INFO, #export)] = #root::__private::entry(&INFO, #export);
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(args: &str, item: &str) -> (String, Vec<String>) {
        let (tokens, errors) = expand(args.parse().expect("tokens"), item.parse().expect("tokens"));
        (tokens.to_string().replace(' ', ""), errors.iter().map(ToString::to_string).collect())
    }

    fn check(item: &str, expected: &[&str]) {
        let (text, errors) = expanded("", item);
        assert!(errors.is_empty(), "{item}: {errors:?}");
        for part in expected {
            assert!(text.contains(&part.replace(' ', "")), "{item}: no {part} in {text}");
        }
    }

    #[test]
    fn arguments_are_read_owned_and_passed_as_asked() {
        check(
            "fn f(a: i64, b: &[f64], c: &str, d: &Table) -> u8 { 1 }",
            &[
                "type Args = (i64, ::std::vec::Vec<f64>, ::std::string::String, Table,);",
                "type Target = fn(i64, &[f64], &str, &Table) -> u8;",
                "read::<::std::vec::Vec<f64>>(args, \"b\")?;",
                "f(argument_0, &argument_1, &argument_2, &argument_3)",
                "args.finish(\"d\")?;",
            ],
        );
        check("fn f() {}", &["type Args = (); type Output = ();", "write::<Self>(&f(), out)"]);
    }

    #[test]
    fn results_are_told_by_their_last_segment() {
        check("fn f() -> Result<i64, String> { Ok(1) }", &["type Output = i64;", "write_result::<Self, _>(f(), out)"]);
        check("fn f() -> anyhow::Result<Vec<u8>> { todo() }", &["type Output = Vec<u8>;", "write_result"]);
        check("fn f() -> fmt::Result { Ok(()) }", &["type Output = <fmt::Result as ::quicsand::__private::Fallible>::Value;"]);
        check("fn f() -> Option<Result<u8, u8>> { None }", &["type Output = Option<Result<u8, u8>>;", "write::<Self>"]);
    }

    #[test]
    fn documentation_and_conditions_go_to_the_value_and_lints_to_the_function() {
        check(
            "#[doc = \"d\"] #[cfg(unix)] #[warn(clippy::x)] pub(crate) fn f() {}",
            &[
                "#[doc = \"d\"] #[cfg(unix)] #[allow(non_camel_case_types)]",
                "pub(crate) struct f;",
                "#[cfg(unix)] const _: () = { #[warn(clippy::x)] #[allow(dead_code)] fn f() {}",
            ],
        );
        let (text, _) = expanded("crate = \"crate::inner\"", "fn f() {}");
        assert!(text.contains("implcrate::inner::Taskforf") && !text.contains("::quicsand"), "{text}");
    }

    #[test]
    fn a_wrong_function_comes_back_beside_all_its_errors() {
        let item = "async unsafe fn f<T>((a, b): (T, T), c: &mut T, d: Vec<&str>) -> impl Sized {}";
        let (text, errors) = expanded("retries = none", item);
        assert_eq!(text, item.replace(' ', ""));
        assert_eq!(errors.len(), 8, "{errors:?}");
    }
}
