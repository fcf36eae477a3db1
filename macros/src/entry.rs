//! `#[quicsand::main]`: installs the module before anything else, and empties `main` in the guest. Must not know: how it is built.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::Error;

use crate::{
    attributes::ModuleAttributes,
    function::{Function, is_inert},
    invocation::Invocation,
    module,
};

/// Expands `#[quicsand::main(args)] item`.
pub(crate) fn expand(args: TokenStream, item: TokenStream) -> (TokenStream, Vec<Error>) {
    let mut errors = Vec::new();
    let attributes = ModuleAttributes::read(args, &mut errors);
    let function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(Error::new(error.span(), format!("`#[quicsand::main]` belongs on `fn main`: {error}")));
            return (item, errors);
        }
    };
    if function.sig.ident != "main" {
        let message = "`#[quicsand::main]` belongs on `fn main`; elsewhere `quicsand::embed!()` gives the module";
        errors.push(Error::new(function.sig.ident.span(), message));
    }
    if !errors.is_empty() {
        return (item, errors);
    }
    // A unit-test harness has a main of its own: this one never runs.
    let invocation = Invocation::of_real_build().filter(|invocation| !invocation.test);
    let module = module::expression(&attributes, invocation.as_ref(), &mut errors);
    (emit(&function, &module), errors)
}

fn emit(function: &Function, module: &TokenStream) -> TokenStream {
    let Function { attrs, vis, sig, body } = function;
    let installing = with_first_statement(body, quote!(#module.install();));
    let inert = attrs.iter().filter(|attribute| is_inert(attribute));
    let mut unused = sig.clone();
    unused.ident = Ident::new("__quicsand_main", Span::call_site());
    let main = &sig.ident;
    quote! {
        #[cfg(not(target_family = "wasm"))]
        #(#attrs)*
        #vis #sig #installing

        // Keeps in use what only `main` uses.
        #[cfg(target_family = "wasm")]
        #(#inert)*
        #[allow(dead_code)]
        #unused #body

        #[cfg(target_family = "wasm")]
        fn #main() {}
    }
}

/// The body with a statement after its inner attributes.
fn with_first_statement(body: &Group, statement: TokenStream) -> Group {
    let mut rest = body.stream().into_iter().peekable();
    let mut tokens = TokenStream::new();
    while let Some(TokenTree::Punct(punct)) = rest.peek()
        && punct.as_char() == '#'
    {
        let hash: Vec<TokenTree> = rest.by_ref().take(1).collect();
        let inner = matches!(rest.peek(), Some(TokenTree::Punct(punct)) if punct.as_char() == '!');
        if !inner {
            // An attribute of the first statement, which is no longer the first.
            tokens.extend(statement);
            tokens.extend(hash.into_iter().chain(rest));
            return rebuilt(body, tokens);
        }
        tokens.extend(hash);
        tokens.extend(rest.by_ref().take(2));
    }
    tokens.extend(statement);
    tokens.extend(rest);
    rebuilt(body, tokens)
}

fn rebuilt(body: &Group, tokens: TokenStream) -> Group {
    let mut group = Group::new(body.delimiter(), tokens);
    group.set_span(body.span());
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(item: &str, expected: &str) {
        let (tokens, errors) = expand(TokenStream::new(), item.parse().expect("tokens"));
        assert!(errors.is_empty(), "{errors:?}");
        let text = tokens.to_string().replace(' ', "");
        assert!(text.contains(&expected.replace(' ', "")), "{text}");
    }

    #[test]
    fn the_module_is_installed_first() {
        check("fn main() { work(); }", "itself\").install(); work(); }");
        check("fn main() { #![allow(unused)] work(); }", "fn main() { #![allow(unused)] ::quicsand");
        check("fn main() { #[allow(unused)] let x = 1; }", ".install(); #[allow(unused)] let x = 1; }");
        check("fn main() {}", ".install(); }");
    }

    #[test]
    fn the_guest_has_an_empty_main_and_no_runtime() {
        let item = "#[doc = \"d\"] #[tokio::main] async fn main() -> Result<(), E> { work().await }";
        check(item, "#[doc = \"d\"] #[allow(dead_code)] async fn __quicsand_main() -> Result<(), E> { work().await }");
        check(item, "#[cfg(target_family = \"wasm\")] fn main() {}");
        check(item, "#[doc = \"d\"] #[tokio::main] async fn main() -> Result<(), E> { ::quicsand");
    }

    #[test]
    fn other_functions_are_refused() {
        let (_, errors) = expand("task = 1".parse().expect("tokens"), "fn start() {}".parse().expect("tokens"));
        let messages: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
    }
}
