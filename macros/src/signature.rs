//! What a task's signature means: owned argument types, result type, and everything that a signature cannot be. Owns: the rules
//! and their messages. Must not know: what is emitted.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote, quote_spanned};
use syn::{
    Error, FnArg, GenericArgument, Lifetime, Pat, PathArguments, ReturnType, Safety, Signature, Type, TypeImplTrait, TypeInfer,
    TypeReference, spanned::Spanned as _, visit::Visit,
};

/// As many fields as argument tuples may have.
const PARAMETERS_MAX: usize = 8;

/// A signature that a task can have.
pub(crate) struct Shape {
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) returned: Returned,
}

/// One parameter.
pub(crate) struct Parameter {
    pub(crate) name: String,
    /// The type as written.
    pub(crate) written: Type,
    /// What is decoded for it.
    pub(crate) owned: TokenStream,
    /// Whether the function wants a reference to it.
    pub(crate) by_reference: bool,
}

/// What a task gives back.
pub(crate) enum Returned {
    /// Nothing.
    Unit,
    /// A value.
    Value(Box<Type>),
    /// A value or an error: the type as written, and that of the value where it is written.
    Fallible { written: Box<Type>, value: Option<Box<Type>> },
}

impl Shape {
    /// Reads a signature, or reports everything that is wrong with it.
    pub(crate) fn read(sig: &Signature, errors: &mut Vec<Error>) -> Self {
        check_qualifiers(sig, errors);
        let parameters: Vec<Parameter> = sig.inputs.iter().filter_map(|input| read_parameter(input, errors)).collect();
        if let Some(excess) = sig.inputs.iter().nth(PARAMETERS_MAX) {
            let message =
                format!("a task takes at most {PARAMETERS_MAX} arguments, this one {}: put some into a struct", sig.inputs.len());
            errors.push(Error::new_spanned(excess, message));
        }
        Self { parameters, returned: read_returned(&sig.output, errors) }
    }
}

fn check_qualifiers(sig: &Signature, errors: &mut Vec<Error>) {
    let mut refuse = |part: &dyn ToTokens, message: &str| errors.push(Error::new_spanned(part, message));
    if let Some(token) = &sig.constness {
        refuse(token, "a task cannot be `const`: it runs elsewhere, at run time; call a const fn from it");
    }
    if let Some(token) = &sig.asyncness {
        refuse(token, "a task cannot be `async`: it runs to its end on one thread; concurrency is many calls");
    }
    if let Safety::Unsafe(token) = &sig.safety {
        refuse(token, "a task cannot be `unsafe`: nobody could vouch for the call; wrap the unsafe code in a safe function");
    }
    if let Some(abi) = &sig.abi {
        refuse(abi, "a task cannot be `extern`: quicsand calls it as a Rust function");
    }
    if let Some(variadic) = &sig.variadic {
        refuse(variadic, "a task cannot take variable arguments: take a `Vec`");
    }
    for parameter in &sig.generics.params {
        let message = match parameter {
            syn::GenericParam::Lifetime(_) => "a task cannot name lifetimes: leave them out, arguments are borrowed for the call",
            _ => {
                "a task cannot be generic: it is compiled into the module once; write a task for each type, calling a generic function"
            }
        };
        refuse(parameter, message);
    }
}

fn read_parameter(input: &FnArg, errors: &mut Vec<Error>) -> Option<Parameter> {
    let typed = match input {
        FnArg::Receiver(receiver) => {
            let message =
                "a task cannot take `self`: move the function out of the `impl` block and take the value as an argument";
            errors.push(Error::new(receiver.self_token.span, message));
            return None;
        }
        FnArg::Typed(typed) => typed,
    };
    let name = match &*typed.pat {
        Pat::Ident(pat) if pat.by_ref.is_none() && pat.subpat.is_none() => {
            Some(syn::ext::IdentExt::unraw(&pat.ident).to_string())
        }
        Pat::Wild(_) => Some("_".to_owned()),
        pattern => {
            let message = "a task's argument needs a name, errors show it: take the pattern apart in the body";
            errors.push(Error::new_spanned(pattern, message));
            None
        }
    };
    let borrowed = borrowed(&typed.ty, errors);
    Some(Parameter {
        name: name?,
        written: (*typed.ty).clone(),
        owned: borrowed.as_ref().map_or_else(|| typed.ty.to_token_stream(), owned_for),
        by_reference: borrowed.is_some(),
    })
}

/// What a parameter refers to, if it is a reference. Reports what lies beneath and cannot be decoded.
fn borrowed(ty: &Type, errors: &mut Vec<Error>) -> Option<Type> {
    let Type::Reference(reference) = peel(ty) else {
        find_unowned(ty, "an argument is owned, or a reference to something owned", errors);
        return None;
    };
    if reference.mutability.is_some() {
        let message = "a task cannot take `&mut`: it gets a copy; take the value and return the new one";
        errors.push(Error::new_spanned(reference, message));
    }
    if let Some(lifetime) = &reference.lifetime {
        let message = "a task cannot name lifetimes: leave them out, arguments are borrowed for the call";
        errors.push(Error::new_spanned(lifetime, message));
    }
    find_unowned(&reference.elem, "an argument is owned, or a reference to something owned", errors);
    Some((*reference.elem).clone())
}

/// The owned type that `&inner` is borrowed from.
fn owned_for(inner: &Type) -> TokenStream {
    match peel(inner) {
        Type::Path(path) if path.path.is_ident("str") => quote_spanned!(inner.span()=> ::std::string::String),
        Type::Slice(slice) => {
            let element = &slice.elem;
            quote!(::std::vec::Vec<#element>)
        }
        _ => quote!(#inner),
    }
}

fn read_returned(output: &ReturnType, errors: &mut Vec<Error>) -> Returned {
    let ReturnType::Type(_, ty) = output else { return Returned::Unit };
    let ty = &**ty;
    if let Type::Never(never) = peel(ty) {
        errors.push(Error::new_spanned(never, "a task returns: a result, or nothing"));
        return Returned::Unit;
    }
    let message = "a task returns owned data: it travels back on its own";
    let Some(value) = fallible_value(ty) else {
        find_unowned(ty, message, errors);
        return Returned::Value(Box::new(ty.clone()));
    };
    if let Some(value) = &value {
        find_unowned(value, message, errors);
    }
    Returned::Fallible { written: Box::new(ty.clone()), value: value.map(Box::new) }
}

/// `Some` if the type's last segment is `Result`; in it the first type argument, if there is one.
fn fallible_value(ty: &Type) -> Option<Option<Type>> {
    let Type::Path(path) = peel(ty) else { return None };
    let last = path.path.segments.last()?;
    if last.ident != "Result" {
        return None;
    }
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return Some(None) };
    Some(arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    }))
}

/// The type without parentheses and the invisible groups that `macro_rules` leave.
fn peel(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => peel(&group.elem),
        Type::Paren(paren) => peel(&paren.elem),
        ty => ty,
    }
}

fn find_unowned(ty: &Type, message: &'static str, errors: &mut Vec<Error>) {
    Unowned { message, errors }.visit_type(ty);
}

/// Looks for what cannot be part of an owned value.
struct Unowned<'a> {
    message: &'static str,
    errors: &'a mut Vec<Error>,
}

impl<'ast> Visit<'ast> for Unowned<'_> {
    fn visit_type_reference(&mut self, reference: &'ast TypeReference) {
        self.errors.push(Error::new_spanned(reference, format!("a reference cannot be sent: {}", self.message)));
    }

    fn visit_type_impl_trait(&mut self, ty: &'ast TypeImplTrait) {
        let message = "a task cannot use `impl Trait`: name the type, it has to be known to encode and decode it";
        self.errors.push(Error::new_spanned(ty, message));
    }

    fn visit_type_infer(&mut self, ty: &'ast TypeInfer) {
        self.errors.push(Error::new_spanned(ty, "a task names its types"));
    }

    fn visit_lifetime(&mut self, lifetime: &'ast Lifetime) {
        if lifetime.ident != "static" {
            self.errors.push(Error::new_spanned(lifetime, format!("a borrow cannot be sent: {}", self.message)));
        }
    }

    // What stands behind a function pointer's arrow is no part of the value; rustc says that it has no encoding.
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}
}
