//! `requires(zone = "a", gpu = 1)`: labels and resources that a task asks of its worker. Owns: how they are written, and what is wrong
//! with them. Must not know: what else `#[task(…)]` says.

use std::collections::BTreeMap;

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::quote;
use syn::{Error, Lit, ext::IdentExt as _, spanned::Spanned as _};

use crate::attributes::{Given, split_at_commas};

/// As many labels and resources, and as long names and values, as the library sends.
const MAX_ASKED: usize = 32;
const NAME_BYTES: usize = 64;
const VALUE_BYTES: usize = 256;

const EXPECTED: &str = "expected a label's value in quotes or an amount of a resource, such as `requires(zone = \"a\", gpu = 1)`";

/// Labels with their values, and resources with their amounts.
#[derive(Default)]
pub(crate) struct Requires {
    labels: BTreeMap<String, String>,
    resources: BTreeMap<String, u64>,
}

/// What is asked for under a name.
enum Asked {
    Label(String),
    Resource(u64),
}

impl Requires {
    /// Reads everything that is right and reports everything that is not.
    pub(crate) fn read(given: &Given, errors: &mut Vec<Error>) -> Self {
        let mut read = Self::default();
        let Given::List(_, list) = given else {
            errors.push(Error::new(given.span(), EXPECTED));
            return read;
        };
        let pieces = split_at_commas(list.clone());
        if pieces.len() > MAX_ASKED {
            errors.push(Error::new(given.span(), format!("a task can ask for at most {MAX_ASKED} labels and resources")));
        }
        for piece in pieces {
            let (name, at, asked) = match pair(piece) {
                Ok(pair) => pair,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            if read.labels.contains_key(&name) || read.resources.contains_key(&name) {
                errors.push(Error::new(at, format!("`{name}` is asked for twice")));
                continue;
            }
            match asked {
                Asked::Label(value) => drop(read.labels.insert(name, value)),
                Asked::Resource(amount) => drop(read.resources.insert(name, amount)),
            }
        }
        read
    }

    /// A constant of the library's type.
    pub(crate) fn expand(&self, root: &TokenStream) -> TokenStream {
        let text = |text: &str| quote!(::std::borrow::Cow::Borrowed(#text));
        let labels = self.labels.iter().map(|(name, value)| {
            let (name, value) = (text(name), text(value));
            quote!((#name, #value))
        });
        let resources = self.resources.iter().map(|(name, amount)| {
            let name = text(name);
            quote!((#name, #amount))
        });
        quote!(#root::Requirements::of(&[#(#labels),*], &[#(#resources),*]))
    }
}

/// A name, where it is, and what is asked for under it.
fn pair(piece: TokenStream) -> Result<(String, Span, Asked), Error> {
    let start = piece.span();
    let mut tokens = piece.into_iter();
    let mut name = String::new();
    for token in tokens.by_ref() {
        let is_word = matches!(token, TokenTree::Ident(_) | TokenTree::Literal(_));
        if is_word && name.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            // Two words: what is between them cannot be in a name.
            name.push(' ');
        }
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '=' => {
                let name = checked(name, start)?;
                return Ok((name, start, asked(tokens.collect(), start)?));
            }
            TokenTree::Punct(punct) => name.push(punct.as_char()),
            TokenTree::Ident(ident) => name += &ident.unraw().to_string(),
            TokenTree::Literal(literal) => name += literal.to_string().trim_matches('"'),
            TokenTree::Group(group) => return Err(Error::new(group.span(), EXPECTED)),
        }
    }
    Err(Error::new(start, EXPECTED))
}

fn checked(name: String, at: Span) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(fits) {
        let message = format!("the name of a label or resource has 1 to {NAME_BYTES} letters, digits and `-_./`");
        return Err(Error::new(at, message));
    }
    Ok(name)
}

fn asked(value: TokenStream, start: Span) -> Result<Asked, Error> {
    let span = if value.is_empty() { start } else { value.span() };
    match syn::parse2::<Lit>(value) {
        Ok(Lit::Str(text)) => {
            let text = text.value();
            if text.is_empty() || text.len() > VALUE_BYTES || text.chars().any(char::is_control) {
                let message = format!("the value of a label has 1 to {VALUE_BYTES} bytes, all in one line");
                return Err(Error::new(span, message));
            }
            Ok(Asked::Label(text))
        }
        Ok(Lit::Int(number)) if number.suffix().is_empty() && !number.base10_digits().starts_with('-') => {
            match number.base10_parse() {
                Ok(0) => Err(Error::new(span, "a task takes at least 1 of a resource that it asks for")),
                Ok(amount) => Ok(Asked::Resource(amount)),
                Err(_) => Err(Error::new(span, "this amount is too large")),
            }
        }
        _ => Err(Error::new(span, EXPECTED)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::TaskAttributes;

    fn read(list: &str) -> (String, Vec<String>) {
        let mut errors = Vec::new();
        let tokens = format!("requires({list})").parse().expect("tokens");
        let read = TaskAttributes::read(tokens, &mut errors).requires;
        let labels = read.labels.iter().map(|(name, value)| format!("{name}={value:?}"));
        let resources = read.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
        (labels.chain(resources).collect::<Vec<_>>().join(" "), errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn labels_and_resources_are_read() {
        let check = |list: &str, expected: &str| assert_eq!(read(list), (expected.to_owned(), Vec::new()), "{list}");
        check("", "");
        check(r#"zone = "a", gpu = 1,"#, r#"zone="a" gpu=1"#);
        check(r#"zone = "b c", arch = "x86_64""#, r#"arch="x86_64" zone="b c""#);
        check(r#"cpu.avx2 = "yes", cpu.sse4.1 = "yes", r#type = "x""#, r#"cpu.avx2="yes" cpu.sse4.1="yes" type="x""#);
        check(r#"my-rack/row = "7", "host.name" = "n1", disk_gb = 1_000"#, r#"host.name="n1" my-rack/row="7" disk_gb=1000"#);
    }

    #[test]
    fn mistakes_are_reported_all_at_once() {
        let check = |list: &str, beginnings: &[&str]| {
            let (_, errors) = read(list);
            assert_eq!(errors.len(), beginnings.len(), "{list}: {errors:?}");
            for (error, beginning) in errors.iter().zip(beginnings) {
                assert!(error.starts_with(beginning), "{list}: {error}");
            }
        };
        check("gpu", &["expected a label's value"]);
        check("gpu = ", &["expected a label's value"]);
        check("gpu = 0, zone = \"\"", &["a task takes at least 1", "the value of a label"]);
        check("gpu = -1, gpu = 1.5, zone = true", &["expected"; 3]);
        check("gpu = 1, gpu = 2, gpu = \"x\"", &["`gpu` is asked for twice"; 2]);
        check("gpu = 1u8, (x) = 1, = 1", &["expected", "expected", "the name of a label"]);
        check("gpu = 99999999999999999999", &["this amount is too large"]);
        check("a + b = 1, \"z z\" = 1, my label = 1", &["the name of a label"; 3]);
        check(&(0..33).map(|i| format!("n{i} = 1,")).collect::<String>(), &["a task can ask for at most 32"]);
        check(&format!("{} = 1", "n".repeat(65)), &["the name of a label"]);
    }

    #[test]
    fn the_constant_is_sorted() {
        let (mut errors, tokens) =
            (Vec::new(), "requires(zone = \"a\", tpu = 2, arch = \"x\", gpu = 1)".parse().expect("tokens"));
        let text = TaskAttributes::read(tokens, &mut errors).requires.expand(&quote!(::quicsand)).to_string().replace(' ', "");
        let names = ["\"arch\"", "\"zone\"", "\"gpu\"", "\"tpu\""].map(|name| text.find(name));
        assert!(names.is_sorted() && names.iter().all(Option::is_some), "{text}");
    }
}
